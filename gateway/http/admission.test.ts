import { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { DescMessage } from '@bufbuild/protobuf';
import { Metadata } from '@grpc/grpc-js';
import ava from 'ava';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { content, encode, failing, registry } from '../../test/echo-backend.ts';
import { dial, fixture } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';
import { Admission } from './admission.ts';

/** One after another: they are about who is too slow, and must not be slow because of each other. */
const test = ava.serial;

const everything = registry.getMessage('transcoding.v1.Everything') as DescMessage;
const nested = registry.getMessage('transcoding.v1.Nested') as DescMessage;
const octets = { 'content-type': 'application/octet-stream' };
const attacker = '127.0.0.2';
const unfinished = {
  'a JSON body': 'POST /v1/everything HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{',
  'an upload': 'PATCH /v1/raw/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1',
  'a stream of messages':
    'POST /v1/streams:collect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n',
  'a head': 'POST /v1/everything HTTP/1.1\r\nHost: a\r\n',
  'anything at all': '',
};

for (const [what, bytes] of Object.entries(unfinished)) {
  test(`places: a client that never finishes ${what}, on as many connections as it gets, refuses nobody else`, async (t) => {
    const { gateway, lines, send } = await fixture(t, { HTTP_CONCURRENCY: '20' });
    let closed = 0;
    const greedy = await Promise.all(Array.from({ length: 150 }, () => dial(gateway.port, attacker)));
    for (const { socket } of greedy) {
      socket.on('close', () => (closed += 1));
      socket.write(bytes);
      t.teardown(() => socket.destroy());
    }
    // Of 200 connections it gets half.
    await eventually(
      'those beyond its share are closed',
      () => closed,
      (count) => count >= 50,
    );
    t.is((await send('POST /v1/everything', { body: {} })).status, 201);
    t.is((await send('PATCH /v1/raw/upload', { body: 'x', headers: octets })).status, 201);
    t.is((await send('POST /v1/streams:collect', { body: '{}' })).status, 200);
    t.is((await send('GET /v1/raw/a/content')).status, 200);
    t.is((await send('GET /health')).status, 200);
    // That it is refused doesn't fill the log.
    const said = lines.filter(({ level }) => level === 40);
    t.is(said.length, 1, JSON.stringify(said));
  });
}

test('places: those of a client that has ended are there for the next', async (t) => {
  const { backend, gateway, send } = await fixture(t, { HTTP_CONCURRENCY: '4', RATE_LIMIT: '0' });
  backend.receiver = () => true;
  for (let round = 0; round < 5; round++) {
    const { socket, until } = await dial(gateway.port);
    socket.write(unfinished['an upload']);
    await eventually(
      'an upload',
      () => backend.uploads.length,
      (count) => count === round + 1,
    );
    if (round % 2 === 0) socket.destroy();
    else socket.end();
    await until('end');
    await eventually('the end', () => backend.uploads[round]?.isCancelled, Boolean);
  }
  backend.receiver = undefined;
  t.is((await send('PATCH /v1/raw/upload', { body: 'x', headers: octets })).status, 201);
});

test('places: requests one behind the other on a connection that is lost give theirs back', async (t) => {
  const { backend, gateway, send } = await fixture(t, { HTTP_CONCURRENCY: '8', RATE_LIMIT: '0' });
  let [begun, cancelled] = [0, 0];
  backend.handler = (call) => {
    begun += 1;
    call.on('cancelled', () => (cancelled += 1));
  };
  const { socket } = await dial(gateway.port);
  socket.write('GET /v1/things/a HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(20));
  // The others are refused behind them.
  await eventually(
    'its share',
    () => begun,
    (count) => count === 4,
  );
  t.is((await send('GET /v1/things/a')).status, 429);
  socket.destroy();
  await eventually(
    'all are given up',
    () => cancelled,
    (count) => count === 4,
  );
  backend.handler = undefined;
  for (let count = 0; count < 10; count++) t.is((await send('GET /v1/things/a')).status, 200);
});

test('places: a user has one share over all addresses, and another user at the same address its own', async (t) => {
  const { backend, send } = await fixture(t, { HTTP_CONCURRENCY: '4', RATE_LIMIT: '0' });
  const waiting: (() => void)[] = [];
  let isWaiting = false;
  backend.handler = (call, callback) => {
    const trailers = new Metadata();
    trailers.set('x-caller-id', String(call.metadata.get('authorization')[0]));
    const answer = () => callback(null, call.request, trailers);
    if (isWaiting) waiting.push(answer);
    else answer();
  };
  const as = (user: string, from: string) => send('GET /v1/things/a', { from, headers: { authorization: user } });
  for (const user of ['one', 'two']) {
    await eventually(
      'it is known',
      () => as(user, attacker),
      ({ status }) => status === 200,
    );
  }
  isWaiting = true;
  const taken = [as('one', '127.0.0.1'), as('one', attacker)];
  await eventually(
    'two are under way',
    () => waiting.length,
    (count) => count === 2,
  );
  t.is((await as('one', '127.0.0.3')).json['error_code'], 'TOO_MANY_CALLS');
  taken.push(as('two', attacker));
  await eventually(
    'three are under way',
    () => waiting.length,
    (count) => count === 3,
  );
  for (const answer of waiting) answer();
  for (const answer of taken) t.is((await answer).status, 200);
});

const post = 'POST /v1/everything HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n';

test('places: bodies that are not there yet have their own, shared too, and take none of those of calls', async (t) => {
  // 16 for bodies, of which one client gets half; 4 for calls.
  const { gateway, send } = await fixture(t, { HTTP_CONCURRENCY: '4', RATE_LIMIT: '0' });
  const begin = async (from: string) => {
    const { socket, until } = await dial(gateway.port, from);
    socket.write(`${post}{`);
    const answer = until(/HTTP\/1\.1 \d+ [^]*\}/);
    return { finish: () => socket.write('}'), answer: answer.finally(() => socket.destroy()) };
  };
  const refused: string[] = [];
  const bodies = await Promise.all(Array.from({ length: 9 }, () => begin(attacker)));
  for (const { answer } of bodies) void answer.then((text) => refused.push(text));
  await eventually(
    'one is refused',
    () => refused.length,
    (count) => count > 0,
  );
  t.regex(refused[0]!, /^HTTP\/1\.1 429 [^]*TOO_MANY_CALLS/);
  // What it has not finished takes up neither the places of calls nor those of others.
  t.is((await send('GET /v1/things/a', { from: attacker })).status, 200);
  const other = await begin('127.0.0.1');
  await send('GET /health');
  other.finish();
  t.regex(await other.answer, /^HTTP\/1\.1 201 /);
  t.is(refused.length, 1);
  for (const { finish } of bodies) finish();
  for (const { answer } of bodies) await answer;
  // More than there are: each is given back once its body is there.
  for (let count = 0; count < 10; count++) {
    const { finish, answer } = await begin(attacker);
    await send('GET /health');
    finish();
    t.regex(await answer, /^HTTP\/1\.1 201 /);
  }
});

/** A gateway's decisions, and the answers to requests that are none. */
function openAdmission() {
  const lines: Record<string, unknown>[] = [];
  const log = openLog({
    name: 'gateway',
    format: 'json',
    level: 'info',
    destination: { write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
  });
  const clientOf = (request: unknown) => request as string;
  const admission = new Admission({ places: 1_000, bodyLimit: 1024 ** 2, clientOf, log });
  const bodyOf = (client: string) => {
    const response = new EventEmitter() as ServerResponse;
    return { response, body: admission.body(client as unknown as IncomingMessage, response) };
  };
  return { admission, lines, bodyOf };
}

test('places: of the bytes that bodies may hold a client gets half, until its answers are taken', (t) => {
  const { lines, bodyOf } = openAdmission();
  const fill = () => {
    const held: ServerResponse[] = [];
    for (;;) {
      const { response, body } = bodyOf('greedy');
      held.push(response);
      try {
        for (let size = 0; size <= 1024 ** 2; size += 16 * 1024) body.grow(size);
      } catch (error) {
        t.like(error, { status: 429, code: 'TOO_MANY_CALLS' });
        return held;
      }
      body.end();
    }
  };
  const held = fill();
  // 128 MiB, beyond the first 64 KiB of each.
  t.is(held.length, 137);
  const { body } = bodyOf('modest');
  t.notThrows(() => body.grow(1024 ** 2));
  t.deepEqual(
    lines.map((line) => line['refused']),
    [{ bodies: 1 }],
  );
  for (const response of held) response.emit('close');
  t.is(fill().length, 137);
});

test('places: what backends refuse leaves one line for all, and each that is refused for that none', async (t) => {
  const { backend, lines, send } = await fixture(t);
  for (const [reason, status] of [
    ['OVERLOADED', 503],
    ['TOO_MANY_CALLS', 429],
  ] as const) {
    const kind = status === 503 ? 'UNAVAILABLE' : 'RESOURCE_EXHAUSTED';
    backend.handler = failing(new HubError(kind, reason, 'Too much', { retryAfter: 1 }));
    for (let count = 0; count < 3; count++) t.is((await send('GET /v1/things/a')).status, status);
  }
  backend.handler = undefined;
  t.is((await send('GET /v1/things/a')).status, 200);
  await eventually(
    'the line of the last',
    () => lines.at(-1)?.['status'],
    (status) => status === 200,
  );
  t.deepEqual(
    lines.map(({ level, status, refused }) => ({ level, status, refused })),
    [
      { level: 40, status: undefined, refused: { backends: 1 } },
      { level: 30, status: 200, refused: undefined },
    ],
  );
});

/** Says a byte again and again, faster than silence is cut off, until the answer has come. */
async function trickle(port: number, head: string, byte: string): Promise<string> {
  const { socket, until } = await dial(port, attacker);
  socket.write(head);
  const timer = setInterval(() => socket.write(byte), 50);
  const answer = await until(/HTTP\/1\.1 \d+ [^]*\}/);
  clearInterval(timer);
  socket.destroy();
  return answer;
}

const trickled = {
  'a JSON body': ['POST /v1/everything HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n', ' '],
  'an upload': ['PATCH /v1/raw/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n', 'x'],
  'an upload of unknown length': [
    'PATCH /v1/raw/upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n',
    '1\r\nx\r\n',
  ],
  'a message of a stream': [
    'POST /v1/streams:collect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{"\r\n',
    '1\r\nx\r\n',
  ],
  'what is between messages, in both directions': [
    'POST /v1/streams:chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n',
    '1\r\n \r\n',
  ],
} as const;

for (const [what, [head, byte]] of Object.entries(trickled)) {
  test(`slow: a client that sends ${what} byte by byte is given up`, async (t) => {
    const { gateway } = await fixture(t, { REQUEST_TIMEOUT: '60s' }, { uploadIdle: 500 });
    t.regex(await trickle(gateway.port, head, byte), /^HTTP\/1\.1 408 [^]*REQUEST_TIMEOUT/);
  });
}

test('slow: a client that sends a message now and then is not given up', async (t) => {
  const { backend, gateway } = await fixture(t, { REQUEST_TIMEOUT: '60s' }, { uploadIdle: 1_000 });
  const { socket, until } = await dial(gateway.port);
  const say = (text: string) => socket.write(`${text.length.toString(16)}\r\n${text}\r\n`);
  socket.write('POST /v1/streams:collect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
  const began = performance.now();
  // For several times as long as it may be silent.
  while (performance.now() - began < 4_000) {
    say('{}');
    const count = backend.streams[0]?.messages ?? 0;
    await eventually(
      'a message',
      () => backend.streams[0]?.messages ?? 0,
      (now) => now > count,
    );
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  socket.write('0\r\n\r\n');
  t.regex(await until(/HTTP\/1\.1 \d+ [^]*\}/), /^HTTP\/1\.1 200 /);
  socket.destroy();
});

test('slow: a client that is answered meanwhile is not given up, however long it says nothing', async (t) => {
  const { backend, gateway } = await fixture(t, { REQUEST_TIMEOUT: '60s' }, { uploadIdle: 700 });
  const { socket, until } = await dial(gateway.port);
  socket.write('POST /v1/streams:chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n');
  await eventually('the first message', () => backend.streams[0]?.messages, Boolean);
  let said = 0;
  const timer = setInterval(() => {
    said += 1;
    backend.streams[0]!.say(encode(nested, { count: said }));
  }, 100);
  t.teardown(() => clearInterval(timer));
  // Several times as long as it may be silent.
  await until(/"count":30\b|"error"/);
  clearInterval(timer);
  socket.write('0\r\n\r\n');
  const answer = await until(/\r\n0\r\n\r\n$/);
  t.regex(answer, /^HTTP\/1\.1 200 /);
  t.false(answer.includes('"error"'));
  socket.destroy();
});

test('slow: a client whose messages the backend does not take is not given up', async (t) => {
  const { backend, gateway } = await fixture(t, { REQUEST_TIMEOUT: '60s' }, { uploadIdle: 1_000 });
  const { socket } = await dial(gateway.port);
  const say = (text: string) => socket.write(`${text.length.toString(16)}\r\n${text}\r\n`);
  socket.write('POST /v1/streams:collect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
  say('{}');
  await eventually('the first message', () => backend.streams[0]?.messages, Boolean);
  const stream = backend.streams[0]!;
  stream.pause();
  const large = `{"name":"${'x'.repeat(500_000)}"}`;
  for (let count = 0; count < many; count += 1) say(large);
  // Several times as long as a client may be silent.
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  t.true(socket.writableLength > 0, 'it is held up');
  t.false(stream.isCancelled);
  stream.resume();
  await eventually(
    'all messages',
    () => stream.messages,
    (count) => count === 1 + many,
  );
  t.false(stream.isCancelled);
  socket.destroy();
});

const many = 64;

for (const [what, path] of [
  ['a download', '/v1/raw/a/content'],
  ['a stream', '/v1/streams/a'],
] as const) {
  test(`slow: a client that takes ${what} bit by bit is cut off, and one that waits for the backend is not`, async (t) => {
    const { backend, gateway, send } = await fixture(t, { REQUEST_TIMEOUT: '60s' }, { downloadIdle: 300 });
    const piece = path.includes('raw')
      ? content({}, Buffer.alloc(1024 ** 2))
      : encode(everything, { textValue: 'x'.repeat(1024 ** 2) });
    let isCancelled = false;
    backend.sender = (call) => {
      call.on('error', () => {});
      call.on('cancelled', () => (isCancelled = true));
      for (let count = 0; count < many; count++) call.write(piece);
    };
    const { socket } = await dial(gateway.port, attacker);
    socket.pause();
    socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    const timer = setInterval(() => void socket.read(), 3_000);
    // Long before its deadline.
    await eventually('it is cut off', () => isCancelled, Boolean);
    clearInterval(timer);
    socket.destroy();

    backend.sender = (call) => {
      call.write(piece);
      setTimeout(() => {
        call.write(piece);
        call.end();
      }, 1_500);
    };
    const { status, bytes } = await send(`GET ${path}`);
    t.is(status, 200);
    t.true(bytes.length >= 1024 ** 2);
  });
}
