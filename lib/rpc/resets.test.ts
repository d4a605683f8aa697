import { once } from 'node:events';
import { constants } from 'node:http2';
import { connect } from 'node:net';
import { Client, credentials, Metadata, Server, ServerCredentials, status } from '@grpc/grpc-js';
import ava, { type ExecutionContext } from 'ava';
import { FileServiceService, UploadChunkRequest } from '#gen/chat4all/file/v1/file.ts';
import { eventually } from '../../test/eventually.ts';
import { noAuthority } from '../../test/no-authority.ts';
import { loadConfig } from '../config.ts';
import type { HubError } from '../errors.ts';
import { generateKeys, identitySettings, openIdentities, type Identities } from '../identity.ts';
import { openLog } from '../log.ts';
import { openClient } from './grpc-client.ts';
import { bytesMessage } from './raw-body.ts';
import { connectionOptions } from './reach.ts';
import { emptyResets } from './resets.ts';
import { method, rawBodyOf } from './schema.ts';
import { serve, serverSettings, service, type Handlers } from './server.ts';

/** One after another: each keeps the process busy. */
const test = ava.serial;

const fileId = 'abcdef00-0000-4000-8000-000000000000';
const rounds = 5;
let identities: Record<'auth' | 'file', Identities>;
let token: string;

test.before(async () => {
  const { privateKeys, trusted } = await generateKeys(['auth', 'file']);
  const of = (name: string) =>
    openIdentities(loadConfig(identitySettings, { IDENTITY_KEY: privateKeys[name], TRUSTED_KEYS: trusted }));
  identities = { auth: of('auth'), file: of('file') };
  const expiresAt = new Date(Date.now() + 600_000);
  token = await identities.auth.userToken({
    userId: fileId,
    numId: 7n,
    username: 'u',
    admin: false,
    sessionId: fileId,
    expiresAt,
  });
});

/** Serves files, whose GetFile answers nobody: it counts who asks and who goes again. */
async function open(t: ExecutionContext) {
  const seen = { asked: 0, cancelled: 0 };
  const unused = async (): Promise<never> => {
    throw new Error('nobody asks for this');
  };
  const handlers: Handlers<typeof FileServiceService> = {
    ...(Object.fromEntries(Object.keys(FileServiceService).map((key) => [key, unused])) as unknown as Handlers<
      typeof FileServiceService
    >),
    async getFile(_request, { signal }) {
      seen.asked += 1;
      await once(signal, 'abort');
      seen.cancelled += 1;
      throw signal.reason as HubError;
    },
    async uploadChunk(_request, _call, body) {
      let received = 0;
      for await (const bytes of body) received += bytes.length;
      return { fileId, chunkId: 0, status: 2, receivedBytes: BigInt(received), nextUploadUrl: undefined };
    },
  };
  const lines: { msg: string; peer?: string }[] = [];
  const server = await serve({
    authority: noAuthority,
    config: loadConfig(serverSettings, { GRPC_PORT: '0', GRPC_DRAIN: '1s', GRPC_CONCURRENCY: '100000' }),
    identities: identities.file,
    log: openLog({
      name: 'file',
      format: 'json',
      level: 'warn',
      destination: { write: (line: string) => void lines.push(JSON.parse(line) as { msg: string }) },
    }),
    services: [service(FileServiceService, handlers)],
    dependencies: {},
  });
  t.teardown(() => server.stop());
  const connect = () => {
    const client = new Client(`127.0.0.1:${server.port}`, credentials.createInsecure(), {
      // A connection of its own.
      'grpc.use_local_subchannel_pool': 1,
    });
    t.teardown(() => client.close());
    return client;
  };
  return { seen, lines, connect, port: server.port };
}

const asIs = (bytes: Buffer) => bytes;

function call(client: Client, path: string, message: Buffer): { cancel(): void } {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return client.makeUnaryRequest(path, asIs, asIs, message, metadata, { deadline: Date.now() + 60_000 }, () => {});
}

/** What must not be ended by what others on its connection do: a Watch of the health, and an upload that takes its time. */
function bystanders(t: ExecutionContext, client: Client) {
  let lost: Error | undefined;
  const watch = client.makeServerStreamRequest('/grpc.health.v1.Health/Watch', asIs, asIs, Buffer.alloc(0));
  watch.on('error', (error) => (lost = error));
  watch.resume();

  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  const answered = Promise.withResolvers<void>();
  const upload = client.makeClientStreamRequest(
    FileServiceService.uploadChunk.path,
    asIs,
    asIs,
    metadata,
    { deadline: Date.now() + 60_000 },
    (error) => (error === null ? answered.resolve() : answered.reject(error)),
  );
  answered.promise.catch(() => {});
  const request = { fileId, chunkId: 0, contentDigest: '', contentLength: undefined, data: Buffer.alloc(0) };
  upload.write(Buffer.from(UploadChunkRequest.encode(request).finish()));
  const field = rawBodyOf(method(FileServiceService.uploadChunk.path));
  // As slow as it may be, and never silent.
  const sending = setInterval(() => upload.write(bytesMessage(field, Buffer.alloc(16_384))), 200);
  t.teardown(() => clearInterval(sending));
  return {
    async end() {
      clearInterval(sending);
      upload.end();
      await t.notThrowsAsync(answered.promise);
      t.is(lost, undefined);
      watch.cancel();
    },
  };
}

const getFile = FileServiceService.getFile.path;
const request = Buffer.from(FileServiceService.getFile.requestSerialize({ fileId }));

test('calls that are cancelled end nothing else on their connection: thousands at once, and many for seconds', async (t) => {
  t.timeout(120_000);
  const { seen, lines, connect } = await open(t);
  const client = connect();
  const others = bystanders(t, client);

  const atOnce = Array.from({ length: 5_000 }, () => call(client, getFile, request));
  await eventually(
    'all have begun',
    () => seen.asked,
    (asked) => asked === atOnce.length,
    60_000,
  );
  for (const each of atOnce) each.cancel();
  await eventually(
    'all are cancelled',
    () => seen.cancelled,
    (cancelled) => cancelled === atOnce.length,
    60_000,
  );

  // Node's own limit would have let 1,000 pass, and 33 in each second after them.
  for (let round = 1; round <= rounds; round += 1) {
    const some = Array.from({ length: 200 }, () => call(client, getFile, request));
    const expected = atOnce.length + round * some.length;
    await eventually(
      'these have begun',
      () => seen.asked,
      (asked) => asked === expected,
      30_000,
    );
    for (const each of some) each.cancel();
    await eventually(
      'these are cancelled',
      () => seen.cancelled,
      (cancelled) => cancelled === expected,
      30_000,
    );
  }
  await others.end();
  t.deepEqual(lines, []);
});

/** A frame of HTTP/2 (RFC 9113, 4.1). */
function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const types = { headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7 };
/** Fields as HPACK has them, as they are (RFC 7541, 6.2.2). */
const head = Buffer.concat(
  Object.entries({
    ':method': 'POST',
    ':scheme': 'http',
    ':path': getFile,
    ':authority': 'hub',
    'content-type': 'application/grpc',
    te: 'trailers',
  }).flatMap(([name, value]) => [
    Buffer.from([0, name.length]),
    Buffer.from(name),
    Buffer.from([value.length]),
    Buffer.from(value),
  ]),
);

/** Sends heads of calls and resets each at once, until the connection ends. @returns the error code of its GOAWAY */
async function flood(t: ExecutionContext, port: number, code: number): Promise<number | undefined> {
  const socket = connect(port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  socket.on('error', () => {});
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  const drained = () => new Promise<void>((resolve) => socket.once('drain', resolve));
  const received: Buffer[] = [];
  socket.on('data', (bytes: Buffer) => void received.push(bytes));
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(frame(types.settings, 0, 0, Buffer.alloc(0)));
  const reason = Buffer.alloc(4);
  reason.writeUInt32BE(code);
  const most = 10 * emptyResets.burst;
  for (let sent = 0; sent < most && !socket.closed;) {
    const calls = Array.from({ length: 100 }, () => {
      const id = sent * 2 + 1;
      sent += 1;
      return Buffer.concat([frame(types.headers, 4, id, head), frame(types.reset, 0, id, reason)]);
    });
    if (!socket.write(Buffer.concat(calls))) await Promise.race([drained(), closed]);
  }
  await closed;
  const bytes = Buffer.concat(received);
  for (let at = 0; at + 9 <= bytes.length; at += 9 + bytes.readUIntBE(at, 3)) {
    if (bytes[at + 3] === types.goAway) return bytes.readUInt32BE(at + 9 + 4);
  }
  return undefined;
}

for (const [name, code] of [
  ['CANCEL', constants.NGHTTP2_CANCEL],
  ['NO_ERROR', constants.NGHTTP2_NO_ERROR],
] as const) {
  test(`a flood of calls that are reset before they ask anything ends its connection, and no other: ${name}`, async (t) => {
    t.timeout(120_000);
    const { seen, lines, connect: connectClient, port } = await open(t);
    const client = connectClient();
    const others = bystanders(t, client);

    t.is(await flood(t, port, code), constants.NGHTTP2_ENHANCE_YOUR_CALM);
    t.is(seen.asked, 0);
    const told = lines.map(({ msg, peer }) => [msg.split(' before')[0], peer]);
    t.deepEqual(told, [['A client reset too many calls', '127.0.0.1']]);

    const real = call(client, getFile, request);
    await eventually(
      'others are served',
      () => seen.asked,
      (asked) => asked === 1,
    );
    real.cancel();
    await others.end();
  });
}

test('so many calls as hedging clients give up before they ask anything are let pass', async (t) => {
  const { lines, port } = await open(t);
  const socket = connect(port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  socket.on('error', () => {});
  let received = Buffer.alloc(0);
  socket.on('data', (bytes: Buffer) => (received = Buffer.concat([received, bytes])));
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(frame(types.settings, 0, 0, Buffer.alloc(0)));
  const reason = Buffer.alloc(4);
  reason.writeUInt32BE(constants.NGHTTP2_CANCEL);
  for (let sent = 0; sent < 9_000; sent += 1) {
    const id = sent * 2 + 1;
    socket.write(Buffer.concat([frame(types.headers, 4, id, head), frame(types.reset, 0, id, reason)]));
  }
  // What a PING says comes back behind all that was answered.
  const said = Buffer.from('stillher');
  socket.write(frame(types.ping, 0, 0, said));
  await eventually('the connection is there', () => socket.closed || received.includes(said), Boolean, 60_000);
  t.false(socket.closed);
  t.deepEqual(lines, []);
});

test('a connection that ends because its client does not keep to HTTP/2 leaves a line with its address', async (t) => {
  const { lines, port } = await open(t);
  const socket = connect(port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  socket.resume().on('error', () => {});
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(frame(types.settings, 0, 0, Buffer.alloc(0)));
  // A RST_STREAM of the connection itself, which can't be reset so.
  socket.write(frame(types.reset, 0, 0, Buffer.alloc(4)));
  await eventually('the connection is ended', () => socket.closed, Boolean);
  t.deepEqual(
    lines.map(({ msg, peer }) => [msg, peer]),
    [['A connection was ended for what its client sent', '127.0.0.1']],
  );
});

test('calls that clients of ours give up end no other, though a server ends connections with many resets, as Node does', async (t) => {
  t.timeout(120_000);
  const standing: { end(): void }[] = [];
  // The Watch of a server that is nothing but grpc-js.
  const server = new Server();
  const watch = { path: '/test.Standing/Watch', requestStream: false, responseStream: true } as const;
  const bytes = {
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  };
  server.addService({ watch: { ...watch, ...bytes } }, { watch: (each: { end(): void }) => void standing.push(each) });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  const client = openClient(`127.0.0.1:${port}`, credentials.createInsecure(), connectionOptions);
  t.teardown(() => {
    client.close();
    server.forceShutdown();
  });
  const open = () => client.makeServerStreamRequest(watch.path, asIs, asIs, Buffer.alloc(0)).on('error', () => {});

  const bystander = open().resume();
  const ended = Promise.withResolvers<number>();
  bystander.on('status', ({ code }) => ended.resolve(code));
  await eventually('it is there', () => standing.length, Boolean);
  for (let round = 0; round < 12; round += 1) {
    const calls = Array.from({ length: 150 }, open);
    const expected = standing.length + calls.length;
    await eventually(
      'they are there',
      () => standing.length,
      (count) => count === expected,
      30_000,
    );
    for (const each of calls) each.cancel();
  }
  standing[0]!.end();
  t.is(await ended.promise, status.OK);
});
