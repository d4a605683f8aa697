import type { IncomingMessage, ServerResponse } from 'node:http';
import type { JsonValue } from '@bufbuild/protobuf';
import test, { type ExecutionContext } from 'ava';
import { content, registry } from '../../test/echo-backend.ts';
import { dial, fixture, type Fixture } from '../../test/echo-gateway.ts';
import { isJson, mediaType } from './media-type.ts';
import { trailersFor } from '../calls/call.ts';
import { hubDialect } from '../dialects/hub/dialect.ts';
import { safeFilename } from '../calls/download-head.ts';
import { grpcGatewayDialect } from '../dialects/grpc-gateway/dialect.ts';
import { requestIdOf } from '#lib/tracing.ts';
import { hasTarget, targetOf } from './request-target.ts';
import { boundaryIn } from './multipart-form.ts';
import { judge } from './preconditions.ts';
import { codingFor } from './conditional-get.ts';
import { Reading } from '../json/reading.ts';
import { messageType } from '../json/schema.ts';
import { readQuery } from '../dialects/grpc-gateway/query.ts';

/** Requests that are meant to hurt: each is answered as it should, and the gateway serves the next one as if nothing were. */
async function unharmed(t: ExecutionContext, { send }: Fixture): Promise<void> {
  t.is((await send('GET /v1/things/a')).status, 200);
}

/** JSON of about a MiB that costs as much as JSON can. */
const bombs: Readonly<Record<string, (count: number) => string>> = {
  'lists in lists': (count) => '['.repeat(count / 2) + ']'.repeat(count / 2),
  'objects in objects': (count) => `${'{"a":'.repeat(count / 6)}1${'}'.repeat(count / 6)}`,
  'lists in a field that takes any JSON': (count) =>
    `{"extra":${'{"a":['.repeat(count / 8)}1${']}'.repeat(count / 8)}}`,
  'messages in messages': (count) => `${'{"children":[{"children":['.repeat(count / 40)}${']}]}'.repeat(count / 40)}`,
  'very many empty messages': (count) => `{"children":[${'{},'.repeat(count / 3)}{}]}`,
  'very many wrong values': (count) => `{"numbers":[${'"x",'.repeat(count / 4)}1]}`,
  'very many wrong keys': (count) =>
    `{"nested_by_id":{${Array.from({ length: count / 12 }, (_, index) => `"k${index}":{}`).join(',')}}}`,
  'very many unknown fields': (count) =>
    `{${Array.from({ length: count / 12 }, (_, index) => `"k${index}":1`).join(',')}}`,
  'a number of very many digits': (count) => `{"int64_value":${'9'.repeat(count)},"extra":{"a":1234567890123456}}`,
  'a very long string of escapes': (count) => String.raw`{"text_value":"${'\\u0000'.repeat(count / 6)}"}`,
  'numbers that are no numbers': (count) => `{"numbers":[${'1e999,'.repeat(count / 6)}1]}`,
};

/** Those that say nothing wrong. */
const harmless = new Set(['very many empty messages', 'very many unknown fields', 'a very long string of escapes']);

for (const [what, bomb] of Object.entries(bombs)) {
  // One after another: together they would keep this process from everything else that is measured in it.
  test.serial(`json: ${what} harm nobody`, async (t) => {
    const gateway = await fixture(t, { RATE_LIMIT: '0', REQUEST_TIMEOUT: '60s' });
    // An echo of very many messages with all their fields would be the test's own bomb.
    gateway.backend.handler = (_call, callback) => callback(null, Buffer.alloc(0));
    const body = bomb(1_000_000);
    t.true(body.length < 1024 ** 2, String(body.length));
    const bodies = [body, body, body];
    const answers = await Promise.all(bodies.map((each) => gateway.send('POST /v1/everything', { body: each })));
    for (const { status, bytes } of answers) {
      t.is(status, harmless.has(what) ? 201 : 400);
      // What is wrong is not told a thousand times.
      if (status === 400) t.true(bytes.length < 100_000, String(bytes.length));
    }
    await unharmed(t, gateway);
  });
}

test('json: names of what every object has are only names', async (t) => {
  const gateway = await fixture(t);
  const { backend, send } = gateway;
  const poison = '{"polluted":"yes"}';
  for (const body of [
    `{"__proto__":${poison}}`,
    `{"constructor":{"prototype":${poison}}}`,
    `{"nested":{"__proto__":{"name":"x"}}}`,
    `{"nested":{"toString":"x","hasOwnProperty":1,"valueOf":null}}`,
  ]) {
    const answer = await send('POST /v1/everything', { body });
    t.is(answer.status, 201, answer.text);
    t.deepEqual((answer.json['nested'] as { name?: string } | null)?.name ?? '', '');
  }
  const kept = '{"labels":{"__proto__":"a","constructor":"b"},"extra":{"__proto__":{"x":1},"y":[{"__proto__":2}]}}';
  const answer = await send('POST /v1/everything', { body: kept });
  t.is(answer.status, 201, answer.text);
  for (const part of ['"__proto__":"a"', '"constructor":"b"', '"__proto__":{"x":1}', '{"__proto__":2}']) {
    t.true(answer.text.includes(part), part);
  }
  const { labels } = backend.calls.at(-1)!.request as { labels: Record<string, JsonValue> };
  t.deepEqual(Object.entries(labels), [
    ['__proto__', 'a'],
    ['constructor', 'b'],
  ]);
  t.is(({} as { polluted?: string }).polluted, undefined);
  t.is(Object.keys(Object.prototype).length, 0);
});

test('query: names of what every object has are only names', async (t) => {
  const { backend, send } = await fixture(t);
  const query = [
    '__proto__[polluted]=yes',
    '__proto__.polluted=yes',
    'constructor.prototype.polluted=yes',
    'nested.__proto__.polluted=yes',
    'labels[__proto__]=a',
    'labels[constructor]=b',
    'labels[a][b]=c',
    'toString=x',
    'length=7',
  ].join('&');
  const answer = await send(`GET /v1/everything?${query}`);
  t.is(answer.status, 200, answer.text);
  t.true(answer.text.includes('"__proto__":"a"'));
  t.deepEqual(Object.keys(backend.calls[0]!.request as object), ['labels']);
  t.is(({} as { polluted?: string }).polluted, undefined);
});

test('header: names of what every object has are only names', async (t) => {
  const { backend, send } = await fixture(t);
  const headers = { __proto__: 'x', 'grpc-metadata-__proto__': 'y', 'grpc-metadata-constructor': 'z' };
  const raw = Object.fromEntries(Object.entries(headers));
  t.is((await send('GET /v1/things/a', { headers: raw })).status, 200);
  t.deepEqual(backend.calls[0]?.metadata.get('constructor'), ['z']);
});

for (const path of [
  '/docs/../../../../etc/passwd',
  '/docs/..%2f..%2f..%2fetc%2fpasswd',
  '/docs/%2e%2e/%2e%2e/package.json',
  '/docs/..%5c..%5cpackage.json',
  '/docs/__proto__',
  '/docs/constructor',
  '/docs/start.js%00.png',
  '/redoc/%2e%2e%2fdocs%2fstart.js',
  '//etc/passwd',
  '/../etc/passwd',
  '/%2e%2e/package.json',
  '/v1/../health',
  '/.env',
  '/docs/swagger-ui.css/',
]) {
  test(`path: ${path} leads nowhere`, async (t) => {
    const { backend, gateway } = await fixture(t);
    const { socket, until } = await dial(gateway.port);
    socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    const answer = await until('end');
    t.regex(answer, /^HTTP\/1\.1 404 /);
    t.regex(answer, /ROUTE_NOT_FOUND/);
    t.deepEqual(backend.calls, []);
  });
}

test('path: what climbs up or holds a NUL is a value like others, and reaches the backend as it is', async (t) => {
  const { backend, send } = await fixture(t);
  for (const value of ['..%2F..%2Fetc', '%2e%2e', 'a%00b', '%0d%0aX%3a%20y', '%F0%9F%9A%80']) {
    t.is((await send(`GET /v1/things/${value}`)).status, 200, value);
    t.deepEqual(backend.calls.at(-1)?.request, { textValue: decodeURIComponent(value) });
  }
  for (const wrong of ['%', '%f', '%c0%ae', '%ff', '%ed%a0%80']) {
    t.is((await send(`GET /v1/things/${wrong}`)).json['error_code'], 'MALFORMED_PATH', wrong);
  }
});

/** Texts on which patterns go back and forth that can match in more ways than one. */
const tedious = [' ', '"', 'a', ',', ';', '; ', '/', '.', ':', '-', '0', 'q=0', '" ,', 'W/"', '[', '=', '%'];
/** Milliseconds for what takes one or two, or minutes if it goes back and forth. */
const patience = 3_000;

/** What reads a text of a client's or a backend's making, by what that is. */
const readers: Readonly<Record<string, (text: string) => unknown>> = {
  'if-none-match': (text) => judge('GET', { 'if-none-match': text }, { opaque: ['x'], isWeak: true }),
  'boundary of a form': (text) => boundaryIn(`multipart/form-data; ${text}`),
  'accept-encoding': (text) => codingFor(text, ['br', 'gzip']),
  'content-type': (text) => [mediaType(text), isJson(text), isJson(`application/${text}`)],
  'x-request-id': (text) => requestIdOf(text, undefined),
  traceparent: (text) => requestIdOf(undefined, text),
  'grpc-timeout': (text) =>
    outcome(() => [hub.timeoutOf({ 'grpc-timeout': text }, 1), strict.timeoutOf({ 'grpc-timeout': text }, 1)]),
  authorization: (text) => outcome(() => hub.metadataOf(requestWith('authorization', text), answer)),
  'grpc-metadata-x': (text) => outcome(() => hub.metadataOf(requestWith('grpc-metadata-x', text), answer)),
  'grpc-metadata-x-bin': (text) => outcome(() => strict.metadataOf(requestWith('grpc-metadata-x-bin', text), answer)),
  host: (text) =>
    outcome(() => [
      hub.metadataOf(requestWith('host', text), answer),
      strict.metadataOf(requestWith('host', text), answer),
    ]),
  te: (text) => trailersFor(requestWith('te', text), {}),
  'a target': (text) => [hasTarget(requestWith('x', 'x', text)), targetOf(text), targetOf(`a://${text}`)],
  'a filename': (text) => safeFilename(text),
  'a key in a query': (text) => fieldsIn(`${text}[${text}]=1`),
};

const strict = grpcGatewayDialect(registry, 'proto');
const hub = hubDialect(registry);
const answer = { getHeader: () => 'x' } as unknown as ServerResponse;

function requestWith(name: string, value: string, url = '/'): IncomingMessage {
  return {
    method: 'GET',
    url,
    headers: { [name]: value },
    rawHeaders: [name, value],
    socket: {},
    host: value,
  } as never;
}

/** A refusal is as good as anything: it is about the time. */
function outcome(work: () => unknown): unknown {
  try {
    return work();
  } catch (error) {
    return error;
  }
}

function fieldsIn(query: string): Reading {
  const reading = new Reading();
  const input = messageType(registry.getMessage('transcoding.v1.Everything')!);
  readQuery({ input, variables: [], body: 'none', bodyPath: [] } as never, query, new Map(), reading);
  return reading;
}

for (const [what, read] of Object.entries(readers)) {
  test.serial(`patterns: ${what} is not tedious to read`, (t) => {
    for (const text of tedious) {
      for (const end of ['', '!', '\n', ']']) {
        const long = text.repeat(200_000 / text.length) + end;
        const began = performance.now();
        read(long);
        const took = performance.now() - began;
        t.true(took < patience, `${JSON.stringify(text)} ${JSON.stringify(end)}: ${took} ms`);
      }
    }
  });
}

test.serial('patterns: no header is tedious to read for whatever else reads it', async (t) => {
  const gateway = await fixture(t, { CORS_ORIGINS: 'https://app.example', TRUST_PROXY: '1', RATE_LIMIT: '0' });
  const names = [
    'accept-encoding',
    'if-none-match',
    'authorization',
    'content-type',
    'origin',
    'x-request-id',
    'x-forwarded-for',
    'x-forwarded-host',
    'x-forwarded-proto',
    'grpc-timeout',
    'te',
    'range',
    'content-digest',
  ];
  for (const name of names) {
    for (const text of tedious) {
      const value = `${text.repeat(14_000 / text.length).trim() || 'x'}!`;
      const before = process.cpuUsage();
      const { status, text: body } = await gateway.send('GET /v1/things/a', { headers: { [name]: value } });
      t.true(status < 500, body);
      const { user } = process.cpuUsage(before);
      t.true(user < patience * 1_000, `${name} ${JSON.stringify(text)}: ${user} µs of CPU`);
    }
  }
  await unharmed(t, gateway);
});

test('patterns: neither names nor types of a backend are tedious to read', async (t) => {
  const { backend, send } = await fixture(t);
  for (const text of tedious) {
    backend.sender = (call) => {
      call.write(content({ contentType: `text/plain${text.repeat(5_000)}\n`, filename: text.repeat(200), length: 0 }));
      call.end();
    };
    const began = performance.now();
    t.is((await send('GET /v1/raw/a/content')).headers['content-type'], 'application/octet-stream', text);
    t.true(performance.now() - began < 2 * patience, text);
  }
});

test('query: a parameter very often, or with a very long path, is read to its end or named once', async (t) => {
  const { backend, send } = await fixture(t);
  const once = ['must be given once'];
  for (const [query, expected] of [
    ['texts=a&'.repeat(499), { texts: Array.from({ length: 499 }, () => 'a') }],
    ['&'.repeat(400), {}],
    ['nested.name=a&'.repeat(400), { 'nested.name': once }],
    ['labels[a]=b&'.repeat(400), { labels: { a: 'b' } }],
    [`${'children.'.repeat(800)}name=a`, {}],
  ] as const) {
    const { status, json } = await send(`GET /v1/everything?${query}`);
    const found = status === 200 ? backend.calls.at(-1)!.request : json['field_errors'];
    t.deepEqual(found, expected, query.slice(0, 50));
  }
});

test('headers: one that is folded, doubled or splits the answer is no use', async (t) => {
  const { backend, gateway } = await fixture(t);
  for (const [head, status] of [
    ['X-Request-ID: a\r\n b\r\n', 400],
    ['Authorization: Bearer a\r\nAuthorization: Bearer b\r\n', 400],
    ['Content-Length: 0\r\nContent-Length: 5\r\n', 400],
    ['Transfer-Encoding: chunked, identity\r\n', 400],
    ['Transfer-Encoding: xchunked\r\n', 501],
    ['Content-Length: +1\r\n', 400],
    ['Content-Length : 1\r\n', 400],
    ['X: a\x00b\r\n', 400],
    ['X-Request-ID: a%0d%0aSet-Cookie: b\r\n', 200],
    ['Upgrade: h2c\r\nHTTP2-Settings: AA\r\n', 200],
  ] as const) {
    const { socket, until } = await dial(gateway.port);
    socket.write(`GET /v1/things/a HTTP/1.1\r\nHost: a\r\n${head}Connection: close\r\n\r\n`);
    const answer = await until('end');
    t.regex(answer, new RegExp(`^HTTP/1.1 ${status} `), head);
    t.false(/^set-cookie/im.test(answer));
  }
  t.true(backend.calls.every(({ metadata }) => metadata.get('authorization').length === 0));
});
