import { mkdtemp, rm } from 'node:fs/promises';
import { Agent, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { loadConfig } from '#lib/config.ts';
import { openLog } from '#lib/log.ts';
import { transportSettings } from '#lib/rpc/transport.ts';
import { descriptorSet, startEchoBackend, type EchoBackend } from '../../test/echo-backend.ts';
import { exchange, fixture } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';
import { foreignDescriptors } from '../../test/grpc-gateway/build.ts';
import { serveRaw } from '../../test/raw-http2.ts';
import { AllowList, requireFits } from './allow-list.ts';
import type { CallMetadata } from '../grpc/metadata.ts';
import { startStandalone } from '../standalone.ts';

type Dialect = 'hub' | 'alone';

/** A gateway that speaks a dialect, in front of a backend. */
async function open(t: ExecutionContext, dialect: Dialect, address?: string) {
  const backend = await startEchoBackend();
  t.teardown(() => backend.stop());
  const to = address ?? backend.address;
  if (dialect === 'hub') {
    const env = { BACKENDS: `transcoding.v1=${to}`, RATE_LIMIT: '0', REQUEST_TIMEOUT: '10m' };
    const { gateway } = await fixture(t, env, { uploadIdle: 600_000, downloadIdle: 600_000 });
    return { backend, port: gateway.port };
  }
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-metadata-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const descriptors = path.join(folder, 'descriptors.binpb');
  await foreignDescriptors(descriptorSet, descriptors);
  const log = openLog({ name: 'gateway', format: 'json', level: 'silent', destination: { write() {} } });
  const options = { descriptorSet: descriptors, backend: to, port: 0, host: '127.0.0.1', enumNames: 'proto' } as const;
  const gateway = await startStandalone(options, loadConfig(transportSettings, {}), log);
  t.teardown(() => gateway.stop());
  return { backend, port: gateway.port };
}

interface Kind {
  line: string;
  body?: string;
}

/** A request of each kind of call. */
const kinds: Record<Dialect, Kind[]> = {
  alone: [
    { line: 'GET /v1/things/a' },
    { line: 'POST /v1/everything', body: '{}' },
    { line: 'GET /v1/streams/a?count=1' },
    { line: 'POST /v1/streams:collect', body: '{"name":"a"}' },
    { line: 'POST /v1/streams:chat', body: '{"name":"a"}' },
  ],
  hub: [
    { line: 'GET /v1/things/a' },
    { line: 'POST /v1/everything', body: '{}' },
    { line: 'GET /v1/streams/a?count=1' },
    { line: 'POST /v1/streams:collect', body: '{"name":"a"}' },
    { line: 'POST /v1/streams:chat', body: '{"name":"a"}' },
    { line: 'PUT /v1/raw/upload?name=a', body: 'bytes' },
    { line: 'GET /v1/raw/a/content' },
  ],
};

/** Sends a request with headers as they are given, each of a list on a line of its own. @returns the status */
function send(port: number, agent: Agent, { line, body }: Kind, headers: readonly [string, string | string[]][]) {
  const [method, target] = line.split(' ');
  const type = line.includes('/raw/') ? 'application/octet-stream' : 'application/json';
  const all = [
    ['host', 'a'],
    ...(body === undefined
      ? []
      : [
          ['content-type', type],
          ['content-length', String(body.length)],
        ]),
    ...headers.flatMap(([name, values]) => [values].flat().map((value) => [name, value])),
  ] as [string, string][];
  return new Promise<{ status: number; text: string }>((resolve, reject) => {
    const request = httpRequest(
      { port, host: '127.0.0.1', method, path: target, agent, headers: all.flat() },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
        response.on('error', reject);
        response.on('end', () => resolve({ status: response.statusCode as number, text }));
      },
    );
    request.on('error', reject);
    request.end(body);
  });
}

/** A transfer on each of the connections to the backend, which everybody shares. */
async function transfers(t: ExecutionContext, backend: EchoBackend, port: number) {
  let answer: (() => void) | undefined;
  backend.handler = (call, callback) => {
    answer = () => backend.echo(call, callback);
  };
  const unary = exchange(port, 'GET /v1/things/honest');
  await eventually('the call is there', () => answer, Boolean);
  backend.handler = undefined;
  const already = backend.calls.length;
  const upload = httpRequest({ port, host: '127.0.0.1', method: 'POST', path: '/v1/streams:collect', agent: false });
  const collected = new Promise<string>((resolve, reject) => {
    upload.on('error', reject);
    upload.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
      response.on('error', reject);
      response.on('end', () => resolve(text));
    });
  });
  collected.catch(() => {});
  upload.setHeader('content-type', 'application/json');
  upload.write('{"name":"first"}');
  await eventually('the stream is there', () => backend.calls.length > already, Boolean);
  return async () => {
    upload.end('{"name":"last"}');
    t.regex(await collected, /first.*last/s);
    answer?.();
    t.is((await unary).status, 200);
  };
}

const forbidden = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
  'te',
  'trailer',
  'http2-settings',
  'content-length',
  'host',
  'content-type',
  'user-agent',
  '__proto__',
  'grpc-encoding',
  'grpc-accept-encoding',
  'grpc-timeout',
  'grpc-status',
  'grpc-trace-bin',
];
/** Of these HTTP knows one value, or what every object has. */
const peculiar = [
  'authorization',
  'date',
  'range',
  'if-match',
  'cookie',
  'set-cookie',
  'constructor',
  'expect',
  'priority',
];
const values = ['close', 'trailers', '0', '7', 'Upgrade', 'AAMAAABkAAQ'];

for (const dialect of ['hub', 'alone'] as const) {
  test(`${dialect}: no header of a client ends the calls of others, whatever it becomes`, async (t) => {
    const { backend, port } = await open(t, dialect);
    const agent = new Agent({ keepAlive: true, maxSockets: 20 });
    t.teardown(() => agent.destroy());
    const finish = await transfers(t, backend, port);
    const told = backend.calls.length;
    for (const kind of kinds[dialect]) {
      for (const name of [...forbidden, ...peculiar]) {
        for (const value of [values[0]!, values[1]!, [...values]]) {
          const { status, text } = await send(port, agent, kind, [[`Grpc-Metadata-${name}`, value]]);
          // Bytes have to be base64 where they are passed on.
          t.true(status < 300, `${kind.line} ${name}: ${status} ${text}`);
        }
      }
    }
    for (const { metadata } of backend.calls.slice(told)) {
      for (const name of forbidden) {
        const seen = metadata
          .get(name)
          .map(String)
          .filter((value) => values.includes(value) && name !== 'te');
        t.deepEqual(seen, [], name);
      }
    }
    await finish();
  });

  test(`${dialect}: a thousand of them don't make the backend hang up`, async (t) => {
    const { backend, port } = await open(t, dialect);
    const agent = new Agent({ keepAlive: true, maxSockets: 20 });
    t.teardown(() => agent.destroy());
    const finish = await transfers(t, backend, port);
    const asked = Array.from({ length: 1_200 }, (_, index) =>
      send(port, agent, { line: 'GET /v1/things/a' }, [[`Grpc-Metadata-${forbidden[index % 10]}`, 'close']]),
    );
    for (const { status } of await Promise.all(asked)) t.is(status, 200);
    await finish();
  });

  test(`${dialect}: what is no base64, not ASCII, too much or no address harms its own request alone`, async (t) => {
    const { backend, port } = await open(t, dialect);
    const agent = new Agent({ keepAlive: true });
    t.teardown(() => agent.destroy());
    const finish = await transfers(t, backend, port);
    const isHub = dialect === 'hub';
    const many = Array.from({ length: 101 }, (_, index) => [`Grpc-Metadata-${index}`, 'v'] as [string, string]);
    const cases: [[string, string | string[]][], number][] = [
      [[['Grpc-Metadata-X-Bin', '!']], 400],
      [[['Grpc-Metadata-X-Bin', 'AQI']], 200],
      [[['Grpc-Metadata-X-Bin', ['AQI=', 'AQM']]], 200],
      [[['Grpc-Metadata-X-Bin', 'A']], 400],
      [[['Grpc-Metadata-X-Bin', 'AQ==AQ==']], 400],
      [[['Grpc-Metadata-X!Y', 'a']], isHub ? 400 : 200],
      [[['Grpc-Metadata-', 'a']], isHub ? 400 : 200],
      [[['Grpc-Metadata-X', '\u00e9']], isHub ? 400 : 200],
      [[['Grpc-Metadata-X', 'a\tb']], isHub ? 400 : 200],
      [[['Grpc-Metadata-X', ['a', '']]], 200],
      [
        [
          ['X-Forwarded-For', '\u00e9'],
          ['X-Forwarded-Host', '\u00e9'],
          ['X-Forwarded-Proto', '\u00e9'],
        ],
        200,
      ],
      [[['Authorization', 'Bearer \u00e9']], isHub ? 401 : 200],
      [[['Authorization', ['Bearer a', 'Bearer b']]], isHub ? 400 : 200],
      [[['Authorization', `Bearer ${'a'.repeat(12_000)}`]], 200],
      [[['Grpc-Metadata-X', 'a'.repeat(12_000)]], 200],
      [many.slice(0, 90), 200],
      [many, 431],
    ];
    for (const kind of kinds[dialect]) {
      for (const [headers, expected] of cases) {
        const { status, text } = await send(port, agent, kind, headers);
        const title = `${kind.line} ${JSON.stringify(headers).slice(0, 100)} ${text}`;
        t.is(Math.floor(status / 100) === 2 ? 200 : status, expected, title);
        if (expected === 400) t.regex(text, /grpc-metadata-|Authorization/i, title);
      }
    }
    await finish();
  });

  test(`${dialect}: metadata that is more than the backend takes is refused, and never sent`, async (t) => {
    const server = await serveRaw(t, (request) => request.fields({ ':status': '200', 'grpc-status': '5' }, 'end'), [
      [0x6, 8_192],
    ]);
    const { port } = await open(t, dialect, server.address);
    const agent = new Agent({ keepAlive: true });
    t.teardown(() => agent.destroy());
    for (const kind of kinds[dialect]) {
      const before = server.requests;
      const small = await send(port, agent, kind, [['Grpc-Metadata-X', 'a'.repeat(6_000)]]);
      t.is(small.status, 404, small.text);
      t.is(server.requests, before + 1);
      const large = await send(port, agent, kind, [['Grpc-Metadata-X', 'a'.repeat(8_000)]]);
      t.is(large.status, 431, large.text);
      t.regex(large.text, /HEADERS_TOO_LARGE/);
      t.is(server.requests, before + 1);
    }
    t.is(server.sockets.length <= 3, true, 'a connection for unary calls, one for streams, one for health');
  });

  test(`${dialect}: what a backend says that HTTP forbids harms its own call alone`, async (t) => {
    let trailers: Record<string, string> = {};
    const server = await serveRaw(t, (request) => {
      if (Object.keys(trailers).length === 0) return;
      request.fields({ ':status': '200', 'content-type': 'application/grpc' });
      request.data(Buffer.alloc(5));
      request.fields({ 'grpc-status': '0', ...trailers }, 'end');
    });
    const { port } = await open(t, dialect, server.address);
    const agent = new Agent({ keepAlive: true });
    t.teardown(() => agent.destroy());
    const asked = kinds[dialect].filter(({ line }) => /things|streams\/a/.test(line));
    for (const kind of asked) {
      const honest = send(port, agent, kind, []);
      await eventually('the honest call is there', () => server.requests, Boolean);
      const wrong = [
        ...['X-Upper', 'x y', 'x\r\ny', 'x:y', 'x\u00e9', 'x"'].map((name) => ({ [name]: 'a' })),
        ...['a\r\nSet-Cookie: b', 'a\nb', 'a\0b', 'a\u0001b', 'a\u007f', '\u00e9', ' a '].map((value) => ({
          'x-a': value,
        })),
      ];
      for (trailers of wrong) {
        const { status } = await send(port, agent, kind, [['TE', 'trailers']]);
        t.true([200, 500, 503].includes(status), `${kind.line} ${JSON.stringify(trailers)} ${status}`);
      }
      trailers = { 'x-a': 'right' };
      t.is((await send(port, agent, kind, [['TE', 'trailers']])).status, 200);
      t.is(server.sockets.filter(({ destroyed }) => destroyed).length, 0);
      honest.catch(() => {});
      trailers = {};
    }
  });
}

test('AllowList: names and values', (t) => {
  const list = new AllowList(/^mine$/, 'refused');
  const add = (name: string, value: string, to: CallMetadata = {}) => {
    list.add(to, name, value, `grpc-metadata-${name}`);
    return to;
  };
  for (const name of [...forbidden, 'mine', 'grpc-x']) t.deepEqual(add(name, 'a'), {}, name);
  for (const name of ['x', '0', 'a.b-c_d', 'authorization', 'constructor'])
    t.deepEqual({ ...add(name, 'a') }, { [name]: 'a' });
  for (const value of ['', 'a', 'a b', '~', '!']) t.deepEqual(add('x', value), { x: value });
  for (const name of ['', 'A', 'a b', 'a:b', ':path', 'a\u00e9', 'a!']) {
    t.throws(() => add(name, 'a'), { message: /grpc-metadata-/ }, name);
  }
  for (const value of [' a', 'a ', ' ', 'a\tb', 'a\u00e9', 'a\n', 'a\0', '\u007f']) {
    t.throws(() => add('x', value), { message: /grpc-metadata-x / }, JSON.stringify(value));
  }
  for (const value of ['', 'AQ', 'AQ==', 'AQI', 'AQI=', 'AQID']) t.deepEqual(add('x-bin', value), { 'x-bin': value });
  for (const value of ['A', 'AQ=', 'A===', 'AQI==', '=', 'A-_I', 'AQ ==', 'AQ==AQ==', '\u00e9']) {
    t.throws(() => add('x-bin', value), { message: /grpc-metadata-x-bin must be base64/ }, value);
  }
  t.deepEqual(add('x', 'b', add('x', 'a')), { x: ['a', 'b'] });
  t.deepEqual(add('constructor', 'b', add('constructor', 'a')), { constructor: ['a', 'b'] } as unknown as CallMetadata);
  t.deepEqual(add('date', 'b', add('date', 'a')), { date: 'a' });
  const lenient: CallMetadata = {};
  for (const [name, value] of [
    ['A', 'a'],
    ['x', '\u00e9'],
  ] as const)
    new AllowList(/^$/, 'left out').add(lenient, name, value, name);
  t.deepEqual(lenient, {});
  // Nothing of it is tedious to look at.
  for (const text of [' '.repeat(50_000), `a${' '.repeat(50_000)}\u00e9`, `${'a '.repeat(50_000)}\u00e9`]) {
    const began = performance.now();
    t.throws(() => add('x', text));
    t.throws(() => add('x-bin', text));
    t.true(performance.now() - began < 1_000);
  }
});

test('requireFits: as many values and bytes as the server takes, and no more than any takes', (t) => {
  const fits = (metadata: CallMetadata, taken = Infinity) => t.notThrows(() => requireFits(metadata, taken));
  const isTooMuch = (metadata: CallMetadata, taken = Infinity) =>
    t.like(
      t.throws(() => requireFits(metadata, taken)),
      { status: 431, code: 'HEADERS_TOO_LARGE' },
    );
  fits({});
  fits({ x: Array.from({ length: 100 }, () => 'a') });
  isTooMuch({ x: Array.from({ length: 101 }, () => 'a') });
  fits({ x: 'a'.repeat(40_000) });
  isTooMuch({ x: 'a'.repeat(50_000) });
  isTooMuch({ x: ['a'.repeat(30_000), 'a'.repeat(30_000)] });
  fits({ x: 'a'.repeat(7_000) }, 8_192);
  isTooMuch({ x: 'a'.repeat(7_200) }, 8_192);
});

test('alone: of a field that Node sends only once the first value counts', async (t) => {
  const { backend, port } = await open(t, 'alone');
  const agent = new Agent({ keepAlive: true });
  t.teardown(() => agent.destroy());
  const names = `access-control-allow-credentials access-control-max-age access-control-request-method age authorization
    content-encoding content-language content-location content-md5 content-range date dnt etag expires from if-match
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards proxy-authorization range
    referer retry-after tk upgrade-insecure-requests x-content-type-options`.split(/\s+/);
  for (const name of names) {
    const { status, text } = await send(port, agent, { line: 'GET /v1/streams/a?count=1' }, [
      [`Grpc-Metadata-${name}`, ['1', '2']],
    ]);
    t.is(status, 200, `${name} ${text}`);
    t.deepEqual(backend.calls.at(-1)!.metadata.get(name), ['1'], name);
  }
});
