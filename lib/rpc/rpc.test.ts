import { once } from 'node:events';
import http2 from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Client,
  credentials,
  loadPackageDefinition,
  Metadata,
  status,
  type ServiceClientConstructor,
  type ServiceError,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { clone, createFileRegistry, setExtension, type DescExtension } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import test, { type ExecutionContext } from 'ava';
import { register } from 'prom-client';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import {
  ServerReflectionClient,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from '#gen/grpc/reflection/v1/reflection.ts';
import { eventually } from '../../test/eventually.ts';
import { noAuthority } from '../../test/no-authority.ts';
import { loadConfig } from '../config.ts';
import { currentContext, withContext } from '../context.ts';
import { HubError } from '../errors.ts';
import { generateKeys, identitySettings, openIdentities } from '../identity.ts';
import { openLog } from '../log.ts';
import { connect } from './client.ts';
import { onceMoreIfRefused, openClient } from './grpc-client.ts';
import { callersOf, registry } from './schema.ts';
import { serve, service, serverSettings, type Checks, type Handlers, type ServeOptions } from './server.ts';
import { encodeViolations, fromServiceError } from './status.ts';

const { privateKeys, trusted } = await generateKeys(['auth', 'conversation', 'message']);
const identitiesOf = (name: string) =>
  openIdentities(loadConfig(identitySettings, { IDENTITY_KEY: privateKeys[name], TRUSTED_KEYS: trusted }));
const conversation = identitiesOf('conversation');

type Definition = AuthServiceService;
const uuid = 'ABCDEF00-0000-4000-8000-000000000000';

const unused = async () => {
  throw new Error('nobody asks for this');
};

/** Serves the auth service with the given lookup, and opens what tests call it with. */
async function open(
  t: ExecutionContext,
  lookupUsers: Handlers<Definition>['lookupUsers'],
  {
    checks,
    env,
    dependencies = {},
    optionalDependencies = {},
  }: { checks?: Checks<Definition>; env?: NodeJS.ProcessEnv } & Partial<
    Pick<ServeOptions, 'dependencies' | 'optionalDependencies'>
  > = {},
) {
  const lines: Record<string, unknown>[] = [];
  const log = openLog({
    name: 'auth',
    format: 'json',
    level: 'info',
    destination: { write: (line: string) => void lines.push(JSON.parse(line)) },
  });
  const config = loadConfig(serverSettings, { GRPC_PORT: '0', GRPC_DRAIN: '2s', ...env });
  const server = await serve({
    authority: noAuthority,
    config,
    identities: identitiesOf('auth'),
    log,
    services: [
      service(
        AuthServiceService,
        { issueToken: unused, getCurrentUser: unused, listUsers: unused, lookupUsers },
        checks,
      ),
    ],
    dependencies,
    optionalDependencies,
  });
  const address = `127.0.0.1:${server.port}`;
  const connection = connect(AuthServiceService, { config, target: 'auth', address, identities: conversation });
  const client = new Client(address, credentials.createInsecure());
  t.teardown(async () => {
    connection.close();
    client.close();
    await server.stop();
  });

  /** Any bytes, with any metadata. */
  async function raw(bytes: Buffer, metadata: Record<string, string | Buffer> = {}): Promise<Buffer> {
    const sent = new Metadata();
    sent.set('authorization', `Bearer ${await conversation.serviceToken('auth')}`);
    for (const [key, value] of Object.entries(metadata)) sent.set(key, value);
    const asIs = (value: Buffer) => value;
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        AuthServiceService.lookupUsers.path,
        asIs,
        asIs,
        bytes,
        sent,
        { deadline: Date.now() + 10_000 },
        (error: ServiceError | null, answer?: Buffer) => {
          if (error === null) resolve(answer as Buffer);
          else reject(fromServiceError(error));
        },
      );
    });
  }
  return { server, config, address, connection, client, raw, lines };
}

const nobody = { users: [] };

test('a call arrives with UUIDs in lower case, the caller, the request id, and a shorter deadline', async (t) => {
  const seen: unknown[] = [];
  const { connection, lines } = await open(t, async (request, call) => {
    seen.push(request.userIds, call.caller, call.requestId, currentContext()?.deadline);
    return nobody;
  });
  const deadline = Date.now() + 3_000;
  await withContext({ requestId: 'request:1', deadline }, () =>
    connection.lookupUsers({ userIds: [uuid], usernames: [] }),
  );
  t.deepEqual(seen.slice(0, 3), [[uuid.toLowerCase()], { kind: 'service', name: 'conversation' }, 'request:1']);
  const inner = seen[3] as number;
  // What is left travels as a length of time, so the way there is added to it; without a deadline it would be 5 s.
  t.true(inner > deadline - 1_000 && inner < deadline + 1_000, `${inner - deadline} ms after the caller's`);
  t.like(lines.at(-1), {
    rpc: 'chat4all.auth.v1.AuthService/LookupUsers',
    code: 'OK',
    request_id: 'request:1',
    by: 'conversation',
  });
});

test('a service is not served with an RPC whose callers are a guess', (t) => {
  const file = registry.getFile('chat4all/auth/v1/auth.proto');
  const option = registry.getExtension('chat4all.options.v1.callers') as DescExtension;
  /** LookupUsers (SERVICE) and ListUsers (USER), as if the proto named these callers. */
  const rpcs = (names: string[]) => {
    const proto = clone(FileDescriptorProtoSchema, file!.proto);
    for (const { options } of proto.service[0]!.method) setExtension(options!, option, names);
    const changed = createFileRegistry(proto, (name) => registry.getFile(name)?.proto);
    const found = changed.getService('chat4all.auth.v1.AuthService')!.method;
    return [found.lookupUsers!, found.listUsers!] as const;
  };
  const [lookup, list] = rpcs([]);
  t.throws(() => callersOf(lookup), { message: /LookupUsers is for services, but doesn't say which/ });
  t.deepEqual([...callersOf(list)], []);
  const [named, notForServices] = rpcs(['message', 'router']);
  t.deepEqual([...callersOf(named)], ['message', 'router']);
  t.throws(() => callersOf(notForServices), { message: /ListUsers names callers/ });
});

test('a service that the proto does not name is turned away, whatever it signs', async (t) => {
  const { address, config } = await open(t, async () => nobody);
  for (const name of ['message', 'auth']) {
    const connection = connect(AuthServiceService, { config, target: 'auth', address, identities: identitiesOf(name) });
    const error = await t.throwsAsync(connection.lookupUsers({ userIds: [], usernames: [] }));
    t.like(error, { kind: 'PERMISSION_DENIED', reason: 'ACCESS_DENIED' }, name);
    connection.close();
  }
});

test('a request id that is none is replaced', async (t) => {
  const ids: string[] = [];
  const { raw } = await open(t, async (_request, call) => {
    ids.push(call.requestId);
    return nobody;
  });
  await raw(Buffer.alloc(0), { 'x-request-id': 'x'.repeat(129) });
  t.regex(ids[0] as string, /^[0-9a-f-]{36}$/);
});

test('what a handler refuses arrives as it was meant, across two services', async (t) => {
  const refusal = new HubError('NOT_FOUND', 'USER_NOT_FOUND', 'User not found', {
    fields: [{ field: 'user_ids[0]', description: 'is nobody' }],
    retryAfter: 2.5,
  });
  const { connection } = await open(t, async () => {
    throw refusal;
  });
  const error = await t.throwsAsync(connection.lookupUsers({ userIds: [], usernames: [] }));
  const { kind, reason, message: text, fields, retryAfter } = refusal;
  t.like(error, { kind, reason, message: text, retryAfter });
  t.deepEqual((error as HubError).fields, fields);
});

test('the address of a client is what a trusted gateway says, whose own may be in a network; else that of the peer', async (t) => {
  const seen: unknown[] = [];
  const ask = async (proxies: string) => {
    const { raw } = await open(
      t,
      async (_request, { address }) => {
        seen.push(address);
        return nobody;
      },
      { env: { TRUSTED_PROXIES: proxies } },
    );
    await raw(Buffer.alloc(0), { 'x-forwarded-for': '6.6.6.6, 192.0.2.7' });
  };
  await ask('10.0.0.0/8,127.0.0.0/8');
  await ask('10.0.0.0/8');
  t.deepEqual(seen, ['192.0.2.7', '127.0.0.1']);
});

test('a bug is logged, and its text is not sent', async (t) => {
  const { connection, lines } = await open(t, async () => {
    throw new Error('select secret from secrets');
  });
  const error = await t.throwsAsync(connection.lookupUsers({ userIds: [], usernames: [] }));
  t.like(error, { kind: 'INTERNAL', reason: 'INTERNAL' });
  t.notRegex(error.message, /secret/);
  t.true(lines.some((line) => line.level === 50 && JSON.stringify(line).includes('select secret')));
});

test('wrong fields are named at once: by the proto, by checks, and by a gateway', async (t) => {
  let handled = 0;
  const checks: Checks<Definition> = {
    lookupUsers: async () => [
      { field: 'usernames[0]', description: 'is silly' },
      { field: 'user_ids[0]', description: 'is named already' },
    ],
  };
  const lookup = async () => {
    handled += 1;
    return nobody;
  };
  const { raw } = await open(t, lookup, { checks });
  const encoded = AuthServiceService.lookupUsers.requestSerialize({ userIds: ['x'], usernames: ['y'] });
  const told = encodeViolations([{ field: 'limit', description: 'must be a number', rule: 'type' }]);
  const error = await t.throwsAsync(raw(encoded, { 'x-field-violations-bin': Buffer.from(told) }));
  t.deepEqual((error as HubError).fields, [
    { field: 'limit', description: 'must be a number', rule: 'type' },
    { field: 'user_ids[0]', description: 'must be a valid UUID', rule: 'uuid' },
    { field: 'usernames[0]', description: 'is silly' },
  ]);
  t.is(handled, 0);
});

test('of very many wrong fields as many are named as fit into 8 KiB of trailers, or into those of who takes more', async (t) => {
  const wrong = Array.from({ length: 5_000 }, (_, index) => ({
    field: `usernames[${index}]`,
    description: 'is nobody',
  }));
  const { raw } = await open(t, async () => nobody, { checks: { lookupUsers: async () => wrong } });
  const encoded = AuthServiceService.lookupUsers.requestSerialize({ userIds: [], usernames: ['y'] });
  const named = async (metadata: Record<string, string>) => {
    const error = (await t.throwsAsync(raw(encoded, metadata))) as HubError;
    t.is(error.kind, 'INVALID_ARGUMENT');
    t.deepEqual(error.fields, wrong.slice(0, error.fields.length));
    const left = wrong.length - error.fields.length;
    t.true(error.message.endsWith(`usernames[19] and 4980 more (${left} more wrong fields are not listed)`));
    t.true(sizeOfTrailers(error) <= (metadata['x-wide-trailers'] === undefined ? 8_192 : 65_535));
    return error.fields.length;
  };
  const [narrow, wide] = [await named({}), await named({ 'x-wide-trailers': '1' })];
  t.true(narrow > 80, String(narrow));
  t.true(wide > 800, String(wide));
});

/** As HPACK counts them (RFC 7541, 4.1). */
function sizeOfTrailers({ cause }: HubError): number {
  const { metadata, code, details } = cause as ServiceError;
  const fields = { ...metadata.toHttp2Headers(), 'grpc-status': String(code), 'grpc-message': encodeURI(details) };
  return Object.entries(fields).reduce((sum, [name, value]) => sum + name.length + String(value).length + 32, 0);
}

test('an error that names long fields ends its own call alone', async (t) => {
  const names = Array.from({ length: 20 }, (_, index) => `usernames["${'\u{1f680}'.repeat(10_000)}${index}"]`);
  const wrong = names.map((field) => ({ field, description: 'is nobody' }));
  let answer: (() => void) | undefined;
  const handler = async () => {
    await new Promise<void>((resolve) => (answer = resolve));
    return nobody;
  };
  let isFirst = true;
  const lookupUsers = async () => {
    const found = isFirst ? [] : wrong;
    isFirst = false;
    return found;
  };
  const { raw } = await open(t, handler, { checks: { lookupUsers } });
  const encoded = AuthServiceService.lookupUsers.requestSerialize({ userIds: [], usernames: ['y'] });
  const other = raw(encoded);
  await eventually('the other call is there', () => answer, Boolean);
  const error = (await t.throwsAsync(raw(encoded))) as HubError;
  t.is(error.kind, 'INVALID_ARGUMENT');
  t.regex(error.message, /^Some fields are not valid: usernames.*… \(20 more wrong fields are not listed\)$/s);
  t.true(sizeOfTrailers(error) <= 8_192);
  answer?.();
  t.is((await other).length, 0);
});

test('a request that a gateway could not read is never handled, even if it says nothing of why', async (t) => {
  let handled = 0;
  const { raw } = await open(t, async () => {
    handled += 1;
    return nobody;
  });
  for (const told of [Buffer.alloc(0), Buffer.from('no message'), Buffer.from(encodeViolations([]))]) {
    const error = await t.throwsAsync(raw(Buffer.alloc(0), { 'x-field-violations-bin': told }));
    t.like(error, { kind: 'INVALID_ARGUMENT', reason: 'MALFORMED_REQUEST' });
  }
  t.is(handled, 0);
});

test('bytes that are no request are INVALID_ARGUMENT, and no bug', async (t) => {
  const { raw, client, lines } = await open(t, async () => nobody);
  const broken = ['0aff', '0a0361fffe', '120161ff', '0c', '0001', '61fffe', '0e', '0b'];
  for (const hex of broken) {
    const error = await t.throwsAsync(raw(Buffer.from(hex, 'hex')), undefined, hex);
    t.like(error, { kind: 'INVALID_ARGUMENT', reason: 'MALFORMED_REQUEST' }, hex);
  }
  const others = [
    '/grpc.health.v1.Health/Check',
    '/grpc.health.v1.Health/Watch',
    '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    '/grpc.channelz.v1.Channelz/GetServers',
  ];
  for (const path of others) {
    const call = client.makeBidiStreamRequest(
      path,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
    );
    call.on('data', () => {});
    call.end(Buffer.from('0aff', 'hex'));
    const [error] = (await once(call, 'error')) as [ServiceError];
    t.is(error.code, status.INVALID_ARGUMENT, `${path} ${error.details}`);
  }
  t.deepEqual(
    lines.filter(({ level }) => (level as number) >= 50),
    [],
  );
});

test('a known field with the wire type of another is an unknown field, and what was validated is what is used', async (t) => {
  const seen: unknown[] = [];
  const { raw } = await open(t, async ({ userIds, usernames }) => {
    seen.push(userIds, usernames);
    return nobody;
  });
  // user_ids as a number, then usernames: alice
  await raw(Buffer.from('08ff011205616c696365', 'hex'));
  t.deepEqual(seen, [[], ['alice']]);
});

test('a deadline that is longer than a timer may be is the longest that works', async (t) => {
  const { address } = await open(t, async () => {
    await sleep(100);
    return nobody;
  });
  const days = 86_400;
  for (const timeout of [`${25 * days}S`, `${30 * days}S`, `${50 * days}S`, '99999999M', '99999999H', '99999999S']) {
    t.is(await statusWith(address, timeout), '0', timeout);
  }
  t.is(await statusWith(address, '20m'), String(status.DEADLINE_EXCEEDED));
});

/** The status of a call with this `grpc-timeout`. */
async function statusWith(address: string, timeout: string): Promise<unknown> {
  const session = http2.connect(`http://${address}`);
  const stream = session.request({
    ':method': 'POST',
    ':path': AuthServiceService.lookupUsers.path,
    'content-type': 'application/grpc',
    te: 'trailers',
    'grpc-timeout': timeout,
    authorization: `Bearer ${await conversation.serviceToken('auth')}`,
  });
  try {
    let found: unknown;
    stream.on('response', (headers) => (found ??= headers['grpc-status']));
    stream.on('trailers', (headers) => (found ??= headers['grpc-status']));
    stream.resume().end(Buffer.alloc(5));
    await once(stream, 'close');
    return found;
  } finally {
    session.destroy();
  }
}

test('every answer carries its request id: those of errors, too', async (t) => {
  let failure: Error | undefined;
  const { client } = await open(t, async () => {
    if (failure !== undefined) throw failure;
    return nobody;
  });
  const call = async (given: Record<string, string>) => {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${await conversation.serviceToken('auth')}`);
    for (const [key, value] of Object.entries(given)) metadata.set(key, value);
    const { path, requestSerialize, responseDeserialize } = AuthServiceService.lookupUsers;
    const request = { userIds: [], usernames: [] };
    const running = client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, metadata, () => {});
    const [initial] = (await once(running, 'metadata')) as [Metadata];
    return initial.get('x-request-id');
  };
  t.deepEqual(await call({ 'x-request-id': 'mine-1' }), ['mine-1']);
  t.regex(String(await call({})), /^[\da-f-]{36}$/);
  failure = new HubError('NOT_FOUND', 'USER_NOT_FOUND', 'no');
  t.deepEqual(await call({ 'x-request-id': 'mine-2' }), ['mine-2']);
  failure = new Error('a bug');
  t.deepEqual(await call({ 'x-request-id': 'mine-3' }), ['mine-3']);
  t.deepEqual(await call({ 'x-request-id': 'mine-4', authorization: 'Bearer x' }), ['mine-4']);
});

test('an inner server that does not answer is UNAVAILABLE, unless the caller has set a shorter deadline; its address is told to nobody', async (t) => {
  const { connection } = await open(t, () => new Promise(() => {}));
  const call = (context: Parameters<typeof withContext>[0]) =>
    withContext(context, () => t.throwsAsync(connection.lookupUsers({ userIds: [], usernames: [] })));
  const ours = { requestId: 'a', deadline: Date.now() + 300, isDeadlineOurs: true };
  const theirs = { requestId: 'b', deadline: Date.now() + 300 };
  const errors = (await Promise.all([call(ours), call(theirs)])) as HubError[];
  t.like(errors[0], { kind: 'UNAVAILABLE', reason: 'SERVICE_UNAVAILABLE', retryAfter: 1 });
  t.like(errors[1], { kind: 'DEADLINE_EXCEEDED', reason: 'DEADLINE_EXCEEDED' });
  for (const { message } of errors) t.notRegex(message, /remote_addr|127\.0\.0\.1/);
});

test('a call without a deadline gets one', async (t) => {
  const { client } = await open(t, () => new Promise(() => {}), { env: { GRPC_DEADLINE: '200ms' } });
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${await conversation.serviceToken('auth')}`);
  const { path, requestSerialize, responseDeserialize } = AuthServiceService.lookupUsers;
  const error = await new Promise<ServiceError | null>((resolve) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      { userIds: [], usernames: [] },
      metadata,
      resolve,
    );
  });
  t.like(fromServiceError(error as ServiceError), { kind: 'DEADLINE_EXCEEDED' });
});

test('a handler learns that its caller has gone', async (t) => {
  let signal: AbortSignal | undefined;
  const { client } = await open(t, (_request, call) => {
    signal = call.signal;
    return new Promise(() => {});
  });
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${await conversation.serviceToken('auth')}`);
  const { path, requestSerialize, responseDeserialize } = AuthServiceService.lookupUsers;
  const call = client.makeUnaryRequest(
    path,
    requestSerialize,
    responseDeserialize,
    { userIds: [], usernames: [] },
    metadata,
    () => {},
  );
  await eventually(
    'the call',
    () => signal,
    (found) => found !== undefined,
  );
  call.cancel();
  if (!signal?.aborted) await once(signal as AbortSignal, 'abort');
  t.true(signal?.aborted);
});

test('who is answered has not gone: the signal of a call stays as it was', async (t) => {
  const signals: AbortSignal[] = [];
  const { connection } = await open(t, async (_request, call) => {
    signals.push(call.signal);
    return nobody;
  });
  await connection.lookupUsers({ userIds: [], usernames: [] });
  await connection.lookupUsers({ userIds: [], usernames: [] });
  // grpc-js says that a call is cancelled when its stream has closed, which is before the next answer.
  await sleep(50);
  t.deepEqual(
    signals.map(({ aborted }) => aborted),
    [false, false],
  );
});

test('GRPC_CONNECTION_AGE: connections are made anew, and no call is lost, however long it takes', async (t) => {
  let handled = 0;
  const { address, connection, client } = await open(
    t,
    async ({ usernames: [name] }) => {
      handled += 1;
      if (name === 'slow') await sleep(1_500);
      return nobody;
    },
    { env: { GRPC_CONNECTION_AGE: '200ms' } },
  );
  const { path, requestSerialize, responseDeserialize } = AuthServiceService.lookupUsers;
  const token = await conversation.serviceToken('auth');
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);

  // What a connection is told, and that what is under way on it ends well.
  const session = http2.connect(`http://${address}`);
  const isClosed = once(session, 'close');
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
    authorization: `Bearer ${token}`,
  });
  const body = requestSerialize({ userIds: [], usernames: ['slow'] });
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  stream.end(Buffer.concat([head, body]));
  stream.resume();
  const order: unknown[] = [];
  session.once('goaway', (code) => order.push(['goaway', code]));
  stream.once('trailers', (trailers) => order.push(['trailers', trailers['grpc-status']]));

  // Any client, ours and a stock one, with calls that follow each other closely.
  let calls = 0;
  const until = performance.now() + 3_000;
  const goOn = async (ask: () => Promise<unknown>) => {
    for (; performance.now() < until || calls < 100; calls += 1) await ask();
  };
  const by = (asking: Client) => () =>
    new Promise((resolve, reject) => {
      const request = { userIds: [], usernames: [] };
      asking.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        metadata,
        { deadline: Date.now() + 5_000 },
        (error: ServiceError | null, answer?: unknown) => (error === null ? resolve(answer) : reject(error)),
      );
    });
  const ofStreams = openClient(address, credentials.createInsecure(), onceMoreIfRefused);
  t.teardown(() => ofStreams.close());
  const ours = () => connection.lookupUsers({ userIds: [], usernames: [] });
  await Promise.all([by(client), by(client), by(ofStreams), by(ofStreams), ours, ours].map(goOn));

  await isClosed;
  t.deepEqual(order, [['goaway', http2.constants.NGHTTP2_NO_ERROR], ['trailers', '0']]); // prettier-ignore
  t.is(handled, calls + 1, 'none was handled twice');
});

test('a service that is not there is UNAVAILABLE in our own words, and found again when it is back', async (t) => {
  const first = await open(t, async () => nobody);
  await first.server.stop();
  const error = await t.throwsAsync(first.connection.lookupUsers({ userIds: [], usernames: [] }));
  t.like(error, { kind: 'UNAVAILABLE', reason: 'SERVICE_UNAVAILABLE', retryAfter: 1 });
  t.notRegex(error.message, /127\.0\.0\.1/);
  await open(t, async () => nobody, { env: { GRPC_PORT: String(first.server.port) } });
  const again = () => first.connection.lookupUsers({ userIds: [], usernames: [] }).catch(() => undefined);
  t.deepEqual(await eventually('an answer', again, (found) => found !== undefined), nobody);
});

test('stop: a call that goes on for longer than a connection is left without a ping ends well', async (t) => {
  const began = Promise.withResolvers<void>();
  const { server, connection } = await open(
    t,
    async () => {
      began.resolve();
      await sleep(2_500);
      return nobody;
    },
    { env: { GRPC_DRAIN: '10s' } },
  );
  const running = connection.lookupUsers({ userIds: [], usernames: [] });
  await began.promise;
  const stopped = server.stop();
  t.deepEqual(await running, nobody);
  await stopped;
});

test('overload: more than GRPC_CONCURRENCY calls at once are refused at once, and then all is well', async (t) => {
  const ends: (() => void)[] = [];
  const { connection } = await open(t, () => new Promise((resolve) => ends.push(() => resolve(nobody))), {
    env: { GRPC_CONCURRENCY: '2' },
  });
  const lookUp = () => connection.lookupUsers({ userIds: [], usernames: [] });
  const taken = [lookUp(), lookUp()];
  await eventually(
    'two calls',
    () => ends.length,
    (count) => count === 2,
  );
  const refusals = async () => {
    const counted = await register.getSingleMetricAsString('chat4all_rpc_handled_total');
    return Number(/reason="OVERLOADED",rpc="[^"]*LookupUsers",code="UNAVAILABLE"\} (\d+)/.exec(counted)?.[1] ?? 0);
  };
  const before = await refusals();
  t.like(await t.throwsAsync(lookUp()), { kind: 'UNAVAILABLE', reason: 'OVERLOADED', retryAfter: 1 });
  t.is(await refusals(), before + 1);
  for (const end of ends) end();
  t.deepEqual(await Promise.all(taken), [nobody, nobody]);
  const again = lookUp();
  await eventually(
    'one more',
    () => ends.length,
    (count) => count === 3,
  );
  ends[2]!();
  t.deepEqual(await again, nobody);
});

test('what the other side refuses is not asked again, but a call that was lost is, where its proto allows it', async (t) => {
  let calls = 0;
  const first = await open(t, async () => {
    calls += 1;
    throw new HubError('UNAVAILABLE', 'AWAY', 'away');
  });
  t.like(await t.throwsAsync(first.connection.lookupUsers({ userIds: [], usernames: [] })), { reason: 'AWAY' });
  t.is(calls, 1);

  const began = Promise.withResolvers<void>();
  const second = await open(
    t,
    () => {
      began.resolve();
      return new Promise(() => {});
    },
    { env: { GRPC_DRAIN: '1ms' } },
  );
  const lost = second.connection.lookupUsers({ userIds: [], usernames: [] });
  await began.promise;
  await second.server.stop();
  await open(t, async () => nobody, { env: { GRPC_PORT: String(second.server.port) } });
  t.deepEqual(await lost, nobody);
});

test('retire: health says that nothing is served any more, and everything still is', async (t) => {
  const { client, connection, server } = await open(t, async () => nobody);
  t.is(await checkHealth(client, ''), 'SERVING');
  server.retire();
  t.is(await checkHealth(client, ''), 'NOT_SERVING');
  t.deepEqual(await connection.lookupUsers({ userIds: [], usernames: [] }), nobody);
});

test('stop: who watches its health or has a reflection stream open is told so, and is not waited for', async (t) => {
  const { client, server } = await open(t, async () => nobody, { env: { GRPC_DRAIN: '1m' } });
  const asIs = (bytes: Buffer) => bytes;
  const watch = client.makeServerStreamRequest('/grpc.health.v1.Health/Watch', asIs, asIs, Buffer.alloc(0));
  const unknown = Buffer.from([0x0a, 1, 0x78]);
  const ofUnknown = client.makeServerStreamRequest('/grpc.health.v1.Health/Watch', asIs, asIs, unknown);
  const reflection = client.makeBidiStreamRequest(
    '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    asIs,
    asIs,
  );
  // list_services
  reflection.write(Buffer.from([0x3a, 0]));
  const streams = [watch, ofUnknown, reflection];
  const ends = streams.map((stream) => once(stream, 'error') as Promise<[ServiceError]>);
  const said: Buffer[] = [];
  watch.on('data', (message: Buffer) => said.push(message));
  await Promise.all(streams.map((stream) => once(stream, 'data')));
  const began = Date.now();
  await server.stop();
  t.true(Date.now() - began < 30_000);
  for (const [error] of await Promise.all(ends)) t.is(error.code, status.UNAVAILABLE);
  t.deepEqual(said.at(-1), Buffer.from([8, 2]), 'NOT_SERVING');
});

test('stop: running calls end well, new ones are refused', async (t) => {
  const began = Promise.withResolvers<void>();
  const { server, connection } = await open(t, async () => {
    began.resolve();
    await sleep(200);
    return nobody;
  });
  const running = connection.lookupUsers({ userIds: [], usernames: [] });
  await began.promise;
  const stopped = server.stop();
  t.deepEqual(await running, nobody);
  await stopped;
  t.like(await t.throwsAsync(connection.lookupUsers({ userIds: [], usernames: [] })), { kind: 'UNAVAILABLE' });
});

/** What the health service says of a name, or the code that it refuses with. */
function checkHealth(client: Client, name: string): Promise<string | number> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      (text: string) => Buffer.concat([Buffer.from([0x0a, text.length]), Buffer.from(text)]),
      (bytes: Buffer) => ['UNKNOWN', 'SERVING', 'NOT_SERVING'][bytes[1] as number] as string,
      name,
      (error: ServiceError | null, status?: string) => resolve(error?.code ?? (status as string)),
    );
  });
}

test('health: for the server, each service, and what it depends on', async (t) => {
  let isUp = false;
  const { client } = await open(t, async () => nobody, {
    dependencies: {
      async database() {
        if (!isUp) throw new HubError('UNAVAILABLE', 'AWAY', 'away');
      },
    },
    optionalDependencies: { maps: () => isUp },
  });
  const check = (name: string) => checkHealth(client, name);
  t.is(await check(''), 'SERVING');
  t.is(await check('chat4all.auth.v1.AuthService'), 'SERVING');
  t.is(await check('database'), 'NOT_SERVING');
  t.is(await check('optional.maps'), 'NOT_SERVING');
  t.is(await check('maps'), 5);
  t.is(await check('nothing'), 5);
  isUp = true;
  await eventually(
    'the health of the database',
    () => check('database'),
    (found) => found === 'SERVING',
  );
  t.is(await check('optional.maps'), 'SERVING');
});

test('reflection: lists what is served, and describes it with all that it needs', async (t) => {
  const { address } = await open(t, async () => nobody);
  const reflection = new ServerReflectionClient(address, credentials.createInsecure());
  t.teardown(() => reflection.close());
  const ask = (messageRequest: ServerReflectionRequest['messageRequest']) =>
    new Promise<ServerReflectionResponse['messageResponse']>((resolve, reject) => {
      const stream = reflection.serverReflectionInfo();
      stream.on('data', (answer: ServerReflectionResponse) => resolve(answer.messageResponse));
      stream.on('error', reject);
      stream.end({ host: '', messageRequest });
    });

  const listed = await ask({ $case: 'listServices', value: '' });
  t.deepEqual(listed?.$case === 'listServicesResponse' && listed.value.service.map(({ name }) => name), [
    'chat4all.auth.v1.AuthService',
    'grpc.channelz.v1.Channelz',
    'grpc.health.v1.Health',
    'grpc.reflection.v1.ServerReflection',
    'grpc.reflection.v1alpha.ServerReflection',
  ]);

  const described = async (symbol: string) => {
    const answer = await ask({ $case: 'fileContainingSymbol', value: symbol });
    return answer?.$case === 'fileDescriptorResponse'
      ? Buffer.concat(answer.value.fileDescriptorProto).toString('latin1')
      : answer?.$case;
  };
  for (const symbol of [
    'chat4all.auth.v1.AuthService',
    'chat4all.auth.v1.AuthService.IssueToken',
    'chat4all.auth.v1.User',
    'chat4all.auth.v1.User.created_at',
  ]) {
    const files = await described(symbol);
    t.regex(files as string, /chat4all\/auth\/v1\/auth\.proto/, symbol);
    t.regex(files as string, /google\/protobuf\/timestamp\.proto/, symbol);
    // Options are extensions: without their protos no tool can show them.
    t.regex(files as string, /google\/api\/http\.proto/, symbol);
    t.regex(files as string, /chat4all\/options\/v1\/options\.proto/, symbol);
  }
  for (const own of ['grpc.channelz.v1.Channelz', 'grpc.health.v1.Health', 'grpc.reflection.v1.ServerReflection']) {
    t.not(await described(own), 'errorResponse', own);
  }
  t.is(await described('chat4all.nothing.v1.Nothing'), 'errorResponse');
  const byName = await ask({ $case: 'fileByFilename', value: 'google/protobuf/timestamp.proto' });
  t.is(byName?.$case, 'fileDescriptorResponse');
});

test('channelz: tells of the connections on a port that is reached from here only, and elsewhere if it is told to', async (t) => {
  const file = 'grpc/channelz/v1/channelz.proto';
  const definition = loadPackageDefinition(loadSync(file, { includeDirs: ['third_party'] })) as unknown as {
    grpc: { channelz: { v1: { Channelz: ServiceClientConstructor } } };
  };
  const servers = async (env: NodeJS.ProcessEnv) => {
    const { address, connection } = await open(t, async () => nobody, { env });
    await connection.lookupUsers({ userIds: [], usernames: [] });
    const client = new definition.grpc.channelz.v1.Channelz(address, credentials.createInsecure());
    t.teardown(() => client.close());
    return new Promise<unknown>((resolve) => {
      const settle = (error: ServiceError | null, answer?: { server: unknown[] }) =>
        resolve(error === null ? answer!.server.length > 0 : error.code);
      client.GetServers!({}, { deadline: Date.now() + 10_000 }, settle);
    });
  };
  t.is(await servers({}), true);
  t.is(await servers({ GRPC_CHANNELZ: 'false' }), status.UNIMPLEMENTED);
  t.is(await servers({ GRPC_HOST: '0.0.0.0' }), status.UNIMPLEMENTED);
  t.is(await servers({ GRPC_HOST: '0.0.0.0', GRPC_CHANNELZ: 'true' }), true);
});

test('connect: a call ends when nobody wants its answer any more, at both ends', async (t) => {
  const began = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<string>();
  const { connection } = await open(t, async (_request, { signal }) => {
    signal.addEventListener('abort', () => ended.resolve((signal.reason as HubError).kind));
    began.resolve();
    await ended.promise;
    return nobody;
  });
  const abort = new AbortController();
  const call = connection.lookupUsers({ userIds: [], usernames: [] }, { signal: abort.signal });
  await began.promise;
  abort.abort();
  t.like(await t.throwsAsync(call, { instanceOf: HubError }), { kind: 'CANCELLED' });
  t.is(await ended.promise, 'CANCELLED');
  const late = connection.lookupUsers({ userIds: [], usernames: [] }, { signal: abort.signal });
  t.like(await t.throwsAsync(late, { instanceOf: HubError }), { kind: 'CANCELLED' });
});
