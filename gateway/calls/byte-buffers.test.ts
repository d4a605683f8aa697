import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { descriptorSet, startEchoBackend } from '../../test/echo-backend.ts';
import { dial, exchange } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';
import { openRandom, type Random } from '../../test/faults/random.ts';
import { foreignDescriptors } from '../../test/grpc-gateway/build.ts';

/** Whatever bytes reach a gateway's port: they get answers that are ours, or a closed connection, and nothing goes to stderr. */

const startLimit = 60_000;
/** Milliseconds in which what is sent has been answered, and its connection closed. */
const patience = 60_000;
const atOnce = 25;
/** Of made-up sequences, for each gateway. */
const sequences = 2_000;
const seed = 20_261_129;

const good = 'GET /v1/things/a HTTP/1.1\r\nHost: a\r\n\r\n';
const post = 'POST /v1/everything HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n';
const bytes = (text: string) => Buffer.from(text, 'latin1');

/** Sequences that something is known to be tripped up by. */
const known: readonly string[] = [
  good,
  ...[
    'http://[/x',
    'http://a:b:c/x',
    'http://a:99999/x',
    'http://a/v1/things/a',
    'HTTP://a:80?x=1',
    'http://',
    'http:///',
    'http://%/x',
    'http://user:secret@a/v1/things/a',
    'javascript://a/x',
    'a:b',
    '*',
    '//a/v1/things/a',
    '///',
    '/%',
    '/%ff%fe',
    '/v1/things/%00',
    '/v1/things/\xff\xa0\xfe',
    '/v1/things/a#b',
    '/v1/things/a?%=%&&=',
    '/\\..\\x',
    `/${'a'.repeat(20_000)}`,
    '',
  ].flatMap((target) => [
    `GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`,
    `OPTIONS ${target} HTTP/1.1\r\nHost: a\r\n\r\n`,
    `CONNECT ${target} HTTP/1.1\r\nHost: a\r\n\r\n${good}`,
  ]),
  'CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n',
  'GET /\r\n',
  'GET / HTTP/0.9\r\n\r\n',
  'GET / HTTP/1.0\r\n\r\n',
  'GET / HTTP/2.0\r\nHost: a\r\n\r\n',
  'GET / HTTP/9.9\r\nHost: a\r\n\r\n',
  'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00',
  '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00',
  '\x00',
  '\r\n\r\n\r\n',
  ' GET / HTTP/1.1\r\nHost: a\r\n\r\n',
  'NONSENSE / HTTP/1.1\r\nHost: a\r\n\r\n',
  'QUERY / HTTP/1.1\r\nHost: a\r\n\r\n',
  `${good}\x00\x01nothing of HTTP\r\n\r\n`,
  `${good.repeat(20)}GET`,
  `${post}Content-Length: 2\r\n\r\n{}${good}`,
  `${post}Content-Length: 10\r\n\r\n{}`,
  `${post}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  `${post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}`,
  `${post}Content-Length: -1\r\n\r\n{}`,
  `${post}Content-Length: 99999999999999999999\r\n\r\n{}`,
  `${post}Content-Length: 0x2\r\n\r\n{}`,
  `${post}Transfer-Encoding: chunked\r\n\r\n2;${'x'.repeat(20_000)}\r\n{}\r\n0\r\n\r\n`,
  `${post}Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`,
  `${post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}`,
  `${post}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n`,
  `${post}Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n`,
  `${post}Transfer-Encoding: gzip\r\n\r\n{}`,
  `${post}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}`,
  `${post}Expect: the-spanish-inquisition\r\nContent-Length: 2\r\n\r\n{}`,
  ...[
    'X: a\r\n b',
    'X: \x00',
    'X: \xff\xfe',
    'X\xff: a',
    'X : a',
    ': a',
    'X',
    'Host: b',
    'Host: [',
    `X: ${'a'.repeat(20_000)}`,
    'a: b\r\n'.repeat(150).trim(),
    'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x',
    'Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__',
    'Connection: close, keep-alive, transfer-encoding',
    'Accept-Encoding: identity;q=0, *;q=0',
    'X-HTTP-Method-Override: \x7f',
    'Grpc-Timeout: -1S',
    'Grpc-Metadata-X-Bin: ?',
    'Content-Type: multipart/form-data',
    'Range: bytes=-',
    'Cookie: \x80=\x80',
  ].map((header) => `GET /v1/things/a HTTP/1.1\r\nHost: a\r\n${header}\r\n\r\n`),
  'GET /v1/things/a HTTP/1.1\r\n\r\n',
  'GET /v1/things/a HTTP/1.1\nHost: a\n\n',
  'GET /v1/things/a HTTP/1.1\rHost: a\r\r',
];

/** One of the known sequences, or two of them, with some of its bytes changed, left out, repeated or made up. */
function madeUp(random: Random): Buffer {
  let sequence = bytes(random.pick(known));
  if (random.next() < 0.2) sequence = Buffer.concat([sequence, bytes(random.pick(known))]);
  for (let changes = random.between(0, 4); changes > 0; changes -= 1) {
    const at = random.between(0, sequence.length);
    const [before, after] = [sequence.subarray(0, at), sequence.subarray(at)];
    const odd = bytes(
      random.pick(['\x00', '\r', '\n', '\r\n', ' ', ':', '/', '%', '[', '\xff', '\t', '?', '#', '@', '0', ';']),
    );
    sequence = random.pick([
      () => Buffer.concat([before, odd, after]),
      () => Buffer.concat([before, Buffer.from([random.between(0, 255)]), after.subarray(1)]),
      () => Buffer.concat([before, after.subarray(random.between(1, 10))]),
      () => Buffer.concat([before, before.subarray(-random.between(1, 20)), after]),
      () => before,
    ])();
  }
  return sequence;
}

interface Sequence {
  sequence: Buffer;
  /** Where it is cut in two. */
  cut: number;
  /** Milliseconds until the client says that no more comes. */
  hold: number;
}

/** Sends bytes in two pieces, and says that no more come. @returns what was answered until the connection was closed */
function answersTo(port: number, { sequence, cut, hold }: Sequence): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const received: Buffer[] = [];
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    let ending: NodeJS.Timeout | undefined;
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`is neither answered nor closed: ${JSON.stringify(sequence.toString('latin1').slice(0, 300))}`));
    }, patience);
    socket.on('connect', () => {
      socket.write(sequence.subarray(0, cut), () => {
        socket.write(sequence.subarray(cut));
        // Who says so before the answer gets none, and who never does is waited for.
        ending = setTimeout(() => socket.end(), hold);
      });
    });
    socket.on('data', (piece: Buffer) => received.push(piece));
    // A connection that is closed with bytes still coming is reset.
    socket.on('error', () => {});
    socket.on('end', () => socket.destroy());
    socket.on('close', () => {
      clearTimeout(timer);
      clearTimeout(ending);
      resolve(Buffer.concat(received));
    });
  });
}

/** What is wrong with answers: that it isn't ours. */
function foreign(answers: string): string | undefined {
  if (answers !== '' && !/^HTTP\/1\.1 \d{3} /.test(answers)) return 'begins with no answer of HTTP';
  for (const [, head] of answers.matchAll(/(HTTP\/1\.1 \d{3} [^\r]*\r\n[^]*?)\r\n\r\n/g)) {
    const status = Number(head!.slice(9, 12));
    if (status === 100) continue;
    if (/content-type: *text\/html/i.test(head!)) return `an answer is a page: ${head}`;
    // 501 is what grpc-gateway says of a method that a path doesn't take.
    if (status >= 500 && status !== 501) return `an answer is ${status}: ${head}`;
    if (status >= 400 && !/content-type: *application\/problem\+json/i.test(head!))
      return `${status} is no problem: ${head}`;
  }
  return undefined;
}

interface Started {
  port: number;
  stderr(): string;
  lines(): Record<string, unknown>[];
}

async function start(t: ExecutionContext, args: string[], env: NodeJS.ProcessEnv): Promise<Started> {
  const child: ChildProcess = spawn(process.execPath, args, {
    cwd: path.join(import.meta.dirname, '../..'),
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env, LOG_FORMAT: 'json', LOG_LEVEL: 'info', SHUTDOWN_NOTICE: '0s', NODE_OPTIONS: '' },
  });
  const exited = once(child, 'exit');
  t.teardown(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const [written, wrong]: [Buffer[], Buffer[]] = [[], []];
  child.stdout!.on('data', (data: Buffer) => written.push(data));
  child.stderr!.on('data', (data: Buffer) => wrong.push(data));
  const lines = () =>
    Buffer.concat(written)
      .toString()
      .split('\n')
      .flatMap((line) =>
        line.startsWith('{') && line.endsWith('}') ? [JSON.parse(line) as Record<string, unknown>] : [],
      );
  const ready = await eventually(
    'it is ready',
    () => lines().find(({ msg }) => msg === 'ready'),
    (line) => line !== undefined || child.exitCode !== null,
    startLimit,
  );
  const stderr = () => Buffer.concat(wrong).toString();
  if (ready === undefined) throw new Error(`It doesn't start: ${stderr()}`);
  return { port: Number(ready['port']), stderr, lines };
}

const gateways = {
  "the hub's gateway": (t: ExecutionContext, backend: string) =>
    start(t, ['gateway/main.ts'], {
      PORT: '0',
      BACKENDS: `transcoding.v1=${backend}`,
      DESCRIPTOR_SET: descriptorSet,
      RATE_LIMIT: '0',
      TRUST_PROXY: '1',
      CORS_ORIGINS: 'https://app.example',
    }),
  'the gateway that stands alone': async (t: ExecutionContext, backend: string) => {
    const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    const descriptors = path.join(folder, 'descriptors.binpb');
    await foreignDescriptors(descriptorSet, descriptors);
    const args = ['--descriptor-set', descriptors, '--backend', backend, '--port', '0', '--workers', '1'];
    return start(t, ['gateway/standalone.ts', ...args], {});
  },
};

for (const [who, open] of Object.entries(gateways)) {
  test.serial(
    `${who}: all bytes get answers of ours, or a closed connection, and nothing goes to stderr`,
    async (t) => {
      t.timeout(600_000);
      const backend = await startEchoBackend();
      t.teardown(() => backend.stop());
      const { port, stderr, lines } = await open(t, backend.address);
      const random = openRandom(seed);
      const all = [...known.map(bytes), ...Array.from({ length: sequences }, () => madeUp(random))];
      const left = all.map((sequence) => ({
        sequence,
        cut: random.between(0, sequence.length),
        hold: random.pick([0, 50, 200]),
      }));
      const wrong: string[] = [];
      const work = async () => {
        for (let next = left.pop(); next !== undefined; next = left.pop()) {
          const answers = await answersTo(port, next);
          const what = foreign(answers.toString('latin1'));
          if (what !== undefined)
            wrong.push(`${JSON.stringify(next.sequence.toString('latin1').slice(0, 300))}: ${what}`);
        }
      };
      await Promise.all(Array.from({ length: atOnce }, work));
      t.deepEqual(wrong, []);

      const polite = await dial(port);
      polite.socket.write(`${post}Connection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n`);
      await polite.until(/100 Continue\r\n\r\n/);
      polite.socket.write('{}');
      const asked = await polite.until('end');
      t.deepEqual(
        [...asked.matchAll(/^HTTP\/1\.1 (\d)/gm)].map(([, status]) => status),
        ['1', '2'],
        asked,
      );

      // Whoever resets what Node has let go of.
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => {});
      await once(socket, 'connect');
      socket.write('CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n');
      await once(socket, 'data');
      socket.resetAndDestroy();

      const answer = await exchange(port, 'GET /v1/things/a');
      t.true(answer.status < 500, answer.text);
      t.is(stderr(), '');
      t.is(lines().filter(({ level }) => level === 'error' || Number(level) >= 50).length, 0);
      t.true(lines().some(({ msg, status }) => msg === 'what came was no request' && status === 400));
      t.true(lines().some(({ msg, status }) => msg === 'what came was no request' && status === 405));
    },
  );
}
