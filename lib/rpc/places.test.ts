import { once } from 'node:events';
import http2 from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials, Metadata, type ClientReadableStream, type ServiceError } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { register } from 'prom-client';
import { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import {
  FileServiceService,
  GetFileResponse,
  UploadChunkRequest,
  UploadSignedChunkRequest,
} from '#gen/chat4all/file/v1/file.ts';
import { eventually } from '../../test/eventually.ts';
import { noAuthority } from '../../test/no-authority.ts';
import { loadConfig } from '../config.ts';
import { withContext } from '../context.ts';
import type { HubError } from '../errors.ts';
import { generateKeys, identitySettings, openIdentities, type Identities } from '../identity.ts';
import { openLog } from '../log.ts';
import type { ClientLimits } from './call.ts';
import { connect } from './client.ts';
import { bytesMessage } from './raw-body.ts';
import { method, rawBodyOf } from './schema.ts';
import { serve, serverSettings, service, type Handlers, type ServedService } from './server.ts';
import { fromServiceError } from './status.ts';

/** Of each kind, so that a client alone gets four. */
const places = 8;
const share = places / 2;
const fileId = 'abcdef00-0000-4000-8000-000000000000';
const asIs = (bytes: Buffer) => bytes;
const impatient: Partial<ClientLimits> = { firstMessageMs: 4_000, sending: { window: 4_000, rate: 1_000 } };

let identitiesOf: (name: string) => Identities;
test.before(async () => {
  const { privateKeys, trusted } = await generateKeys(['auth', 'conversation', 'file', 'message']);
  identitiesOf = (name) =>
    openIdentities(loadConfig(identitySettings, { IDENTITY_KEY: privateKeys[name], TRUSTED_KEYS: trusted }));
});

/** A user's metadata; everybody has a number. */
async function userMetadata(number: number): Promise<Metadata> {
  const userId = `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
  const token = await identitiesOf('auth').userToken({
    userId,
    numId: BigInt(number),
    username: `user${number}`,
    admin: false,
    sessionId: userId,
    expiresAt: new Date(Date.now() + 600_000),
  });
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

/** Metadata of a call that a gateway passes on from an address. */
function from(address: string): Metadata {
  const metadata = new Metadata();
  metadata.set('x-forwarded-for', address);
  return metadata;
}

async function unused(): Promise<never> {
  throw new Error('nobody asks for this');
}

/** Handlers of which only the given ones are asked for. */
function filesWith(given: Partial<Handlers<typeof FileServiceService>>): ServedService {
  const handlers = Object.fromEntries(Object.keys(FileServiceService).map((key) => [key, unused]));
  return service(FileServiceService, { ...handlers, ...given } as Handlers<typeof FileServiceService>);
}

async function open(
  t: ExecutionContext,
  name: string,
  served: ServedService,
  clientLimits: Partial<ClientLimits> = {},
) {
  const lines: Record<string, unknown>[] = [];
  const config = loadConfig(serverSettings, { GRPC_PORT: '0', GRPC_DRAIN: '1ms', GRPC_CONCURRENCY: String(places) });
  const server = await serve({
    authority: noAuthority,
    config,
    identities: identitiesOf(name),
    log: openLog({
      name,
      format: 'json',
      level: 'info',
      destination: { write: (line: string) => void lines.push(JSON.parse(line)) },
    }),
    services: [served],
    dependencies: {},
    clientLimits,
  });
  const address = `127.0.0.1:${server.port}`;
  const client = new Client(address, credentials.createInsecure());
  t.teardown(async () => {
    client.close();
    await server.stop();
  });
  return { client, address, config, lines };
}

interface Stream {
  write(bytes: Uint8Array): void;
  end(): void;
  /** Undefined if it ended well. */
  ended: Promise<HubError | undefined>;
  /** The same, as far as it is known by now. */
  outcome: () => HubError | 'well' | 'runs';
}

function streaming(client: Client, path: string, metadata: Metadata): Stream {
  const settled = Promise.withResolvers<HubError | undefined>();
  let outcome: HubError | 'well' | 'runs' = 'runs';
  const call = client.makeClientStreamRequest(path, asIs, asIs, metadata, {}, (error: ServiceError | null) => {
    const failure = error === null ? undefined : fromServiceError(error);
    outcome = failure ?? 'well';
    settled.resolve(failure);
  });
  call.on('error', () => {});
  return {
    write: (bytes) => void call.write(Buffer.from(bytes)),
    end: () => call.end(),
    ended: settled.promise,
    outcome: () => outcome,
  };
}

const uploadPath = FileServiceService.uploadChunk.path;
const signedPath = FileServiceService.uploadSignedChunk.path;
const data = rawBodyOf(method(uploadPath));
const first = UploadChunkRequest.encode(UploadChunkRequest.fromPartial({ fileId, chunkId: 0 })).finish();
const signed = UploadSignedChunkRequest.encode(
  UploadSignedChunkRequest.fromPartial({ fileId, chunkId: '0', expires: '1', signature: 'x' }),
).finish();
const answer = { fileId, chunkId: 0, status: 2, receivedBytes: 0n, nextUploadUrl: undefined } as const;

/** Calls a unary RPC without a word more than its metadata. */
function ask(client: Client, path: string, request: Uint8Array, metadata: Metadata): Promise<HubError | undefined> {
  const { promise, resolve } = Promise.withResolvers<HubError | undefined>();
  client.makeUnaryRequest(
    path,
    asIs,
    asIs,
    Buffer.from(request),
    metadata,
    { deadline: Date.now() + 20_000 },
    (error) => resolve(error === null ? undefined : fromServiceError(error)),
  );
  return promise;
}

const runs = (streams: readonly Stream[]) => streams.filter((stream) => stream.outcome() === 'runs').length;

/** Waits until no more of them than that run. */
async function onlyRun(streams: readonly Stream[], count: number): Promise<void> {
  await eventually(
    `${count} of them run`,
    () => runs(streams),
    (found) => found === count,
  );
}

const getFile = async () => GetFileResponse.fromPartial({ fileId });
const getFileRequest = Buffer.from(FileServiceService.getFile.requestSerialize({ fileId }));

test('uploads of one user leave places for those of others, and for every short call', async (t) => {
  const { client, lines } = await open(
    t,
    'file',
    filesWith({
      async uploadChunk(_request, _call, body) {
        for await (const _piece of body);
        return answer;
      },
      getFile,
    }),
  );
  const [greedy, honest] = [await userMetadata(1), await userMetadata(2)];
  const taken = Array.from({ length: 3 * places }, () => streaming(client, uploadPath, greedy));
  for (const stream of taken) stream.write(first);
  await onlyRun(taken, share);
  for (const stream of taken) {
    if (stream.outcome() === 'runs') continue;
    t.like(await stream.ended, { kind: 'RESOURCE_EXHAUSTED', reason: 'TOO_MANY_CALLS', retryAfter: 1 });
  }
  const upload = streaming(client, uploadPath, honest);
  upload.write(first);
  upload.end();
  t.is(await upload.ended, undefined);
  // Also for him.
  t.is(await ask(client, FileServiceService.getFile.path, getFileRequest, greedy), undefined);
  t.is(lines.filter(({ msg }) => String(msg).includes('no place')).length, 1);
  t.is(lines.filter(({ reason }) => reason === 'TOO_MANY_CALLS').length, 0);
  t.regex(
    await register.getSingleMetricAsString('chat4all_rpc_handled_total'),
    /reason="TOO_MANY_CALLS",rpc="[^"]*UploadChunk",code="RESOURCE_EXHAUSTED"\} 20/,
  );

  for (const stream of taken) stream.end();
  await onlyRun(taken, 0);
  const again = streaming(client, uploadPath, greedy);
  again.write(first);
  again.end();
  t.is(await again.ended, undefined);
});

test('as long as all places of one kind are taken, a call of that kind is told so, and the others go on', async (t) => {
  const { client } = await open(
    t,
    'file',
    filesWith({
      async uploadChunk(_request, _call, body) {
        for await (const _piece of body);
        return answer;
      },
      getFile,
    }),
  );
  const taken: Stream[] = [];
  for (let user = 1; user <= places; user += 1) {
    const stream = streaming(client, uploadPath, await userMetadata(user));
    stream.write(first);
    taken.push(stream);
  }
  const late = await userMetadata(places + 1);
  const refused = await eventually(
    'all places are taken',
    () => {
      const stream = streaming(client, uploadPath, late);
      stream.write(first);
      stream.end();
      return stream.ended;
    },
    (failure) => failure !== undefined,
  );
  t.like(refused, { kind: 'UNAVAILABLE', reason: 'OVERLOADED', retryAfter: 1 });
  t.is(await ask(client, FileServiceService.getFile.path, getFileRequest, late), undefined);
  t.is(runs(taken), places);
});

test.serial('streams that send no first message take no place of those that do, and are ended', async (t) => {
  const handled: string[] = [];
  const { client } = await open(
    t,
    'file',
    filesWith({
      async uploadSignedChunk(request, call, body) {
        for await (const _piece of body);
        handled.push(`${request.fileId} ${call.address}`);
        return {};
      },
      async uploadChunk(_request, _call, body) {
        for await (const _piece of body);
        return answer;
      },
    }),
    impatient,
  );
  // There are ten times as many places for such. One network, in however many addresses.
  const opening = 10 * share;
  const silent = Array.from({ length: 15 * places }, (_, index) =>
    streaming(client, signedPath, from(`2001:db8:1:2::${index + 1}`)),
  );
  await onlyRun(silent, opening);
  const signedUpload = streaming(client, signedPath, from('192.0.2.7'));
  signedUpload.write(signed);
  signedUpload.end();
  const upload = streaming(client, uploadPath, await userMetadata(1));
  upload.write(first);
  upload.end();
  t.deepEqual([await signedUpload.ended, await upload.ended], [undefined, undefined]);
  t.deepEqual(handled, [`${fileId} 192.0.2.7`]);

  await onlyRun(silent, 0);
  const reasons = await Promise.all(silent.map(async ({ ended }) => (await ended)?.reason));
  t.is(reasons.filter((reason) => reason === 'REQUEST_TIMEOUT').length, opening);
  t.is(reasons.filter((reason) => reason === 'TOO_MANY_CALLS').length, silent.length - opening);
});

test.serial(
  'an upload is ended that comes too slowly, and no other: not while nobody takes its bytes, nor because of large messages',
  async (t) => {
    const busy = Promise.withResolvers<void>();
    const { client, address } = await open(
      t,
      'file',
      filesWith({
        async uploadChunk({ chunkId }, _call, body) {
          // A store that makes everybody wait.
          for await (const _piece of body) if (chunkId === 1) await busy.promise;
          return answer;
        },
      }),
      impatient,
    );
    const metadata = await userMetadata(1);
    const upload = (chunkId: number) => {
      const stream = streaming(client, uploadPath, metadata);
      stream.write(UploadChunkRequest.encode(UploadChunkRequest.fromPartial({ fileId, chunkId })).finish());
      return stream;
    };
    const waiting = upload(1);
    waiting.write(bytesMessage(data, Buffer.alloc(100)));
    const [silent, slow] = [upload(2), upload(3)];
    const drops = setInterval(() => slow.write(bytesMessage(data, Buffer.alloc(1))), 50);
    t.teardown(() => clearInterval(drops));
    // A message that takes longer than the window, at four times the least rate.
    const large = bytesMessage(data, Buffer.alloc(24_000));
    const session = http2.connect(`http://${address}`);
    t.teardown(() => session.destroy());
    const headers = Object.fromEntries(Object.entries(metadata.getMap()).map(([key, value]) => [key, String(value)]));
    const request = session.request({
      ...headers,
      ':method': 'POST',
      ':path': uploadPath,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const framed = (message: Uint8Array) => {
      const head = Buffer.alloc(5);
      head.writeUInt32BE(message.length, 1);
      return Buffer.concat([head, message]);
    };
    request.write(framed(first));
    const ended = once(request.resume(), 'trailers');
    for (let rest = framed(large); rest.length > 0; rest = rest.subarray(200)) {
      request.write(rest.subarray(0, 200));
      await sleep(50);
    }
    request.end();
    t.like((await ended)[0], { 'grpc-status': '0' });

    t.like(await silent.ended, { kind: 'DEADLINE_EXCEEDED', reason: 'REQUEST_TIMEOUT' });
    t.like(await slow.ended, { kind: 'DEADLINE_EXCEEDED', reason: 'REQUEST_TIMEOUT' });
    t.is(waiting.outcome(), 'runs');
    busy.resolve();
    waiting.end();
    t.is(await waiting.ended, undefined);
  },
);

/** Serves the conversation service, which other services call, with calls that end when they are told to. */
async function openConversations(t: ExecutionContext) {
  const ends: (() => void)[] = [];
  const handlers = Object.fromEntries(Object.keys(ConversationServiceService).map((key) => [key, unused]));
  const filterMemberships = () =>
    new Promise<{ conversationIds: string[] }>((resolve) => ends.push(() => resolve({ conversationIds: [] })));
  const all = { ...handlers, filterMemberships } as unknown as Handlers<typeof ConversationServiceService>;
  const { address, config } = await open(t, 'conversation', service(ConversationServiceService, all));
  const options = { config, target: 'conversation', address, identities: identitiesOf('file') };
  const connection = connect(ConversationServiceService, options);
  t.teardown(() => connection.close());
  const call = (client: string | undefined) =>
    withContext({ requestId: 'x', client }, () =>
      connection.filterMemberships({ userId: fileId, conversationIds: [] }),
    );
  return { call, ends };
}

test('a call of a service counts for the client that it is for, and what it does by itself for nobody', async (t) => {
  const { call, ends } = await openConversations(t);
  const running = Array.from({ length: share }, () => call('somebody'));
  await eventually(
    'his share runs',
    () => ends.length,
    (count) => count === share,
  );
  t.like(await t.throwsAsync(call('somebody')), { kind: 'RESOURCE_EXHAUSTED', reason: 'TOO_MANY_CALLS' });
  running.push(...Array.from({ length: places - share }, () => call(undefined)));
  await eventually(
    'all places are taken',
    () => ends.length,
    (count) => count === places,
  );
  t.like(await t.throwsAsync(call(undefined)), { kind: 'UNAVAILABLE', reason: 'OVERLOADED' });
  for (const end of ends) end();
  t.is((await Promise.all(running)).length, places);
});

test('a user who says that the call is for somebody else is not believed', async (t) => {
  const ends: (() => void)[] = [];
  const { client } = await open(
    t,
    'file',
    filesWith({
      getFile: () => new Promise((resolve) => ends.push(() => resolve(undefined as never))),
    }),
  );
  const metadata = await userMetadata(1);
  const call = (other: string) => {
    const lying = metadata.clone();
    lying.set('x-on-behalf-of', other);
    return ask(client, FileServiceService.getFile.path, getFileRequest, lying);
  };
  const taken = Array.from({ length: share }, (_, index) => call(`other${index}`));
  await eventually(
    'his share runs',
    () => ends.length,
    (count) => count === share,
  );
  t.like(await call('another'), { reason: 'TOO_MANY_CALLS' });
  for (const end of ends) end();
  await Promise.all(taken);
});

/** `grpc.health.v1.HealthCheckRequest` with that name. */
const healthRequest = (name: string) => Buffer.concat([Buffer.from([0x0a, name.length]), Buffer.from(name)]);

for (const [what, path] of [
  ['watches of health', '/grpc.health.v1.Health/Watch'],
  ['reflections', '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo'],
] as const) {
  test(`${what}: those of one client leave places for others, and take none of anything else`, async (t) => {
    const { client } = await open(t, 'file', filesWith({ getFile }));
    const stand = (address: string) => {
      const call = client.makeServerStreamRequest(path, asIs, asIs, healthRequest(''), from(address), {});
      const failed = new Promise<HubError>((resolve) => {
        call.on('error', (error) => resolve(fromServiceError(error as ServiceError)));
      });
      return { call, failed, began: once(call, 'data') };
    };
    const isReflection = path.includes('reflection');
    const begin = (address: string) => {
      if (!isReflection) return stand(address);
      const call = client.makeBidiStreamRequest(path, asIs, asIs, from(address), {});
      const failed = new Promise<HubError>((resolve) => {
        call.on('error', (error) => resolve(fromServiceError(error as ServiceError)));
      });
      // list_services
      call.write(Buffer.from([0x3a, 0]));
      return { call: call as unknown as ClientReadableStream<Buffer>, failed, began: once(call, 'data') };
    };
    const greedy = Array.from({ length: 3 * places }, () => begin('192.0.2.1'));
    const outcomes = await Promise.all(
      greedy.map(({ failed, began }) => Promise.race([failed, began.then(() => 'began').catch(() => failed)])),
    );
    t.is(outcomes.filter((outcome) => outcome === 'began').length, share);
    for (const outcome of outcomes) {
      if (outcome !== 'began') t.like(outcome, { kind: 'RESOURCE_EXHAUSTED', reason: 'TOO_MANY_CALLS' });
    }
    const other = begin('192.0.2.2');
    await other.began;
    t.is(await ask(client, '/grpc.health.v1.Health/Check', healthRequest(''), from('192.0.2.1')), undefined);
    t.is(await ask(client, FileServiceService.getFile.path, getFileRequest, await userMetadata(1)), undefined);

    // Who goes gives the place back.
    for (const { call } of [...greedy, other]) call.cancel();
    await eventually(
      'there is a place again',
      () => {
        const next = begin('192.0.2.1');
        return Promise.race([
          next.failed.then(() => false),
          next.began.then(
            () => true,
            () => false,
          ),
        ]).finally(() => next.call.cancel());
      },
      (began) => began,
    );
  });
}

test('health: who watches a name that is none is told so, and stays', async (t) => {
  const { client } = await open(t, 'file', filesWith({}));
  const call = client.makeServerStreamRequest(
    '/grpc.health.v1.Health/Watch',
    asIs,
    asIs,
    healthRequest('nothing'),
    new Metadata(),
    {},
  );
  call.on('error', () => {});
  const [status] = (await once(call, 'data')) as [Buffer];
  // SERVICE_UNKNOWN
  t.deepEqual([...status], [8, 3]);
  call.cancel();
});
