import { Metadata, status } from '@grpc/grpc-js';
import test from 'ava';
import { ConfigError, loadConfig } from '#lib/config.ts';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { descriptorSet, failing, failingBare, startEchoBackend, type EchoCall } from '../test/echo-backend.ts';
import { fixture, type Answer, type Send } from '../test/echo-gateway.ts';
import { eventually } from '../test/eventually.ts';
import { settings, start } from './index.ts';

test('body "*": the whole request is in the body, the success status is the one in the proto', async (t) => {
  const { backend, send } = await fixture(t);
  const answer = await send('POST /v1/everything?int32_value=9', {
    body: { textValue: 'é', int64_value: 5, color: 'red' },
  });
  t.is(answer.status, 201);
  t.is(answer.headers['content-type'], 'application/json');
  t.like(answer.json, { text_value: 'é', int64_value: 5, color: 'red', int32_value: 0, texts: [], created_at: null });
  t.deepEqual(backend.calls[0]?.request, { textValue: 'é', int64Value: '5', color: 'COLOR_RED' });
});

test('body "*": an empty body is an empty message', async (t) => {
  const { backend, send } = await fixture(t);
  t.is((await send('POST /v1/everything')).status, 201);
  t.is((await send('POST /v1/everything', { body: '' })).status, 201);
  t.deepEqual(
    backend.calls.map((call) => call.request),
    [{}, {}],
  );
});

test('query: every field that may be text, nested, repeated, in either spelling', async (t) => {
  const { backend, send } = await fixture(t);
  const query = [
    'textValue=a+b%20c%2B',
    'nested.name=n',
    'nested.inner.count=-3',
    'nested.inner.tags=x',
    'nested.inner.tags=y',
    'texts=1',
    'texts=2',
    'numbers=7',
    'color=deep_blue',
    'colors=1',
    'colors=COLOR_DEEP_BLUE',
    'labels[a]=b',
    'labels[c%20d]=',
    'colorByFlag[true]=red',
    'limit=0',
    'flag=true',
    'maybe_text=',
    'created_at=2024-01-02T03:04:05Z',
    'lasts=1.5s',
    'mask=a_b,c.dE',
    'times=2024-01-01T00:00:00Z',
    'by_number=12',
    'bytes_value=-_8',
    'extra={"a":[1]}',
    'unknown=1',
    'nested.unknown=1',
    'bool_value=1',
    'nickname',
    '',
  ].join('&');
  const answer = await send(`GET /v1/everything?${query}`);
  t.is(answer.status, 200, answer.text);
  t.deepEqual(backend.calls[0]?.request, {
    textValue: 'a b c+',
    nested: { name: 'n', inner: { count: -3, tags: ['x', 'y'] } },
    texts: ['1', '2'],
    numbers: [7],
    color: 'COLOR_DEEP_BLUE',
    colors: ['COLOR_RED', 'COLOR_DEEP_BLUE'],
    labels: { a: 'b', 'c d': '' },
    colorByFlag: { true: 'COLOR_RED' },
    limit: 0,
    flag: true,
    maybeText: '',
    createdAt: '2024-01-02T03:04:05Z',
    lasts: '1.500s',
    mask: 'aB,c.dE',
    times: ['2024-01-01T00:00:00Z'],
    byNumber: '12',
    bytesValue: '+/8=',
    extra: { a: [1] },
    boolValue: true,
    nickname: '',
  });
});

test('query: every wrong parameter is named as it was sent', async (t) => {
  const { send } = await fixture(t);
  const query =
    'int32Value=x&limit=&nested.inner.count=1.5&color=green&texts=ok&numbers=1&numbers=b&text_value=a&textValue=b' +
    '&created_at=now&nested=x&children=y&by_name=a&byNumber=1&maybeText=%ff&labels[a]=1&nested_by_id[1]=x&flag=yes';
  const answer = await send(`GET /v1/everything?${query}`);
  t.is(answer.status, 400);
  const number = ['must be a whole number'];
  t.deepEqual(answer.json['field_errors'], {
    int32Value: number,
    limit: number,
    'nested.inner.count': number,
    color: ['must be one of red, deep_blue'],
    numbers: number,
    textValue: ['must be given once'],
    created_at: ['must be an RFC 3339 time'],
    nested: ['must be given by its fields, each a parameter of its own'],
    children: ['must be given by its fields, each a parameter of its own'],
    byNumber: ['must not be given together with by_name'],
    maybeText: ['must be percent-encoded UTF-8'],
    'nested_by_id[1]': ['must be given by its fields, each a parameter of its own'],
    flag: ['must be true or false'],
  });
});

test('path: variables, further bindings, verbs and custom methods lead to their RPCs', async (t) => {
  const { backend, send } = await fixture(t);
  const asked = async (line: string, body?: unknown) => {
    const { status: code } = await send(line, body === undefined ? {} : { body });
    return [code, backend.calls.at(-1)?.method, backend.calls.at(-1)?.request];
  };
  t.deepEqual(await asked('GET /v1/things/a%2Fb?nested.count=2&text_value=no'), [
    200,
    'Get',
    { textValue: 'a/b', nested: { count: 2 } },
  ]);
  t.deepEqual(await asked('GET /v1/also/a/5?nested.name=n&nested.count=9'), [
    200,
    'Get',
    { textValue: 'a', nested: { name: 'n', count: 5 } },
  ]);
  t.deepEqual(await asked('POST /v1/things/a:archive', { textValue: 'b', int32_value: 1 }), [
    200,
    'Get',
    { textValue: 'a', int32Value: 1 },
  ]);
  t.deepEqual(await asked('PURGE /v1/things/a'), [200, 'Get', { textValue: 'a' }]);
  t.deepEqual(await asked('GET /v1/shelves/a%2Fb/books/c%20d'), [
    200,
    'Find',
    { textValue: 'shelves/a%2Fb/books/c d' },
  ]);
  t.deepEqual(await asked('GET /v1/files/a/b/c'), [200, 'Find', { textValue: 'a/b/c' }]);
  t.deepEqual(await asked('GET /v1/deep/1/2/3/sub/x:read'), [200, 'Find', { nested: { name: 'sub/x' } }]);
  t.deepEqual(await asked('PATCH /v1/things/upload', {}), [200, 'Upload', {}]);
  t.deepEqual(await asked('GET http://example.com/v1/things/a?flag=1'), [200, 'Get', { textValue: 'a', flag: true }]);
});

test('path: a value that does not fit is named by its field', async (t) => {
  const { send } = await fixture(t);
  const wrong = async (path: string) => (await send(`GET /v1/typed/${path}`)).json['field_errors'];
  const number = ['must be a whole number'];
  t.deepEqual(await wrong('int/x'), { int32_value: number });
  t.deepEqual(await wrong('limit/2147483648'), { limit: ['must be at most 2147483647'] });
  t.deepEqual(await wrong('color/green'), { color: ['must be one of red, deep_blue'] });
  t.deepEqual(await wrong('bool/yes'), { bool_value: ['must be true or false'] });
  t.deepEqual(await wrong('time/now'), { created_at: ['must be an RFC 3339 time'] });
  t.deepEqual(
    (await send('GET /v1/typed/long/9223372036854775807')).text.match(/"int64_value":(\d+)/)?.[1],
    '9223372036854775807',
  );
  t.like((await send('GET /v1/typed/color/Deep_Blue')).json, { color: 'deep_blue' });
  t.like((await send('GET /v1/typed/time/2024-01-01T00:00:00%2B01:00')).json, { created_at: '2023-12-31T23:00:00Z' });
});

test('body of one field: the rest comes from path and query, and one field is answered', async (t) => {
  const { backend, send } = await fixture(t);
  const answer = await send('PATCH /v1/nested/a?int32Value=4&nested.count=9', { body: { name: 'n', tags: 'x' } });
  t.is(answer.status, 200);
  t.deepEqual(answer.json, { name: 'n', count: 0, inner: null, tags: ['x'] });
  t.deepEqual(backend.calls[0]?.request, {
    textValue: 'a',
    int32Value: 4,
    nested: { name: 'n', tags: ['x'] },
    updateMask: 'name,tags',
  });
  t.is((await send('PATCH /v1/nested/a')).text, 'null');
  const wrong = await send('PATCH /v1/nested/a?int32Value=x', { body: { name: 1, inner: { tags: [1] } } });
  t.deepEqual(wrong.json['field_errors'], {
    name: ['must be a string'],
    'inner.tags[0]': ['must be a string'],
    int32Value: ['must be a whole number'],
  });
  backend.violations = [{ field: 'nested.inner.name', description: 'is required' }];
  const refused = await send('PATCH /v1/nested/a', { body: { name: 'n' } });
  t.deepEqual(refused.json['field_errors'], { 'inner.name': ['is required'] });
});

test('PATCH of one field: the update mask names what is in the body, unless the client gives one', async (t) => {
  const { backend, send } = await fixture(t);
  const mask = async (body: unknown, query = '') => {
    await send(`PATCH /v1/nested/a${query}`, { body });
    return (backend.calls.at(-1)?.request as { updateMask?: string } | undefined)?.updateMask;
  };
  t.is(
    await mask({ name: null, inner: { count: 0, inner: { tags: [] }, nope: 1 } }),
    'name,inner.count,inner.inner.tags',
  );
  t.is(await mask({ inner: {} }), 'inner');
  t.is(await mask({}), undefined);
  t.is(await mask({ name: 'a', count: 1 }, '?update_mask=name'), 'name');
});

test('body of one field: it may be a list', async (t) => {
  const { send } = await fixture(t);
  t.is((await send('PUT /v1/texts', { body: ['a', 'b'] })).text, '["a","b"]');
  t.is((await send('PUT /v1/texts', { body: '"a"' })).text, '["a"]');
  t.is((await send('PUT /v1/texts', { body: 'null' })).text, '[]');
  t.deepEqual((await send('PUT /v1/texts', { body: ['a', 1] })).json['field_errors'], { '[1]': ['must be a string'] });
});

test('204: a success without content has no body', async (t) => {
  const { send } = await fixture(t);
  const answer = await send('DELETE /v1/things/a');
  t.is(answer.status, 204);
  t.is(answer.text, '');
  t.is(answer.headers['content-type'], undefined);
});

test('wrong fields: what the gateway finds and what the service finds are one answer', async (t) => {
  const { backend, send } = await fixture(t);
  backend.violations = [
    { field: 'nested.name', description: 'is required' },
    { field: 'texts[0]', description: 'must be a UUID' },
    { field: 'int32_value', description: 'must be positive' },
    { field: 'by_message.name', description: 'is required' },
    { field: 'bool_value', description: 'must be true' },
    { field: 'bool_value', description: 'must not be false' },
  ];
  const answer = await send('POST /v1/everything', {
    body: { nested: 'x', texts: 'y', int32Value: 'z', byMessage: {}, createdAt: 5 },
  });
  t.is(answer.status, 400);
  t.is(answer.json['error_code'], 'INVALID_ARGUMENT');
  t.deepEqual(answer.json['field_errors'], {
    nested: ['must be an object'],
    texts: ['must be a UUID'],
    int32Value: ['must be a whole number'],
    'byMessage.name': ['is required'],
    createdAt: ['must be an RFC 3339 time'],
    bool_value: ['must be true', 'must not be false'],
  });
});

test('wrong fields: another refusal by the service comes first', async (t) => {
  const { backend, send } = await fixture(t);
  // As a service does it that checks the token before anything else.
  backend.handler = failing(new HubError('UNAUTHENTICATED', 'TOKEN_MISSING', 'Log in first'));
  t.is((await send('POST /v1/everything', { body: {} })).status, 401);
  const answer = await send('POST /v1/foreign', { body: { text_value: 1 } });
  t.is(answer.status, 400);
});

test('wrong fields: a service without our options is not called', async (t) => {
  const { backend, send } = await fixture(t);
  const answer = await send('POST /v1/foreign', { body: { text_value: 1, int32_value: 2 } });
  t.is(answer.status, 400);
  t.deepEqual(answer.json['field_errors'], { text_value: ['must be a string'] });
  t.deepEqual(backend.calls, []);
  t.is((await send('POST /v1/foreign', { body: { int32_value: 2 } })).status, 200);
});

test('wrong fields: hundreds of them are named', async (t) => {
  const { send } = await fixture(t);
  const answer = await send('POST /v1/everything', { body: { texts: Array.from({ length: 300 }, () => 1) } });
  t.is(answer.status, 400);
  t.is(Object.keys(answer.json['field_errors'] as object).length, 300);
});

test('wrong fields: a path that is very long goes to the backend in part, and back to the client whole', async (t) => {
  const { backend, send } = await fixture(t);
  const key = '😀'.repeat(50_000);
  const answer = await send('POST /v1/everything', { body: { labels: { [key]: 1 } } });
  t.is(answer.status, 400);
  t.is(backend.calls.length, 1);
  t.deepEqual(answer.json['field_errors'], { [`labels["${key}"]`]: ['must be a string'] });
});

test('errors: each gRPC status has its HTTP status', async (t) => {
  const { backend, send } = await fixture(t);
  const expected: [status, number][] = [
    [status.CANCELLED, 499],
    [status.UNKNOWN, 500],
    [status.INVALID_ARGUMENT, 400],
    [status.DEADLINE_EXCEEDED, 504],
    [status.NOT_FOUND, 404],
    [status.ALREADY_EXISTS, 409],
    [status.PERMISSION_DENIED, 403],
    [status.RESOURCE_EXHAUSTED, 429],
    [status.FAILED_PRECONDITION, 400],
    [status.ABORTED, 409],
    [status.OUT_OF_RANGE, 400],
    [status.UNIMPLEMENTED, 501],
    [status.INTERNAL, 500],
    [status.UNAVAILABLE, 503],
    [status.DATA_LOSS, 500],
    [status.UNAUTHENTICATED, 401],
  ];
  for (const [code, httpStatus] of expected) {
    backend.handler = failingBare(code, 'A text');
    const answer = await send('GET /v1/everything');
    t.is(answer.status, httpStatus, status[code]);
    t.is(answer.headers['content-type'], 'application/problem+json');
    t.is(answer.json['error_code'], status[code]);
    t.is(answer.json['status'], httpStatus);
    t.is(answer.json['request_id'], answer.headers['x-request-id']);
    t.is(answer.headers['retry-after'], [429, 503].includes(httpStatus) ? '1' : undefined);
    t.is(answer.headers['www-authenticate'], httpStatus === 401 ? 'Bearer' : undefined);
    const hidden = [499, 500, 501, 503, 504].includes(httpStatus);
    t.is(String(answer.json['detail']).includes('A text'), !hidden, status[code]);
  }
});

test('errors: reason, wait and text come from the details', async (t) => {
  const { backend, send } = await fixture(t);
  backend.handler = failing(new HubError('NOT_FOUND', 'THING_NOT_FOUND', 'Thing not found'));
  const answer = await send('GET /v1/things/a', { headers: { 'x-request-id': 'abc' } });
  t.deepEqual(answer.json, {
    type: 'urn:error:thing-not-found',
    title: 'Not Found',
    status: 404,
    detail: 'Thing not found',
    error_code: 'THING_NOT_FOUND',
    request_id: 'abc',
  });
  backend.handler = failing(new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'No bus', { retryAfter: 2.1 }));
  const busy = await send('GET /v1/things/a');
  t.like(busy.json, { status: 503, detail: 'No bus', error_code: 'BUS_UNAVAILABLE', retry_after: 3 });
  t.is(busy.headers['retry-after'], '3');
  backend.handler = failing(new HubError('PERMISSION_DENIED', 'NOT_A_MEMBER', 'you are no member'));
  t.is((await send('GET /v1/things/a')).json['detail'], 'Access denied: you are no member');
  backend.handler = failing(new HubError('PERMISSION_DENIED', 'NOT_A_MEMBER', 'Access denied for you'));
  t.is((await send('GET /v1/things/a')).json['detail'], 'Access denied for you');
  backend.handler = failing(new HubError('INTERNAL', 'INTERNAL', 'password is x'));
  t.like((await send('GET /v1/things/a')).json, { status: 500, detail: 'Something went wrong on our side' });
});

test('errors: details that are no google.rpc.Status, and an answer that is no message', async (t) => {
  const { backend, send } = await fixture(t);
  backend.handler = (_call, callback) => {
    const metadata = new Metadata();
    metadata.set('grpc-status-details-bin', Buffer.from([255, 255, 255]));
    callback({ code: status.NOT_FOUND, details: 'Not here', metadata });
  };
  t.like((await send('GET /v1/things/a')).json, { status: 404, detail: 'Not here', error_code: 'NOT_FOUND' });
  backend.handler = (_call, callback) => callback(null, Buffer.from([255, 255, 255]));
  t.like((await send('GET /v1/things/a')).json, { status: 500, error_code: 'INTERNAL' });
});

test('bodies: what is no JSON object is refused with its reason', async (t) => {
  const { backend, send } = await fixture(t);
  const refused = async (body: unknown, headers: Record<string, string> = {}) => {
    const { status: code, json } = await send('POST /v1/everything', { body, headers });
    return [code, json['error_code']];
  };
  const malformed = [400, 'MALFORMED_JSON'];
  for (const body of [
    '{',
    '{"a":1',
    '[1]',
    '"a"',
    '5',
    'null',
    'true',
    ' ',
    '{"a":NaN}',
    "{'a':1}",
    '{"a":1,}',
    '\u{feff}{}',
  ]) {
    t.deepEqual(await refused(body), malformed, body);
  }
  t.deepEqual(await refused(Buffer.from('{"text_value":"\xff"}', 'latin1')), malformed);
  t.deepEqual(await refused('['.repeat(500_000)), malformed);
  t.deepEqual(await refused(`${'[1234567890123456,'.repeat(50_000)}1${']'.repeat(50_000)}`), malformed);
  const unsupported = [415, 'UNSUPPORTED_MEDIA_TYPE'];
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'json',
    'application/json; charset=latin1',
  ]) {
    t.deepEqual(await refused('{}', { 'content-type': type }), unsupported, type);
  }
  t.deepEqual(await refused('{}', { 'content-encoding': 'gzip' }), unsupported);
  for (const type of [
    'application/json; charset=UTF-8',
    'application/merge-patch+json',
    'APPLICATION/JSON;charset="utf-8"',
  ]) {
    t.is((await send('POST /v1/everything', { body: '{}', headers: { 'content-type': type } })).status, 201, type);
  }
  t.is(backend.calls.length, 3);
  const shown = await send('POST /v1/everything', { body: '{"password": "secret!' });
  t.false(shown.text.includes('secret'));
});

test('bodies: one over the limit is 413, one at the limit is not', async (t) => {
  const { send } = await fixture(t, { BODY_LIMIT: '1000' });
  const body = (length: number) => JSON.stringify({ text_value: 'a'.repeat(length - '{"text_value":""}'.length) });
  t.is((await send('POST /v1/everything', { body: body(1000) })).status, 201);
  const tooLarge = await send('POST /v1/everything', { body: body(1001) });
  t.like(tooLarge.json, { status: 413, title: 'Payload Too Large', error_code: 'PAYLOAD_TOO_LARGE' });
  const chunked = await send('POST /v1/everything', { body: body(1001), headers: { 'transfer-encoding': 'chunked' } });
  t.is(chunked.status, 413);
});

test('routes: unknown paths, wrong methods, OPTIONS and HEAD', async (t) => {
  const { backend, send } = await fixture(t);
  t.like((await send('GET /v1/nope')).json, { status: 404, error_code: 'ROUTE_NOT_FOUND' });
  t.like((await send('GET /v1/things/')).json, { status: 404, error_code: 'ROUTE_NOT_FOUND' });
  t.like((await send('POST /transcoding.v1.EchoService/Hidden')).json, { status: 404 });
  t.like((await send('GET /v1/things/%zz')).json, { status: 400, error_code: 'MALFORMED_PATH' });
  const wrong = await send('GET /v1/things/upload');
  t.like(wrong.json, { status: 405, error_code: 'METHOD_NOT_ALLOWED' });
  t.is(wrong.headers.allow, 'OPTIONS, PATCH');
  const options = await send('OPTIONS /v1/things/a');
  t.is(options.status, 204);
  t.is(options.headers.allow, 'DELETE, GET, HEAD, OPTIONS, PURGE');
  const head = await send('HEAD /v1/things/a');
  t.is(head.status, 200);
  t.is(head.text, '');
  t.true(Number(head.headers['content-length']) > 100);
  t.is(backend.calls.length, 1);
  const missing = await send('HEAD /v1/nope');
  t.is(missing.status, 404);
  t.is(missing.text, '');
});

test('request id: a usable one is kept, any other replaced, and it goes to the backend and into the log', async (t) => {
  const { backend, lines, send } = await fixture(t);
  const id = 'Aa0_.:-'.repeat(19).slice(0, 128);
  t.is((await send('GET /v1/things/a', { headers: { 'x-request-id': id } })).headers['x-request-id'], id);
  t.deepEqual(backend.calls[0]?.metadata.get('x-request-id'), [id]);
  const uuid = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/;
  for (const bad of [`${id}a`, 'a b', 'é', '']) {
    t.regex(String((await send('GET /v1/nope', { headers: { 'x-request-id': bad } })).headers['x-request-id']), uuid);
  }
  const [line, unrouted] = lines;
  t.like(line, { msg: 'http', request_id: id, method: 'GET', route: '/v1/things/{text_value}', status: 200 });
  t.is(typeof line?.['ms'], 'number');
  t.like(unrouted, { method: 'GET', path: '/v1/nope', status: 404 });
});

test('log: neither path nor query nor token nor body is written', async (t) => {
  const { lines, send } = await fixture(t);
  await send('POST /v1/everything?text_value=secret1', {
    body: { text_value: 'secret2', int32_value: 'secret3' },
    headers: { authorization: 'Bearer secret4' },
  });
  await send('GET /v1/things/secret5?nested.name=secret6');
  t.is(lines.length, 2);
  t.false(JSON.stringify(lines).includes('secret'));
});

test('metadata: authorization, addresses and Grpc-Metadata-* go to the backend', async (t) => {
  const { backend, gateway, send } = await fixture(t);
  await send('GET /v1/things/a', {
    headers: {
      authorization: 'Bearer x',
      'x-forwarded-for': '1.2.3.4',
      'grpc-metadata-tenant': 'acme',
      'grpc-metadata-blob-bin': 'AAEC',
      'grpc-metadata-x-forwarded-for': '6.6.6.6',
      'grpc-metadata-x-forwarded-host': 'evil.example',
      'grpc-metadata-x-forwarded-proto': 'https',
      'x-forwarded-host': 'evil.example',
      'x-forwarded-proto': 'https',
      'grpc-metadata-authorization': 'Bearer y',
      'grpc-metadata-x-field-violations-bin': 'AAEC',
      'grpc-metadata-grpc-timeout': '1n',
      cookie: 'a=b',
    },
  });
  const metadata = backend.calls[0]?.metadata as Metadata;
  t.deepEqual(metadata.get('authorization'), ['Bearer x']);
  t.deepEqual(metadata.get('x-forwarded-for'), ['127.0.0.1']);
  t.deepEqual(metadata.get('x-forwarded-host'), [`127.0.0.1:${gateway.port}`]);
  t.deepEqual(metadata.get('x-forwarded-proto'), ['http']);
  t.deepEqual(metadata.get('tenant'), ['acme']);
  t.deepEqual(metadata.get('blob-bin'), [Buffer.from([0, 1, 2])]);
  t.deepEqual(metadata.get('x-field-violations-bin'), []);
  t.deepEqual(metadata.get('cookie'), []);
});

test('metadata: what the backend says comes back as Grpc-Metadata-*', async (t) => {
  const { backend, send } = await fixture(t);
  backend.handler = (call, callback) => {
    const metadata = new Metadata();
    metadata.set('shard', '7');
    metadata.set('proof-bin', Buffer.from([0, 1, 2]));
    call.sendMetadata(metadata);
    callback(null, call.request);
  };
  const { headers } = await send('GET /v1/things/a');
  t.is(headers['grpc-metadata-shard'], '7');
  t.is(headers['grpc-metadata-proof-bin'], 'AAEC');
  t.deepEqual(
    Object.keys(headers).filter((name) => name.startsWith('grpc-')),
    ['grpc-metadata-shard', 'grpc-metadata-proof-bin'],
  );
});

test('metadata: a Host header that makes no URL is told to nobody', async (t) => {
  const { backend, send } = await fixture(t);
  for (const host of ['[::1]:8000', 'hub.example', 'a%2Fb', '[v1.a]', 'a:']) {
    t.is((await send('GET /v1/things/a', { headers: { host } })).status, 200, host);
  }
  const told = backend.calls.map(({ metadata }) => metadata.get('x-forwarded-host')[0]);
  t.deepEqual(told, ['[::1]:8000', 'hub.example', undefined, undefined, undefined]);
});

test('proxy: X-Forwarded-* is believed only if the setting says so', async (t) => {
  const { backend, send } = await fixture(t, { TRUST_PROXY: '1' });
  const forwarded = {
    'x-forwarded-for': '6.6.6.6, 1.2.3.4',
    'x-forwarded-host': 'hub.example:8443',
    'x-forwarded-proto': 'https',
  };
  await send('GET /v1/things/a', { headers: forwarded });
  await send('GET /v1/things/a', { headers: { ...forwarded, 'x-forwarded-proto': 'gopher' } });
  const [first, second] = backend.calls as [EchoCall, EchoCall];
  t.deepEqual(first.metadata.get('x-forwarded-for'), ['1.2.3.4']);
  t.deepEqual(first.metadata.get('x-forwarded-host'), ['hub.example:8443']);
  t.deepEqual(first.metadata.get('x-forwarded-proto'), ['https']);
  t.deepEqual(second.metadata.get('x-forwarded-proto'), []);
});

test('deadline: a slow backend is 504, and the client may shorten the wait', async (t) => {
  const { backend, send } = await fixture(t, { REQUEST_TIMEOUT: '5s' });
  backend.handler = () => {};
  const answer = await send('GET /v1/things/a', { headers: { 'grpc-timeout': '50m' } });
  t.like(answer.json, { status: 504, error_code: 'DEADLINE_EXCEEDED', detail: 'The answer took too long' });
  backend.handler = undefined;
  const before = Date.now();
  await send('GET /v1/things/a', { headers: { 'grpc-timeout': '1H' } });
  const left = (backend.calls.at(-1)?.deadline ?? 0) - before;
  t.true(left > 1_000 && left < 60_000, String(left));
  for (const bad of ['5', 's', '123456789S', '-1S']) {
    t.like((await send('GET /v1/things/a', { headers: { 'grpc-timeout': bad } })).json, {
      status: 400,
      error_code: 'MALFORMED_HEADER',
    });
  }
});

test('backend down: 503 with Retry-After, and calls work again once it is back', async (t) => {
  const { backend, send } = await fixture(t);
  t.is((await send('GET /v1/things/a')).status, 200);
  backend.stop();
  const answer = await send('GET /v1/things/a');
  t.like(answer.json, { status: 503, error_code: 'UNAVAILABLE', retry_after: 1 });
  t.is(answer.headers['retry-after'], '1');
  t.false(answer.text.includes(backend.address));
  const again = await startEchoBackend(Number(backend.address.split(':')[1]));
  t.teardown(() => again.stop());
  let last: Answer;
  do last = await send('GET /v1/things/a');
  while (last.status === 503);
  t.is(last.status, 200);
});

test('health: the gateway runs, and ready names each backend and what it depends on', async (t) => {
  const { backend, send } = await fixture(t);
  t.like((await send('GET /live')).json, { status: 'live', service: 'gateway' });
  for (const path of ['/', '/health']) {
    const { status: code, json } = await send(`GET ${path}`);
    t.is(code, 200);
    t.like(json, { status: 'ok', service: 'gateway' });
    t.regex(String(json['version']), /^\d+\.\d+\.\d+/);
  }
  const ready = await eventually(
    'all is up',
    () => send('GET /ready'),
    ({ status: code }) => code === 200,
  );
  t.like(ready.json, {
    status: 'ready',
    service: 'gateway',
    database: 'connected',
    dependencies: { transcoding: 'up', 'transcoding.database': 'up', 'transcoding.store': 'up' },
    optional_dependencies: {},
    features: { transcoding: 'up' },
  });
  for (const [state, expected] of [
    ['NOT_SERVING', 'down'],
    ['SERVING', 'up'],
  ] as const) {
    backend.health.setStatus('optional.maps', state);
    const { status: code, json } = await eventually(
      'the optional dependency is shown',
      () => send('GET /ready'),
      ({ json: { optional_dependencies: optional } }) =>
        (optional as Record<string, string>)['transcoding.maps'] === expected,
    );
    t.is(code, 200);
    t.like(json, { status: 'ready', optional_dependencies: { 'transcoding.maps': expected } });
    t.false('transcoding.maps' in (json['dependencies'] as object));
  }
  const until = async (expected: Record<string, string>) => {
    let answer: Answer;
    do answer = await send('GET /ready');
    while (JSON.stringify(answer.json['dependencies']) !== JSON.stringify(expected));
    return answer;
  };
  backend.health.setStatus('database', 'NOT_SERVING');
  const unready = await until({
    transcoding: 'up',
    'transcoding.database': 'down',
    'transcoding.store': 'up',
  });
  t.is(unready.status, 503);
  t.like(unready.json, { status: 'not_ready', reason: 'unavailable', database: 'disconnected' });
  t.is(unready.headers['retry-after'], '1');
  backend.stop();
  t.is((await until({ transcoding: 'down' })).status, 503);
  t.is((await send('POST /health')).headers.allow, 'GET, HEAD, OPTIONS');
});

test('rate limit: one user or address may do so many requests a second, others are not touched', async (t) => {
  const { send } = await fixture(t, { RATE_LIMIT: '3', TRUST_PROXY: '1' });
  const from = (address: string, token?: string) => ({
    headers: { 'x-forwarded-for': address, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
  });
  const burst = async (send: Send, count: number, request: (line: string, send?: Send) => Promise<Answer>) =>
    Promise.all(Array.from({ length: count }, () => request('GET /v1/things/a', send)));
  const limited = (await burst(from('1.1.1.1'), 40, send)).filter((answer) => answer.status === 429);
  t.true(limited.length >= 4, String(limited.length));
  t.like(limited[0]?.json, { error_code: 'RATE_LIMITED', status: 429, retry_after: 1 });
  t.like(limited[0]?.headers, {
    'retry-after': '1',
    ratelimit: '"address";r=0;t=1',
    'ratelimit-policy': '"address";q=3;w=1',
  });
  t.is((await send('GET /v1/things/a', from('2.2.2.2'))).status, 200);
});

test('rate limit: made-up tokens count for their address, whatever is answered to them', async (t) => {
  const { backend, send } = await fixture(t, { RATE_LIMIT: '3' });
  const refusal = failing(new HubError('UNAUTHENTICATED', 'TOKEN_INVALID', 'Log in'));
  for (const handler of [refusal, undefined]) {
    backend.handler = handler;
    const asked = Array.from({ length: 40 }, (_, count) =>
      send('GET /v1/things/a', { headers: { authorization: `Bearer ${count}` } }),
    );
    const limited = (await Promise.all(asked)).filter(({ status }) => status === 429);
    t.true(limited.length >= 4, String(limited.length));
    t.like(limited[0]?.headers, { 'ratelimit-policy': '"address";q=3;w=1' });
  }
});

test('settings: a backend that no descriptor knows is refused', async (t) => {
  const config = loadConfig(settings, {
    PORT: '0',
    BACKENDS: 'transcoding.v2=localhost:1',
    DESCRIPTOR_SET: descriptorSet,
  });
  const log = openLog({ name: 'gateway', format: 'json', level: 'silent' });
  await t.throwsAsync(start(config, log), { message: /transcoding\.v2/ });
  const proxies = loadConfig(settings, {
    PORT: '0',
    BACKENDS: 'transcoding.v1=localhost:1',
    DESCRIPTOR_SET: descriptorSet,
    TRUST_PROXY: 'nobody',
  });
  await t.throwsAsync(start(proxies, log), { instanceOf: ConfigError, message: /TRUST_PROXY must be/ });
  t.throws(() => loadConfig(settings, { BACKENDS: 'transcoding.v1' }), { message: /BACKENDS must be/ });
  t.throws(() => loadConfig(settings, {}), { message: /BACKENDS is required/ });
});
