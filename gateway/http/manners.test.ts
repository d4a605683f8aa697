import { gunzipSync } from 'node:zlib';
import { Metadata } from '@grpc/grpc-js';
import test from 'ava';
import { loadConfig } from '#lib/config.ts';
import { HubError } from '#lib/errors.ts';
import { metricsSettings, serveMetrics } from '#lib/metrics.ts';
import { readinessOf } from '#lib/readiness.ts';
import { toStatus } from '#lib/rpc/status.ts';
import { content, failing, type EchoBackend } from '../../test/echo-backend.ts';
import { dial, exchange, fixture, type Answer, type Fixture } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';
import { settings } from '../index.ts';

const page = 'https://app.example';
const preflight = {
  origin: page,
  'access-control-request-method': 'DELETE',
  'access-control-request-headers': 'authorization,content-type',
};

function corsIn(headers: NodeJS.Dict<string | string[]>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => /^(access-control-|vary$)/.test(name)));
}

test('cors: without a setting no page is told that it may read anything', async (t) => {
  const { send } = await fixture(t);
  t.deepEqual(corsIn((await send('GET /v1/things/a', { headers: { origin: page } })).headers), {});
  const asked = await send('OPTIONS /v1/things/a', { headers: preflight });
  t.is(asked.status, 204);
  t.deepEqual(corsIn(asked.headers), {});
});

test('cors: the pages of the setting may read answers, errors too, and others may not', async (t) => {
  const { backend, send } = await fixture(t, { CORS_ORIGINS: `${page}, http://localhost:3000`, RATE_LIMIT: '5' });
  const from = (origin: string) => ({ headers: { origin } });
  const answer = await send('GET /v1/things/a', from(page));
  t.is(answer.headers['access-control-allow-origin'], page);
  t.regex(String(answer.headers['access-control-expose-headers']), /X-Request-ID/);
  t.is(answer.headers['vary'], 'Origin');
  t.false('access-control-allow-credentials' in answer.headers);
  const local = await send('GET /v1/nope', from('http://localhost:3000'));
  t.is(local.status, 404);
  t.is(local.headers['access-control-allow-origin'], 'http://localhost:3000');
  backend.handler = failing(new HubError('UNAUTHENTICATED', 'TOKEN_MISSING', 'Log in'));
  t.is((await send('GET /v1/things/a', from(page))).headers['access-control-allow-origin'], page);
  for (const origin of ['http://app.example', 'https://app.example.evil', 'https://app.example:8443', 'null', '*']) {
    const { headers } = await send('GET /health', from(origin));
    t.deepEqual(corsIn(headers), { vary: 'Origin' }, origin);
  }
  const tooMany = await eventually(
    'too many',
    () => send('GET /v1/things/a', from(page)),
    ({ status }) => status === 429,
  );
  t.is(tooMany.headers['access-control-allow-origin'], page);
});

test('cors: a preflight is told the methods of its path, and reaches no backend', async (t) => {
  const { backend, send } = await fixture(t, { CORS_ORIGINS: page });
  const { status, headers, text } = await send('OPTIONS /v1/things/a', { headers: preflight });
  t.is(status, 204);
  t.is(text, '');
  t.like(headers, {
    'access-control-allow-origin': page,
    'access-control-allow-methods': 'DELETE, GET, HEAD, OPTIONS, PURGE',
    'access-control-allow-headers': 'authorization,content-type',
    'access-control-max-age': '7200',
    vary: 'Origin, Access-Control-Request-Method, Access-Control-Request-Headers',
  });
  const stranger = await send('OPTIONS /v1/things/a', { headers: { ...preflight, origin: 'https://evil.example' } });
  t.deepEqual(corsIn(stranger.headers), { vary: 'Origin' });
  t.is((await send('OPTIONS /v1/nope', { headers: preflight })).status, 404);
  t.deepEqual(backend.calls, []);
});

test('cors: * lets every page read, and answers are the same for all', async (t) => {
  const { send } = await fixture(t, { CORS_ORIGINS: '*' });
  const { headers } = await send('GET /health', { headers: { origin: 'null' } });
  t.is(headers['access-control-allow-origin'], '*');
  t.false('vary' in headers);
  t.is((await send('OPTIONS /v1/things/a', { headers: preflight })).headers['access-control-allow-origin'], '*');
});

test('cors: what is no origin is refused as a setting', (t) => {
  for (const wrong of [
    'app.example',
    'https://app.example/',
    'https://App.example',
    'null',
    'file:///x',
    'https://*.a',
  ]) {
    t.throws(
      () => loadConfig({ CORS_ORIGINS: settings.CORS_ORIGINS }, { CORS_ORIGINS: wrong }),
      {
        message: /CORS_ORIGINS must be origins, or \*/,
      },
      wrong,
    );
  }
});

test('headers: every answer tells browsers to be careful with it, and to keep nothing', async (t) => {
  const { send } = await fixture(t);
  for (const line of ['GET /health', 'GET /v1/nope', 'POST /v1/everything', 'OPTIONS /v1/things/a', 'PUT /health']) {
    const { headers } = await send(line, { headers: { 'x-forwarded-proto': 'https' } });
    t.like(
      headers,
      {
        'x-content-type-options': 'nosniff',
        'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
        'referrer-policy': 'no-referrer',
        'cache-control': 'no-store',
      },
      line,
    );
    for (const absent of ['strict-transport-security', 'x-powered-by', 'server', 'set-cookie']) {
      t.false(absent in headers, `${line} ${absent}`);
    }
  }
});

test('headers: behind a proxy that ended TLS, browsers are told to come over TLS only', async (t) => {
  const { send } = await fixture(t, { TRUST_PROXY: '1' });
  const secure = await send('GET /health', { headers: { 'x-forwarded-proto': 'https' } });
  t.is(secure.headers['strict-transport-security'], 'max-age=31536000');
  const plain = await send('GET /health', { headers: { 'x-forwarded-proto': 'http' } });
  t.false('strict-transport-security' in plain.headers);
});

test('lookup: what the client has already is 304, and who may have it is asked each time', async (t) => {
  const { backend, send } = await fixture(t);
  const first = await send('GET /v1/things/a');
  const { etag = '' } = first.headers;
  t.regex(etag, /^"[\w-]{27}"$/);
  t.is(first.headers['cache-control'], 'private, no-cache');
  for (const known of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
    for (const method of ['GET', 'HEAD']) {
      const again = await send(`${method} /v1/things/a`, { headers: { 'if-none-match': known } });
      t.is(again.status, 304, known);
      t.is(again.text, '');
      t.is(again.headers.etag, etag);
      t.is(again.headers['cache-control'], 'private, no-cache');
      for (const absent of ['content-length', 'content-type', 'transfer-encoding'])
        t.false(absent in again.headers, absent);
    }
  }
  t.is(backend.calls.length, 9);
  t.is((await send('GET /v1/things/b', { headers: { 'if-none-match': etag } })).status, 200);
  t.is((await send('GET /v1/things/a', { headers: { 'if-none-match': '"x"' } })).status, 200);
  backend.handler = failing(new HubError('PERMISSION_DENIED', 'NOT_A_MEMBER', 'you are no member'));
  t.is((await send('GET /v1/things/a', { headers: { 'if-none-match': '*' } })).status, 403);
});

test('conditions: GET and HEAD heed If-Match before If-None-Match, and are 412 where it names another', async (t) => {
  const { backend, send } = await fixture(t);
  const { etag = '' } = (await send('GET /v1/things/a')).headers;
  for (const method of ['GET', 'HEAD']) {
    const status = async (headers: Record<string, string>) =>
      (await send(`${method} /v1/things/a`, { headers })).status;
    for (const met of [etag, '*', `"x", ${etag}`, `"x",${etag}`, etag.replace(/"$/, '-gzip"')]) {
      t.is(await status({ 'if-match': met }), 200, met);
      t.is(await status({ 'if-match': met, 'if-none-match': etag }), 304, met);
      t.is(await status({ 'if-match': met, 'if-none-match': '"x"' }), 200, met);
    }
    // A weak one matches nothing here (RFC 9110, 8.8.3.2).
    for (const other of ['"x"', `W/${etag}`, 'x', '', etag.slice(1, -1)]) {
      t.is(await status({ 'if-match': other }), 412, other);
      t.is(await status({ 'if-match': other, 'if-none-match': etag }), 412, other);
    }
    // Of times nothing is known.
    t.is(await status({ 'if-unmodified-since': 'Sat, 29 Oct 1994 19:43:31 GMT' }), 200);
    t.is(await status({ 'if-modified-since': 'Sat, 29 Oct 2044 19:43:31 GMT' }), 200);
  }
  t.like((await send('GET /v1/things/a', { headers: { 'if-match': '"x"' } })).json, {
    status: 412,
    error_code: 'PRECONDITION_FAILED',
  });
  backend.handler = failing(new HubError('NOT_FOUND', 'NOT_FOUND', 'no'));
  t.is((await send('GET /v1/things/a', { headers: { 'if-match': '"x"' } })).status, 404);
});

test('conditions: DELETE and PUT heed them where there is a GET, and reach the backend only if they are met', async (t) => {
  const { backend, send } = await fixture(t);
  for (const [path, change, options] of [
    ['/v1/things/a', 'DELETE', {}],
    ['/v1/bodies/a', 'PUT', { body: 'x' }],
  ] as const) {
    const { etag = '' } = (await send(`GET ${path}`)).headers;
    const changed = async (headers: Record<string, string>) => {
      backend.calls.length = 0;
      const { status } = await send(`${change} ${path}`, { headers, ...options });
      // The first call is the GET.
      return [status < 300 ? 'done' : status, backend.calls.length - 1];
    };
    const met: Record<string, string>[] = [{ 'if-match': etag }, { 'if-match': '*' }, { 'if-none-match': '"x"' }];
    for (const headers of met) t.deepEqual(await changed(headers), ['done', 1], JSON.stringify(headers));
    const unmet: Record<string, string>[] = [
      { 'if-match': '"x"' },
      { 'if-match': `W/${etag}` },
      { 'if-none-match': etag },
      { 'if-none-match': `W/${etag}` },
      { 'if-none-match': '*' },
      { 'if-match': etag, 'if-none-match': '*' },
      { 'if-match': '"x"', 'if-none-match': '"y"' },
    ];
    for (const headers of unmet) t.deepEqual(await changed(headers), [412, 0], JSON.stringify(headers));
  }
  // Where there is nothing, what would be answered without conditions is answered with them.
  backend.handler = failing(new HubError('NOT_FOUND', 'NOT_FOUND', 'no'));
  t.is((await send('DELETE /v1/things/a', { headers: { 'if-match': '"x"' } })).status, 404);
});

test('lookup: only GET and HEAD have an entity tag, and no error has', async (t) => {
  const { backend, send } = await fixture(t);
  for (const line of ['POST /v1/things/a:archive', 'PATCH /v1/nested/a', 'GET /v1/nope']) {
    const { headers } = await send(line, { headers: { 'if-none-match': '*', 'accept-encoding': 'gzip' } });
    t.false('etag' in headers, line);
    t.is(headers['cache-control'], 'no-store');
  }
  backend.handler = failing(new HubError('NOT_FOUND', 'NOT_FOUND', 'no'.repeat(2_000)));
  const missing = await send('GET /v1/things/a', { headers: { 'accept-encoding': 'gzip' } });
  t.false('etag' in missing.headers);
  t.false('content-encoding' in missing.headers);
});

const long = `text_value=${'a'.repeat(5_000)}`;

test('lookup: a long answer is compressed for whoever takes gzip, a short one is not', async (t) => {
  const { send } = await fixture(t);
  const asIs = await send(`GET /v1/everything?${long}`);
  t.false('content-encoding' in asIs.headers);
  t.is(asIs.headers['vary'], 'Accept-Encoding');
  const wanted = [
    'gzip',
    'x-gzip',
    'br;q=1, GZIP ; q=0.5',
    'deflate, *',
    'identity;q=0.1, gzip;q=0.101',
    'gzip, identity',
  ];
  for (const accepted of [...wanted, 'identity;q=0, *;q=0.1', 'gzip;q=0.001', 'gzip;q=1.000, *;q=0']) {
    const { headers, bytes } = await send(`GET /v1/everything?${long}`, { headers: { 'accept-encoding': accepted } });
    t.is(headers['content-encoding'], 'gzip', accepted);
    t.is(headers['content-length'], String(bytes.length));
    t.true(bytes.length < 1_000);
    t.is(gunzipSync(bytes).toString(), asIs.text);
    t.is(headers.etag, asIs.headers.etag?.replace(/"$/, '-gzip"'));
    t.is(headers['vary'], 'Accept-Encoding');
  }
  const refused = ['', 'br', 'gzip;q=0', 'gzip; q=0.000, *', '*;q=0', 'x', 'identity;q=0', 'gzip;q=0, identity;q=0'];
  for (const accepted of [...refused, 'gzip;q=0.5, identity', 'gzip;q=0.5, *', 'gzip;q=2', 'gzip;q=high', 'gzip;q=']) {
    const { headers, text } = await send(`GET /v1/everything?${long}`, { headers: { 'accept-encoding': accepted } });
    t.false('content-encoding' in headers, accepted);
    t.is(text, asIs.text);
  }
  const short = await send('GET /v1/things/a', { headers: { 'accept-encoding': 'gzip' } });
  t.false('content-encoding' in short.headers);
  t.false('vary' in short.headers);
  const only = await send('GET /v1/things/a', { headers: { 'accept-encoding': 'identity;q=0, gzip' } });
  t.is(only.headers['content-encoding'], 'gzip');
  t.is(only.headers['vary'], 'Accept-Encoding');
  t.is(gunzipSync(only.bytes).toString(), short.text);
});

test('lookup: HEAD has the headers of GET without its body, and no wrong length', async (t) => {
  const { send } = await fixture(t, { CORS_ORIGINS: page });
  for (const encoding of ['identity', 'gzip']) {
    const headers = { 'accept-encoding': encoding };
    const get = await send(`GET /v1/everything?${long}`, { headers });
    const head = await send(`HEAD /v1/everything?${long}`, { headers });
    t.is(head.text, '');
    const comparable = ({ date: _, 'x-request-id': _id, ratelimit: _left, ...others }: typeof get.headers) => others;
    const { 'content-length': length, ...expected } = comparable(get.headers);
    const { 'content-length': said = length, ...found } = comparable(head.headers);
    t.deepEqual(found, expected);
    t.is(said, length);
    t.is('content-length' in head.headers, encoding === 'identity');
    t.is(get.headers['vary'], 'Origin, Accept-Encoding');
  }
});

test('lookup: a file is not compressed, and for its head alone the backend is told to read nothing', async (t) => {
  const { backend, send } = await fixture(t);
  const file = await send('GET /v1/raw/a/content', { headers: { 'accept-encoding': 'gzip' } });
  t.false('content-encoding' in file.headers);
  t.is(file.text, 'hello');
  t.is((await send('HEAD /v1/raw/a/content')).headers['content-length'], '5');
  const told = backend.calls.map(({ metadata }) => metadata.get('x-head-only'));
  t.deepEqual(told, [[], ['1']]);
  const pretended = await send('GET /v1/raw/a/content', { headers: { 'grpc-metadata-x-head-only': '1' } });
  t.is(pretended.text, 'hello');
});

test('options: a path says what it takes, and so does the server as a whole', async (t) => {
  const { backend, gateway, send } = await fixture(t);
  const options = await send('OPTIONS /health');
  t.is(options.status, 204);
  t.is(options.headers.allow, 'GET, HEAD, OPTIONS');
  t.false('content-length' in options.headers);
  t.is((await send('OPTIONS /v1/nope')).status, 404);
  const { socket, until } = await dial(gateway.port);
  socket.write('OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  t.regex(await until('end'), /^HTTP\/1\.1 204 /);
  t.deepEqual(backend.calls, []);
});

for (const [what, line, headers, status, code] of [
  ['a path and query of over 8 KiB', `GET /v1/things/${'a'.repeat(8_200)}`, {}, 414, 'URI_TOO_LONG'],
  ['over 500 parameters', `GET /v1/everything?${'texts=&'.repeat(501)}`, {}, 400, 'TOO_MANY_PARAMETERS'],
  [
    'over 100 headers',
    'GET /health',
    Object.fromEntries(Array.from({ length: 101 }, (_, index) => [`x-${index}`, ''])),
    431,
    'HEADERS_TOO_LARGE',
  ],
] as const) {
  test(`sizes: ${what} is ${status}`, async (t) => {
    const { backend, send } = await fixture(t);
    const answer = await send(line, { headers });
    t.like(answer.json, { status, error_code: code });
    t.deepEqual(backend.calls, []);
  });
}

test('sizes: what is within all of them is served', async (t) => {
  const { backend, send } = await fixture(t);
  t.is((await send(`GET /v1/everything?${'texts=&'.repeat(499)}texts=`)).status, 200);
  t.is((await send(`GET /v1/things/${'a'.repeat(8_000)}`)).status, 200);
  t.is(backend.calls.length, 2);
});

async function logged({ lines }: Fixture, count: number): Promise<Record<string, unknown>[]> {
  return eventually(
    `${count} lines`,
    () => lines,
    ({ length }) => length >= count,
  );
}

test('log: a line says method, route, status and the bytes that were sent for it', async (t) => {
  const gateway = await fixture(t);
  const { socket, until } = await dial(gateway.gateway.port);
  const lengths: number[] = [];
  for (const [path, end] of [
    ['/v1/things/7?limit=1', /"text_value":"7"[^]*\}$/],
    ['/v1/raw/a/content', /hello$/],
    ['/v1/nope', /ROUTE_NOT_FOUND[^]*\}$/],
  ] as const) {
    const before = lengths.reduce((sum, length) => sum + length, 0);
    socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    await logged(gateway, lengths.length + 1);
    const text = await until(end);
    lengths.push(text.length - before);
  }
  socket.destroy();
  await gateway.send('POST /v1/things/secret');
  const [, , , fourth] = await logged(gateway, 4);
  t.like(fourth, { method: 'POST', route: '/v1/things/{text_value}', status: 405 });
  t.false('path' in fourth!);
  const [first, second, third] = gateway.lines;
  t.like(first, { method: 'GET', route: '/v1/things/{text_value}', status: 200, bytes: lengths[0] });
  t.like(second, { method: 'GET', route: '/v1/raw/{name}/content', status: 200, bytes: lengths[1] });
  t.like(third, { method: 'GET', path: '/v1/nope', status: 404, bytes: lengths[2] });
});

/** Trailers of a server of the hub. */
function saying(caller: string): Metadata {
  const trailers = new Metadata();
  trailers.set('x-caller-id', caller);
  return trailers;
}

/** A backend whose streams have one message, and say who is calling. */
function sendingOne(message: Buffer) {
  return (backend: EchoBackend) => {
    backend.sender = (call) => {
      call.write(message);
      call.end(saying('u1'));
    };
  };
}

test('log: whoever watches over the gateway leaves no line, and everybody else does', async (t) => {
  const gateway = await fixture(t);
  for (const path of ['/', '/health', '/live', '/ready', '/api/v1/health', '/api/v1/live', '/api/v1/ready'])
    await gateway.send(`GET ${path}`);
  await gateway.send('GET /health/x');
  await gateway.send('GET /openapi.json');
  const lines = await logged(gateway, 2);
  t.deepEqual(
    lines.map(({ route, path }) => route ?? path),
    ['/health/x', '/openapi.json'],
  );
});

test('metrics: what leads nowhere is counted as one, whatever path and method a client thinks up', async (t) => {
  const port = await serveMetrics(loadConfig(metricsSettings, { METRICS_PORT: '0' }), {
    isEnding: () => false,
    readiness: async () => readinessOf({ dependencies: {}, optional: {} }),
  });
  const gateway = await fixture(t);
  await gateway.send('GET /v1/thought-up');
  await gateway.send('PURGE /thought-up-too?x=1');
  await logged(gateway, 2);
  const { text } = await exchange(port!, 'GET /metrics');
  t.regex(text, /^chat4all_http_requests_total\{method="any",route="none",status="404"\} \d+$/m);
  t.false(text.includes('thought-up'));
});

test('log: a line says which user the backend found to be calling, whom nobody else is told', async (t) => {
  const { backend, lines, send } = await fixture(t);
  const missing = toStatus(new HubError('NOT_FOUND', 'NOT_FOUND', 'Not here'));
  missing.metadata?.set('x-caller-id', 'u2');
  backend.handler = (call, callback) => {
    if (backend.calls.length === 1) callback(null, call.request, saying('u1'));
    else callback({ ...missing });
  };
  const found = await send('GET /v1/things/a', { headers: { te: 'trailers', 'grpc-metadata-x-caller-id': 'evil' } });
  t.false(JSON.stringify(found.headers).includes('u1'));
  t.is((await send('GET /v1/things/a')).status, 404);
  await eventually(
    'two lines',
    () => lines.length,
    (count) => count === 2,
  );
  t.deepEqual(
    lines.map(({ user }) => user),
    ['u1', 'u2'],
  );
});

test('rate limit: all tokens of a user count together, once a backend has said whose they are', async (t) => {
  const { backend, send } = await fixture(t, { RATE_LIMIT: '50' });
  backend.handler = (call, callback) => {
    const [authorization] = call.metadata.get('authorization');
    callback(null, call.request, saying(authorization === 'Bearer other' ? 'u2' : 'u1'));
  };
  const as = (token: string) => send('GET /v1/things/a', { headers: { authorization: `Bearer ${token}` } });
  const left = ({ headers }: Answer) => Number(/;r=(\d+)/.exec(String(headers['ratelimit']))![1]);
  for (const token of ['one', 'two', 'other']) await as(token);
  // In the same second, unless that has just ended.
  const [first, second, other] = await eventually(
    'a second in which both come',
    async () => [await as('one'), await as('two'), await as('other')] as const,
    ([one, two]) => left(two) === left(one) - 1,
  );
  t.is(left(second), left(first) - 1);
  t.true(left(other) > left(second));
  t.is(first.headers['ratelimit-policy'], '"user";q=50;w=1');
});

for (const [what, line, answer] of [
  [
    'an upload',
    'PATCH /v1/raw/upload',
    (backend: EchoBackend) => {
      backend.receiver = ({ answer: end }) => {
        end(null, Buffer.alloc(0), saying('u1'));
        return true;
      };
    },
  ],
  ['a download', 'GET /v1/raw/a/content', sendingOne(content({ length: 0 }))],
  ['a stream of messages', 'GET /v1/streams/a', sendingOne(Buffer.alloc(0))],
] as const) {
  test(`rate limit: a token is known to be a user's after ${what}, too`, async (t) => {
    const { backend, send } = await fixture(t);
    answer(backend);
    const headers = { authorization: 'Bearer one' };
    const { status, headers: first } = await send(line, { headers });
    t.true(status < 300, String(status));
    t.regex(String(first['ratelimit-policy']), /^"address"/);
    const policy = await eventually(
      'what it counts for',
      async () => String((await send('GET /v1/things/a', { headers })).headers['ratelimit-policy']),
      (found) => found.startsWith('"user"'),
    );
    t.regex(policy, /^"user"/);
  });
}

test('rate limit: a token that is refused later counts for its address again', async (t) => {
  const { backend, send } = await fixture(t);
  const policy = async () => {
    const { headers } = await send('GET /v1/things/a', { headers: { authorization: 'Bearer one' } });
    return /^"(\w+)"/.exec(String(headers['ratelimit-policy']))?.[1];
  };
  const becomes = (expected: string) => eventually('what it counts for', policy, (found) => found === expected);
  backend.handler = (call, callback) => callback(null, call.request, saying('u1'));
  t.is(await policy(), 'address');
  await becomes('user');
  backend.handler = failing(new HubError('UNAUTHENTICATED', 'TOKEN_EXPIRED', 'Log in again'));
  t.is(await policy(), 'user');
  t.is(await becomes('address'), 'address');
});
