import { once } from 'node:events';
import {
  Client,
  credentials,
  Metadata,
  type ClientReadableStream,
  type ServiceError,
  type StatusObject,
} from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { AssistantServiceService, ChatRequest, ChatResponse } from '#gen/chat4all/assistant/v1/assistant.ts';
import { eventually } from '../../test/eventually.ts';
import { noAuthority } from '../../test/no-authority.ts';
import { loadConfig } from '../config.ts';
import { HubError } from '../errors.ts';
import { generateKeys, identitySettings, openIdentities } from '../identity.ts';
import { openLog } from '../log.ts';
import type { RateFloorOptions } from '../rate-floor.ts';
import type { UserStreamCall } from './call.ts';
import { serve, serverSettings, service, type Finds, type Handlers } from './server.ts';
import { encodeViolations, fromServiceError } from './status.ts';
import { EncodedMessage } from './writing.ts';

const { privateKeys, trusted } = await generateKeys(['auth', 'assistant']);
const identitiesOf = (name: string) =>
  openIdentities(loadConfig(identitySettings, { IDENTITY_KEY: privateKeys[name], TRUSTED_KEYS: trusted }));
const userId = 'abcdef00-0000-4000-8000-000000000000';
const expiresAt = new Date(Date.now() + 3_600_000);
const tokenOf = (numId: bigint) =>
  identitiesOf('auth').userToken({
    userId,
    numId,
    username: 'somebody',
    admin: false,
    sessionId: userId,
    expiresAt,
  });

type Definition = AssistantServiceService;
type Chat = (request: ChatRequest, call: UserStreamCall) => AsyncIterable<ChatResponse | readonly EncodedMessage[]>;

interface Given {
  finds?: Finds<Definition>;
  env?: NodeJS.ProcessEnv;
  taken?: RateFloorOptions;
}

/** Serves `chat`, and what calls it. */
async function open(t: ExecutionContext, chat: Chat, { finds, env = {}, taken }: Given = {}) {
  const lines: Record<string, unknown>[] = [];
  const unused = () => {
    throw new Error('nobody asks for this');
  };
  const handlers = Object.fromEntries(Object.keys(AssistantServiceService).map((key) => [key, unused]));
  const server = await serve({
    authority: noAuthority,
    config: loadConfig(serverSettings, { GRPC_PORT: '0', GRPC_DRAIN: '1s', ...env }),
    identities: identitiesOf('assistant'),
    log: openLog({
      name: 'assistant',
      format: 'json',
      level: 'info',
      destination: { write: (line: string) => void lines.push(JSON.parse(line)) },
    }),
    services: [service(AssistantServiceService, { ...handlers, chat } as unknown as Handlers<Definition>, {}, finds)],
    dependencies: {},
    clientLimits: taken === undefined ? {} : { reading: taken },
  });
  const client = new Client(`127.0.0.1:${server.port}`, credentials.createInsecure());
  t.teardown(async () => {
    client.close();
    await server.stop();
  });

  async function call(
    request: Partial<ChatRequest> = {},
    { numId = 7n, metadata: others = {} }: { numId?: bigint; metadata?: Record<string, Buffer> } = {},
  ): Promise<ClientReadableStream<ChatResponse>> {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${await tokenOf(numId)}`);
    for (const [key, value] of Object.entries(others)) metadata.set(key, value);
    const { path, requestSerialize, responseDeserialize } = AssistantServiceService.chat;
    const whole = ChatRequest.fromPartial({ userId, message: 'hello', ...request });
    const deadline = Date.now() + 20_000;
    return client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, whole, metadata, { deadline });
  }

  /** The ids of the messages, and what the call ended with. */
  async function read(...given: Parameters<typeof call>): Promise<{ ids: bigint[]; error?: HubError }> {
    const stream = await call(...given);
    const ids: bigint[] = [];
    try {
      for await (const { id } of stream as AsyncIterable<ChatResponse>) ids.push(id);
      return { ids };
    } catch (error) {
      return { ids, error: fromServiceError(error as ServiceError) };
    }
  }
  return { server, client, call, read, lines };
}

const message = (id: number, size = 0): ChatResponse =>
  ChatResponse.fromPartial({ id: BigInt(id), event: { $case: 'text', value: { delta: 'x'.repeat(size) } } });

async function* messages(...ids: number[]): AsyncGenerator<ChatResponse> {
  for (const id of ids) yield message(id);
}

test('a stream of messages arrives in order, and the caller is told in the trailers', async (t) => {
  const { call, lines } = await open(t, () => messages(1, 2, 3));
  const stream = await call();
  const ended = once(stream, 'status') as Promise<[StatusObject]>;
  const ids: bigint[] = [];
  for await (const { id } of stream as AsyncIterable<ChatResponse>) ids.push(id);
  t.deepEqual(ids, [1n, 2n, 3n]);
  const [{ metadata }] = await ended;
  t.deepEqual(metadata.get('x-caller-id'), [userId]);
  t.like(lines.at(-1), { rpc: 'chat4all.assistant.v1.AssistantService/Chat', code: 'OK', by: userId });
});

test('arrays of encoded messages arrive in order between others, however large they are', async (t) => {
  const encoded = (id: number, size = 0) => new EncodedMessage(ChatResponse.encode(message(id, size)).finish());
  const { read } = await open(t, async function* () {
    yield [encoded(1), encoded(2, 1_000)];
    yield message(3);
    yield Array.from({ length: 50 }, (_, index) => encoded(4 + index, 20_000));
    yield [];
    yield message(54);
    yield [encoded(55)];
  });
  const { ids, error } = await read();
  t.is(error, undefined);
  t.deepEqual(
    ids,
    Array.from({ length: 55 }, (_, index) => BigInt(index + 1)),
  );
});

test('a stream may end without a message', async (t) => {
  const { read } = await open(t, () => messages());
  t.deepEqual(await read(), { ids: [] });
});

test('what is thrown before, between or after messages ends the stream as it was meant', async (t) => {
  const { read } = await open(t, async function* ({ message: text }) {
    yield* messages(...Array.from({ length: Number(text) }, (_, index) => index));
    throw new HubError('UNAVAILABLE', 'PROVIDER_ERROR', 'The provider is away', { retryAfter: 3 });
  });
  for (const count of [0, 1, 3]) {
    const { ids, error } = await read({ message: String(count) });
    t.is(ids.length, count);
    t.like(error, { kind: 'UNAVAILABLE', reason: 'PROVIDER_ERROR', retryAfter: 3 });
  }
});

test('a handler that throws before it has a stream is an error, too', async (t) => {
  const { read } = await open(t, () => {
    throw new HubError('NOT_FOUND', 'CONVERSATION_NOT_FOUND', 'There is no such conversation');
  });
  t.like((await read()).error, { reason: 'CONVERSATION_NOT_FOUND' });
});

test('a bug in the middle of a stream is logged, and its text is not sent', async (t) => {
  const { read, lines } = await open(t, async function* () {
    yield message(1);
    throw new Error('select secret from secrets');
  });
  const { ids, error } = await read();
  t.deepEqual(ids, [1n]);
  t.is(error?.reason, 'INTERNAL');
  t.notRegex(error?.message ?? '', /secret/);
  t.true(lines.some((line) => line.level === 50 && JSON.stringify(line).includes('select secret')));
});

test('the initial metadata can come before the first message', async (t) => {
  const goOn = Promise.withResolvers<void>();
  const { call } = await open(t, async function* (_request, { begin }) {
    begin();
    await goOn.promise;
    yield message(1);
  });
  const stream = await call();
  const first = once(stream, 'data');
  await once(stream, 'metadata');
  goOn.resolve();
  const [{ id }] = (await first) as [ChatResponse];
  t.is(id, 1n);
});

test('when the caller goes, the signal is aborted, and no more messages are asked for', async (t) => {
  let signal: AbortSignal | undefined;
  const returned = Promise.withResolvers<void>();
  const { call, lines } = await open(t, async function* (_request, about) {
    ({ signal } = about);
    try {
      for (let id = 1; ; id += 1) yield message(id);
    } finally {
      returned.resolve();
    }
  });
  const stream = await call();
  stream.on('error', () => {});
  await once(stream, 'data');
  stream.cancel();
  await returned.promise;
  await eventually('the abort', () => signal?.aborted, Boolean);
  await eventually(
    'the line',
    () => lines.at(-1)?.['code'],
    (code) => code === 'CANCELLED',
  );
  t.pass();
});

test('a handler that waits for ever without a look at the signal holds no place after its caller has gone', async (t) => {
  // Two calls of one user, since nobody gets more than half of the places.
  const { call, lines, read } = await open(
    t,
    async function* ({ message: text }, { begin }) {
      begin();
      if (text === 'wait') await new Promise(() => {});
      yield message(1);
    },
    { env: { GRPC_CONCURRENCY: '2' } },
  );
  const stream = await call({ message: 'wait' });
  stream.on('error', () => {});
  await once(stream, 'metadata');
  t.is((await read()).error?.reason, 'TOO_MANY_CALLS');
  stream.cancel();
  await eventually('the line', () => lines.some((line) => line['code'] === 'CANCELLED'), Boolean);
  t.deepEqual((await read()).ids, [1n]);
});

const endless = {
  messages: message,
  'arrays of encoded messages': (id: number, size: number) => [
    new EncodedMessage(ChatResponse.encode(message(id, size)).finish()),
  ],
};
for (const [what, next] of Object.entries(endless)) {
  test(`a caller that takes no ${what} holds the handler up, and is cut off`, async (t) => {
    let made = 0;
    const { call, lines } = await open(
      t,
      async function* () {
        for (;;) yield next((made += 1), 64 * 1024);
      },
      { taken: { window: 1_000, rate: 1_024 } },
    );
    const stream = await call();
    stream.on('error', () => {});
    // A client of grpc-js keeps all that comes before it reads the first message.
    await once(stream, 'data');
    stream.pause();
    await eventually('the end', () => lines.find((line) => line['reason'] === 'READER_TOO_SLOW'), Boolean);
    t.true(made < 1_000, `${made} were made for a caller that takes none`);
  });
}

test('the field that names the caller may have the UUID in any case, or the number; nothing else', async (t) => {
  const { read } = await open(t, () => messages(1));
  for (const own of [userId, userId.toUpperCase(), '7']) t.deepEqual(await read({ userId: own }), { ids: [1n] }, own);
  for (const other of ['', '0', '8', '07', '+7', ' 7', '7.0', 'seven', userId.replace('a', 'b')]) {
    const { error } = await read({ userId: other });
    t.like(error, { kind: 'PERMISSION_DENIED', reason: 'NOT_YOUR_PATH' }, other);
  }
});

test('a token from before users had numbers is told to be too old where a number is used', async (t) => {
  const { read } = await open(t, () => messages(1));
  t.deepEqual(await read({}, { numId: 0n }), { ids: [1n] });
  t.like((await read({ userId: '7' }, { numId: 0n })).error, { kind: 'UNAUTHENTICATED', reason: 'TOKEN_EXPIRED' });
  t.like((await read({ userId: '0' }, { numId: 0n })).error, { kind: 'PERMISSION_DENIED' });
});

test('whose path it is comes before what it is about, and that before wrong fields', async (t) => {
  const finds: Finds<Definition> = {
    chat({ conversationId }, found, caller) {
      if (caller?.kind !== 'user' || caller.numId !== 7n) throw new Error('nobody else gets here');
      if (found.some(({ field }) => field === 'conversation_id')) return;
      if (conversationId !== 1n) throw new HubError('NOT_FOUND', 'CONVERSATION_NOT_FOUND', 'There is none');
    },
  };
  const { read } = await open(t, () => messages(1), { finds });
  const reasonOf = async (...given: Parameters<typeof read>) => (await read(...given)).error?.reason;
  const wrong = { message: '' };
  t.is(await reasonOf({ ...wrong, userId: '8', conversationId: 2n }), 'NOT_YOUR_PATH');
  t.is(await reasonOf({ ...wrong, conversationId: 2n }), 'CONVERSATION_NOT_FOUND');
  t.is(await reasonOf({ ...wrong, conversationId: 1n }), 'INVALID_ARGUMENT');
  t.is(await reasonOf({ conversationId: 1n }), undefined);
  const told = {
    'x-field-violations-bin': Buffer.from(encodeViolations([{ field: 'conversation_id', description: 'is none' }])),
  };
  t.is(await reasonOf({ userId: '8' }, { metadata: told }), 'NOT_YOUR_PATH');
  t.is(await reasonOf({}, { metadata: told }), 'INVALID_ARGUMENT');
});

test('a handler can call others by what its caller is known by', async (t) => {
  const shown: unknown[] = [];
  const { read } = await open(t, (_request, call) => {
    shown.push(call.credentials);
    return messages(1);
  });
  await read();
  t.deepEqual(shown, [{ authorization: `Bearer ${await tokenOf(7n)}` }]);
});
