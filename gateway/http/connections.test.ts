import { EventEmitter, once } from 'node:events';
import type { Server } from 'node:http';
import type { DescMessage } from '@bufbuild/protobuf';
import type { ServerUnaryCall } from '@grpc/grpc-js';
import test from 'ava';
import { encode, registry } from '../../test/echo-backend.ts';
import { dial, exchange, fixture } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';
import { closeSlowReaders, limitConnections } from './connections.ts';

const everything = registry.getMessage('transcoding.v1.Everything') as DescMessage;

function transferred(coding: string, version = '1.1'): string {
  const head = `POST /v1/everything HTTP/${version}\r\nHost: a\r\nContent-Type: application/json`;
  return `${head}\r\nTransfer-Encoding: ${coding}\r\n\r\n2\r\n{}\r\n0\r\n\r\n`;
}

for (const [what, bytes, status, code] of [
  ['no HTTP at all', 'hello\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['an unknown method', 'FOO / HTTP/1.1\r\nHost: a\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a header without a colon', 'GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a space in the path', 'GET /a b HTTP/1.1\r\nHost: a\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  [
    'two lengths',
    'POST /v1/everything HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}',
    400,
    'MALFORMED_REQUEST',
  ],
  [
    'a length and chunks',
    'POST /v1/everything HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}',
    400,
    'MALFORMED_REQUEST',
  ],
  ['huge headers', `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 431, 'HEADERS_TOO_LARGE'],
  ['a huge path', `GET /${'x'.repeat(20_000)} HTTP/1.1\r\nHost: a\r\n\r\n`, 431, 'HEADERS_TOO_LARGE'],
  ['CONNECT', 'CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n', 405, 'METHOD_NOT_ALLOWED'],
  ['no Host', 'GET /health HTTP/1.1\r\nConnection: close\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a strange expectation', 'GET /health HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n', 417, 'EXPECTATION_FAILED'],
  ['two Hosts', 'GET /health HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['two Hosts in HTTP/1.0', 'GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a Host with a path', 'GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a Host with a user', 'GET /health HTTP/1.1\r\nHost: b@a\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a Host with a blank', 'GET /health HTTP/1.1\r\nHost: a b\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a Host with a list', 'GET /health HTTP/1.1\r\nHost: a, b\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a Host with a strange port', 'GET /health HTTP/1.1\r\nHost: a:x\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a Host with a half bracket', 'GET /health HTTP/1.1\r\nHost: [::1\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  [
    'two tokens',
    'GET /v1/things/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer a\r\nauthorization: Bearer a\r\n\r\n',
    400,
    'MALFORMED_HEADER',
  ],
  [
    'two API keys',
    'GET /v1/things/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: a\r\nX-API-Key: b\r\n\r\n',
    400,
    'MALFORMED_HEADER',
  ],
  ['a whole URL without Host', 'GET http://a/health HTTP/1.1\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a body in gzip and chunks', transferred('gzip, chunked'), 501, 'UNIMPLEMENTED'],
  ['a body in an unknown coding', transferred('x, Chunked'), 501, 'UNIMPLEMENTED'],
  ['a body in chunks twice', transferred('chunked, chunked'), 400, 'MALFORMED_REQUEST'],
  ['a body in gzip alone', transferred('gzip'), 501, 'UNIMPLEMENTED'],
  ['chunks in HTTP/1.0', transferred('chunked', '1.0'), 400, 'MALFORMED_REQUEST'],
  [
    'a PUT of a part',
    'PUT /v1/raw/upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Range: bytes 0-1/4\r\nContent-Length: 2\r\n\r\nab',
    400,
    'MALFORMED_REQUEST',
  ],
] as const) {
  test(`connection: ${what} is answered with ${status} as a problem`, async (t) => {
    const { gateway } = await fixture(t);
    const { socket, until } = await dial(gateway.port);
    socket.write(bytes);
    const [head = '', body = ''] = (await until('end')).split('\r\n\r\n');
    t.regex(head, new RegExp(`^HTTP/1.1 ${status} `));
    t.regex(head, /^content-type: application\/problem\+json\r?$/im);
    const problem = JSON.parse(body) as Record<string, unknown>;
    t.like(problem, { status, error_code: code });
    t.true(head.toLowerCase().includes(`x-request-id: ${String(problem['request_id'])}`));
  });
}

test('connection: HTTP/1.0 without Host is served', async (t) => {
  const { gateway } = await fixture(t);
  const { socket, until } = await dial(gateway.port);
  socket.write('GET /health HTTP/1.0\r\n\r\n');
  t.regex(await until('end'), /^HTTP\/1\.1 200 /);
});

test('connection: whatever can be a host is one, and a whole URL as target beats it', async (t) => {
  const { backend, gateway } = await fixture(t);
  const ask = async (target: string, host: string) => {
    const { socket, until } = await dial(gateway.port);
    socket.write(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    t.regex(await until('end'), /^HTTP\/1\.1 200 /, `${target} ${host}`);
    return backend.calls.at(-1)?.metadata.get('x-forwarded-host')[0];
  };
  for (const host of [
    'a',
    'a:1',
    'a.example:80',
    '127.0.0.1:8000',
    '[::1]',
    '[fe80::1]:8000',
    'a_b-c.d',
    'localhost',
  ]) {
    t.is(await ask('/v1/things/a', host), host);
  }
  for (const host of ['', 'a:', 'a%41', "a!$&'()*+,;=~"]) await ask('/v1/things/a', host);
  t.is(await ask('http://b.example:8000/v1/things/a', 'a'), 'b.example:8000');
  t.is(await ask('http://b.example/v1/things/a', 'a:1'), 'b.example');
});

test('connection: Expect: 100-continue means nothing in HTTP/1.0', async (t) => {
  const { gateway } = await fixture(t);
  for (const expect of ['100-continue', 'miracles']) {
    const { socket, until } = await dial(gateway.port);
    const head = `POST /v1/everything HTTP/1.0\r\nContent-Type: application/json\r\nExpect: ${expect}`;
    socket.write(`${head}\r\nContent-Length: 2\r\n\r\n`);
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket.write('{}');
    t.regex(await until('end'), /^HTTP\/1\.1 201 /);
  }
});

test('connection: pipelined requests are answered in order, also before something malformed', async (t) => {
  const { backend, gateway } = await fixture(t);
  let first = () => {};
  backend.handler = (call, callback) => {
    const echo = () => callback(null, call.request);
    if (backend.calls.length === 1) {
      first = echo;
      return;
    }
    echo();
    first();
  };
  const { socket, until } = await dial(gateway.port);
  const get = (id: string) => `GET /v1/things/${id} HTTP/1.1\r\nHost: a\r\nX-Request-ID: ${id}\r\n\r\n`;
  socket.write(`${get('one')}${get('two')}garbage\r\n\r\n`);
  const answers = await until('end');
  t.deepEqual(
    [...answers.matchAll(/HTTP\/1\.1 (\d+)|x-request-id: (one|two)/gi)].map((match) => match[1] ?? match[2]),
    ['200', 'one', '200', 'two', '400'],
  );
});

test('connection: requests with bodies that come in one packet are each answered, in order', async (t) => {
  const { backend, gateway } = await fixture(t);
  const { socket, until } = await dial(gateway.port);
  const body = JSON.stringify({ text_value: 'GET /v1/nope HTTP/1.1\r\nHost: a\r\n\r\n' });
  const post = (rest: string) => `POST /v1/everything HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n${rest}`;
  socket.write(
    [
      post(`Content-Length: ${body.length}\r\n\r\n${body}`),
      post(`Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`),
      'HEAD /v1/things/a HTTP/1.1\r\nHost: a\r\n\r\n',
      'GET /v1/things/b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz',
      'DELETE /v1/things/c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
    ].join(''),
  );
  const answers = await until('end');
  t.deepEqual(
    [...answers.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, code]) => code),
    ['201', '201', '200', '200', '204'],
  );
  const { text_value: inBody } = JSON.parse(body) as { text_value: string };
  // They go to the backend at once.
  t.deepEqual(backend.calls.map(({ request }) => (request as { textValue: string }).textValue).toSorted(), [
    inBody,
    inBody,
    'a',
    'b',
    'c',
  ]);
});

test('connection: one on which headers come too slowly is answered and closed, one on which none come closed', async (t) => {
  const { gateway } = await fixture(t, {}, { headers: 200, checkEvery: 20 });
  const slow = await dial(gateway.port);
  slow.socket.write('GET /health HTTP/1.1\r\nHost: a\r\n');
  const trickle = setInterval(() => slow.socket.write('X: y\r\n'), 20);
  t.teardown(() => clearInterval(trickle));
  const silent = await dial(gateway.port);
  t.regex(await slow.until('end'), /^HTTP\/1\.1 408 [^]*REQUEST_TIMEOUT/);
  t.regex(await silent.until('end'), /^(HTTP\/1\.1 408 |$)/);
  t.is((await exchange(gateway.port, 'GET /health')).status, 200);
});

// By itself: in a process with much else to do, what has come within its time is read after it.
test.serial(
  'connection: a client that takes nothing of its answer is cut off, one that waits for it is not',
  async (t) => {
    const { backend, gateway, lines } = await fixture(t, {}, { idle: 1_000 });
    // Six times as long in JSON: more than the two systems take in between them.
    const huge = encode(everything, { textValue: '\u0001'.repeat(3 * 1024 * 1024) });
    let release = () => {};
    backend.handler = (call, callback) => {
      if (call.metadata.get('deaf').length > 0) callback(null, huge);
      else release = () => callback(null, call.request);
    };
    const waiting = await dial(gateway.port);
    waiting.socket.write('GET /v1/things/a HTTP/1.1\r\nHost: a\r\n\r\n');
    const deaf = await dial(gateway.port);
    deaf.socket.pause();
    deaf.socket.write('GET /v1/things/b HTTP/1.1\r\nHost: a\r\nGrpc-Metadata-Deaf: 1\r\n\r\n');
    await eventually(
      'the deaf one is cut off',
      () => lines,
      ({ length }) => length > 0,
    );
    deaf.socket.destroy();
    release();
    await waiting.until(/"text_value":"a"/);
    // Kept alive, it asks for nothing more.
    t.regex(await waiting.until('end'), /^HTTP\/1\.1 200 /);
  },
);

test('connection: a body that is too large is answered at once, and the connection goes on', async (t) => {
  const { gateway } = await fixture(t, { BODY_LIMIT: '100' });
  const { socket, until } = await dial(gateway.port);
  const post = (length: number) =>
    `POST /v1/everything HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`;
  socket.write(post(100_000));
  t.regex(await until(/PAYLOAD_TOO_LARGE/), /^HTTP\/1\.1 413 /);
  socket.write(' '.repeat(100_000));
  socket.write(`${post(2)}{}`);
  await until(/HTTP\/1\.1 201 /);
  socket.destroy();
  t.pass();
});

test('connection: Expect: 100-continue is answered before the body, with what is wrong or with 100', async (t) => {
  const { gateway } = await fixture(t, { BODY_LIMIT: '100' });
  const post = (path: string, length: number) =>
    `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`;
  for (const [path, length, status] of [
    ['/v1/everything', 101, 413],
    ['/v1/nope', 2, 404],
  ] as const) {
    const { socket, until } = await dial(gateway.port);
    socket.write(post(path, length));
    t.regex(await until('end'), new RegExp(`^HTTP/1.1 ${status} `));
  }
  const { socket, until } = await dial(gateway.port);
  socket.write(post('/v1/everything', 2));
  await until(/HTTP\/1\.1 100 Continue\r\n\r\n/);
  socket.write('{}');
  await until(/HTTP\/1\.1 201 /);
  // The body is there, so that the connection can be used on.
  socket.write('GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  t.regex(await until('end'), /HTTP\/1\.1 200 /);
});

test('connection: a client that goes away cancels the call', async (t) => {
  const { backend, gateway, lines } = await fixture(t);
  const arrived = Promise.withResolvers<ServerUnaryCall<Buffer, Buffer>>();
  backend.handler = (call) => arrived.resolve(call);
  const { socket } = await dial(gateway.port);
  socket.write('GET /v1/things/a HTTP/1.1\r\nHost: a\r\n\r\n');
  const call = await arrived.promise;
  const cancelled = once(call, 'cancelled');
  socket.destroy();
  await cancelled;
  t.true(call.cancelled);
  while (lines.length === 0) await new Promise((resolve) => setImmediate(resolve));
  t.like(lines[0], { msg: 'http', status: 499 });
});

test('connection: chunks that are malformed are answered, also behind another request', async (t) => {
  const { gateway } = await fixture(t);
  for (const before of ['', 'GET /health HTTP/1.1\r\nHost: a\r\n\r\n']) {
    const { socket, until } = await dial(gateway.port);
    socket.write(`${before}POST /v1/everything HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n`);
    const codes = [...(await until('end')).matchAll(/HTTP\/1\.1 (\d+)/g)].map((match) => match[1]);
    t.deepEqual(codes, before === '' ? ['400'] : ['200', '400']);
  }
});

test('connection: a client that goes away in the middle of a body leaves nothing behind', async (t) => {
  const { backend, gateway, lines } = await fixture(t);
  const { socket } = await dial(gateway.port);
  socket.write('POST /v1/everything HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{');
  socket.end();
  while (lines.length === 0) await new Promise((resolve) => setImmediate(resolve));
  t.deepEqual(backend.calls, []);
});

test('stop: running requests finish, idle connections are closed and new ones refused', async (t) => {
  const { backend, gateway } = await fixture(t);
  const arrived = Promise.withResolvers<() => void>();
  backend.handler = (call, callback) => arrived.resolve(() => callback(null, call.request));
  const idle = await dial(gateway.port);
  idle.socket.write('GET /health HTTP/1.1\r\nHost: a\r\n\r\n');
  await idle.until(/"version":"[^"]*"\}/);
  const busy = await dial(gateway.port);
  busy.socket.write('GET /v1/things/a HTTP/1.1\r\nHost: a\r\n\r\n');
  const release = await arrived.promise;
  const stopped = gateway.stop();
  await idle.until('end');
  await t.throwsAsync(dial(gateway.port));
  release();
  const answer = await busy.until('end');
  t.regex(answer, /^HTTP\/1\.1 200 /);
  t.regex(answer, /^connection: close/im);
  await stopped;
});

test('stop: a request that does not finish in time is cut off', async (t) => {
  const { backend, gateway } = await fixture(t, { HTTP_DRAIN: '50ms' });
  const arrived = Promise.withResolvers<void>();
  backend.handler = () => arrived.resolve();
  const { socket, until } = await dial(gateway.port);
  socket.write('GET /v1/things/a HTTP/1.1\r\nHost: a\r\n\r\n');
  await arrived.promise;
  await gateway.stop();
  t.is(await until('end'), '');
});

/** The server's side of a connection that is none. */
class FakeSocket extends EventEmitter {
  readonly remoteAddress: string;
  readonly bytesWritten: number;
  readonly #perLook: number;
  #left: number;
  looks = 0;
  isDestroyed = false;

  /** @param perLook how many of the bytes that are `waiting` are taken from one look to the next */
  constructor({ remoteAddress = '10.0.0.1', waiting = 0, perLook = 0 }) {
    super();
    this.remoteAddress = remoteAddress;
    this.bytesWritten = 1_000_000 + waiting;
    this.#left = waiting;
    this.#perLook = perLook;
  }

  get writableLength(): number {
    this.looks += 1;
    this.#left = Math.max(0, this.#left - this.#perLook);
    return this.#left;
  }

  destroy(): void {
    this.isDestroyed = true;
    this.emit('close');
  }
}

test.serial(
  'connections: whoever takes less than the least is cut off, however steadily, and nobody else',
  async (t) => {
    const server = new EventEmitter() as Server;
    // At least 20 bytes from one look to the next.
    const stop = closeSlowReaders(server, { window: 20, rate: 1_000 });
    const sockets = {
      slow: new FakeSocket({ waiting: 100_000, perLook: 19 }),
      deaf: new FakeSocket({ waiting: 100_000 }),
      steady: new FakeSocket({ waiting: 100_000, perLook: 20 }),
      waiting: new FakeSocket({}),
    };
    for (const socket of Object.values(sockets)) server.emit('connection', socket);
    await eventually(
      'many looks',
      () => Math.min(sockets.steady.looks, sockets.waiting.looks),
      (looks) => looks >= 10,
    );
    stop();
    t.deepEqual(
      Object.values(sockets).map(({ isDestroyed }) => isDestroyed),
      [true, true, false, false],
    );
    t.is(sockets.slow.looks, 2, 'what is gone is not looked at any more');
  },
);

test('connections: each has a place, of IPv6 by its network, and gives it back; without one it is closed', (t) => {
  const server = new EventEmitter() as Server;
  const [taken, left]: [string[], string[]] = [[], []];
  limitConnections(server, (client) => {
    if (taken.length === 3) return undefined;
    taken.push(client);
    return () => void left.push(client);
  });
  const sockets = ['10.0.0.1', '2001:db8:0:101::1', '2001:db8:0:1ff::2', '10.0.0.2'].map((remoteAddress) => {
    const socket = new FakeSocket({ remoteAddress });
    server.emit('connection', socket);
    return socket;
  });
  t.is(taken[0], '10.0.0.1');
  t.is(taken[1], taken[2]);
  t.deepEqual(
    sockets.map(({ isDestroyed }) => isDestroyed),
    [false, false, false, true],
  );
  t.deepEqual(left, []);
  for (const socket of sockets) socket.emit('close');
  t.deepEqual(left, taken);
});
