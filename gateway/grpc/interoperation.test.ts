import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { connectivityState, status } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { loadConfig } from '#lib/config.ts';
import type { CallError } from '#lib/rpc/delivery.ts';
import { Reach } from '#lib/rpc/reach.ts';
import { openTransport, transportSettings } from '#lib/rpc/transport.ts';
import { eventually } from '../../test/eventually.ts';
import { buildExamples, goIsThere, startGo } from '../../test/grpc-gateway/build.ts';
import { buildGrpcJava, grpcJavaAvailable, startGrpcJava } from '../../test/grpc-java/build.ts';
import { rawFrame, rawSettings } from '../../test/http2-peer.ts';
import { nginxIsThere, startNginx } from '../../test/nginx.ts';
import { Backends, type GrpcClient } from './backends.ts';
import { UnaryClient } from './unary-client.ts';
import type { UnaryCaller } from './unary-grpc-js.ts';
import { keepalives, type Keepalive } from './unary-peer.ts';

const clients: readonly GrpcClient[] = ['own', 'grpc-js'];
const needsNginx = nginxIsThere || process.env['CI'] === 'true' ? test : test.skip;
const needsGo = goIsThere() || process.env['CI'] === 'true' ? test : test.skip;
const echoService = '/grpc.gateway.examples.internal.proto.examplepb.EchoService/';

async function reached(t: ExecutionContext, address: string, client: GrpcClient): Promise<UnaryCaller> {
  const transport = openTransport(loadConfig(transportSettings, {}));
  const backends = new Backends([{ prefix: '', address }], transport, { whose: 'foreign', client });
  t.teardown(() => backends.close());
  const { unary } = backends.of('any')!;
  await new Reach(unary).reached(Date.now() + 10_000);
  return unary;
}

async function failure(work: Promise<unknown>): Promise<CallError> {
  return (await work.then(
    () => ({ code: status.OK }),
    (error: unknown) => error,
  )) as CallError;
}

/** A SimpleMessage of the examples. */
function message(id: string): Uint8Array {
  return new BinaryWriter().tag(1, WireType.LengthDelimited).string(id).finish();
}

for (const client of clients) {
  needsGo(`${client}: a server of grpc-go answers calls of every kind`, async (t) => {
    t.timeout(20 * 60_000);
    const { program } = await buildExamples({ log: (line) => t.log(line) });
    const server = await startGo(program, 'server');
    t.teardown(() => server.stop());
    const unary = await reached(t, `127.0.0.1:${server.port}`, client);
    const call = (method: string, body: Uint8Array, deadline = Infinity) => unary.call(method, {}, body, deadline);

    const { headers, trailers, message: answer } = await call(`${echoService}EchoBody`, message('a'));
    t.deepEqual(new Uint8Array(answer), message('a'));
    t.is(String(headers['foo']), 'foo1');
    t.is(String(trailers['bar']), 'bar2');
    // Of each size around a frame, a window and what Go takes.
    for (const size of [1, 16_383, 16_384, 16_385, 65_535, 65_536, 1_000_000, 4_000_000]) {
      const sent = message('x'.repeat(size));
      t.true((await call(`${echoService}Echo`, sent)).message.equals(sent), `${size}`);
    }
    t.is((await failure(call(`${echoService}Echo`, message('x'.repeat(5_000_000))))).code, status.RESOURCE_EXHAUSTED);
    const unauthorized = await failure(call(`${echoService}EchoUnauthorized`, message('a')));
    t.like(unauthorized, { code: status.UNAUTHENTICATED, details: 'unauthorized err', delivery: 'answered' });
    t.is((await failure(call('/no.Service/Method', message('a')))).code, status.UNIMPLEMENTED);
    const timeout = '/grpc.gateway.examples.internal.proto.examplepb.ABitOfEverythingService/Timeout';
    t.is((await failure(call(timeout, new Uint8Array(), Date.now() + 50))).code, status.DEADLINE_EXCEEDED);

    // More at once than Go lets begin (100), and some that are given up.
    const many = Array.from({ length: 1_000 }, async (_, number) => {
      const sent = message(String(number).repeat(number));
      const cancels: (() => void)[] = [];
      const calling = unary.call(`${echoService}Echo`, {}, sent, Infinity, (cancel) => cancels.push(cancel));
      if (number % 10 === 0) setImmediate(() => cancels[0]?.());
      const found = await calling.catch((error: CallError) => error.code);
      return typeof found === 'number' ? found : found.message.equals(sent) ? status.OK : status.UNKNOWN;
    });
    const codes = await Promise.all(many);
    t.true(codes.every((code, number) => code === status.OK || (code === status.CANCELLED && number % 10 === 0)));
    t.is((await call(`${echoService}Echo`, message('last'))).message.length, 6);
  });
}

/** Has a server echo bytes under `/echo.Echo/Echo`, of many sizes and many at once, and says what else it does. */
async function echoes(t: ExecutionContext, unary: UnaryCaller): Promise<void> {
  const call = (method: string, body: Uint8Array, deadline = Infinity) =>
    unary.call(`/echo.Echo/${method}`, { 'x-ask': 'a,b c'.repeat(40) }, body, deadline);
  for (const size of [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 1_000_000, 4_000_000]) {
    const sent = Buffer.alloc(size, `${size} `);
    const { headers, trailers, message: answer } = await call('Echo', sent);
    t.true(sent.equals(answer), `${size}`);
    t.is(String(headers['x-answer']), 'a,b c'.repeat(40));
    t.is(String(trailers['x-answer']), 'a,b c'.repeat(40));
  }
  t.like(await failure(call('Refuse', new Uint8Array())), {
    code: status.UNAUTHENTICATED,
    details: 'não, 100 %',
    delivery: 'answered',
  });
  t.is((await failure(call('Wait', new Uint8Array(), Date.now() + 100))).code, status.DEADLINE_EXCEEDED);
  const many = Array.from({ length: 600 }, async (_, number) => {
    const sent = Buffer.from(String(number).repeat(number));
    const cancels: (() => void)[] = [];
    const once = () => unary.call('/echo.Echo/Echo', {}, sent, Infinity, (cancel) => cancels.push(cancel));
    const calling = unlessUnprocessed(once);
    if (number % 10 === 0) setImmediate(() => cancels[0]?.());
    const found = await calling.catch((error: CallError) => error.code);
    return typeof found === 'number' ? found : sent.equals(found.message) ? status.OK : status.UNKNOWN;
  });
  const codes = await Promise.all(many);
  const wrong = codes.filter((code, number) => code !== status.OK && !(code === status.CANCELLED && number % 10 === 0));
  t.deepEqual(wrong, []);
  t.is((await call('Echo', Buffer.from('last'))).message.length, 4);
}

/** Calls again and again while the transport says that the server has not looked at the call. */
async function unlessUnprocessed<T>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const { delivery } = error as CallError;
      if (delivery !== 'never sent' && delivery !== 'refused unprocessed') throw error;
      await sleep(20);
    }
  }
}

for (const client of clients) {
  (grpcJavaAvailable() ? test : test.skip)(`${client}: a server of grpc-java on Netty answers`, async (t) => {
    t.timeout(10 * 60_000);
    await buildGrpcJava({ log: (line) => t.log(line) });
    const server = await startGrpcJava();
    t.teardown(() => server.stop());
    const unary = await reached(t, `127.0.0.1:${server.port}`, client);
    await echoes(t, unary);
    t.is((await failure(unary.call('/no.Service/Method', {}, new Uint8Array(), Infinity))).code, status.UNIMPLEMENTED);
  });

  needsNginx(`${client}: behind nginx, which ends its connections after some calls, a server answers`, async (t) => {
    const seen = new Map<string, number>();
    const { address: behind } = await serveNode(t, {}, (stream, headers) =>
      echo(stream, headers, (body) => seen.set(body, (seen.get(body) ?? 0) + 1)),
    );
    const nginx = await startNginx({
      listen: 'http2',
      server: `client_max_body_size 0; client_body_buffer_size 8m; keepalive_requests 100; http2_max_concurrent_streams 32;
          location / { grpc_pass grpc://${behind}; grpc_buffer_size 64k; }`,
    });
    t.teardown(() => nginx.stop());
    await echoes(t, await reached(t, nginx.address, client));
    const twice = [...seen].filter(([body, times]) => /^\d+$/.test(body) && times > 1);
    t.deepEqual(twice, [], 'what was called again had not been looked at');
  });
}

/** Does what `echoes` asks for. */
function echo(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, onBody: (text: string) => void): void {
  const pieces: Buffer[] = [];
  const answer = { 'x-answer': String(headers['x-ask'] ?? '') };
  const type = { ':status': 200, 'content-type': 'application/grpc' };
  stream.on('data', (piece: Buffer) => pieces.push(piece));
  stream.on('end', () => {
    const method = headers[':path']!.split('/').at(-1);
    if (method === 'Wait') return;
    if (pieces.length === 1) onBody(pieces[0]!.toString('latin1', 0, 10_000));
    if (method === 'Refuse') {
      const error = { 'grpc-status': '16', 'grpc-message': encodeURIComponent('não, 100 %') };
      stream.respond({ ...type, ...answer, ...error }, { endStream: true });
      return;
    }
    stream.respond({ ...type, ...answer }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ ...answer, 'grpc-status': '0' }));
    stream.end(Buffer.concat(pieces));
  });
}

async function serveNode(
  t: ExecutionContext,
  settings: Parameters<typeof createServer>[0],
  answer: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
) {
  const server = createServer(settings);
  const sessions: ServerHttp2Session[] = [];
  server.on('session', (session) => {
    sessions.push(session);
    session.on('error', () => {});
  });
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    stream.on('error', () => {});
    answer(stream, headers);
  });
  return { sessions, address: await listening(t, server as unknown as Server, () => sessions) };
}

async function listening(
  t: ExecutionContext,
  server: Server,
  open: () => readonly { destroy(): void }[],
): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const each of open()) each.destroy();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function answerOk(stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.end(Buffer.alloc(5));
}

for (const client of clients) {
  for (const headerTableSize of [0, 100, 4_095, 65_536]) {
    test(`${client}: a server of Node whose table has ${headerTableSize} bytes answers`, async (t) => {
      const { address } = await serveNode(t, { settings: { headerTableSize } }, answerOk);
      const unary = await reached(t, address, client);
      for (let count = 0; count < 3; count += 1) {
        const { message: answer } = await unary.call('/a.B/C', { 'x-a': 'b' }, new Uint8Array(3), Infinity);
        t.is(answer.length, 0);
      }
    });
  }
}

async function connected(t: ExecutionContext, address: string, keepalive: Keepalive): Promise<UnaryClient> {
  const client = new UnaryClient(address, { tls: undefined, maxAnswer: 1_000, keepalive });
  t.teardown(() => client.close());
  await eventually(
    'it is connected',
    () => client.getConnectivityState(true),
    (is) => is === connectivityState.READY,
  );
  return client;
}

/** Says what it takes, and then does what a test says. */
async function serveSilently(t: ExecutionContext, act: (socket: Socket) => void): Promise<[address: string, Socket[]]> {
  const sockets: Socket[] = [];
  const server = createTcpServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    socket.write(Buffer.concat([rawSettings(), rawFrame(0x4, 0x1, 0)]));
    act(socket);
  });
  return [await listening(t, server, () => sockets), sockets];
}

test('a server of others that says nothing any more is found out', async (t) => {
  const [address] = await serveSilently(t, (socket) => socket.resume());
  const client = await connected(t, address, { silence: 100, limit: 100, rest: 60_000 });
  const error = await failure(client.call('/a.B/C', {}, new Uint8Array(), Infinity));
  t.like(error, { code: status.UNAVAILABLE, delivery: 'maybe processed' });
});

test('a server of others is asked whether it is there once, and again only when it has said something', async (t) => {
  let pings = 0;
  let waiting: ServerHttp2Stream | undefined;
  const { address, sessions } = await serveNode(t, {}, (stream) => {
    if (waiting === undefined) waiting = stream;
    else answerOk(stream);
  });
  const silence = 100;
  const client = await connected(t, address, { silence, limit: 60_000, rest: 60_000 });
  sessions[0]!.on('ping', () => (pings += 1));
  const calling = client.call('/a.B/C', {}, new Uint8Array(), Infinity);
  calling.catch(() => {});
  const asked = (times: number) =>
    eventually(
      `it is asked ${times} times`,
      () => pings,
      (count) => count === times,
    );
  await asked(1);
  // Time in which it would be asked again.
  await sleep(5 * silence);
  t.is(pings, 1);
  await client.call('/a.B/C', {}, new Uint8Array(), Infinity);
  await asked(2);
  answerOk(waiting!);
  t.is((await calling).message.length, 0);
});

test('a server that hangs up as soon as it has said what it takes is called ever less often', async (t) => {
  const began = performance.now();
  const [address, sockets] = await serveSilently(t, (socket) => socket.end());
  const client = new UnaryClient(address, { tls: undefined, maxAnswer: 1_000, keepalive: keepalives.foreign });
  t.teardown(() => client.close());
  client.getConnectivityState(true);
  await eventually(
    'it was called',
    () => sockets.length,
    (count) => count >= 6,
  );
  // At least 80 % of 100, 160, 256, 410 and 655 ms.
  t.true(performance.now() - began > 1_260);
});
