import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { clearExtension, createFileRegistry, fromBinary, getExtension, setExtension } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema, type FileDescriptorSet } from '@bufbuild/protobuf/wkt';
import { Metadata, status } from '@grpc/grpc-js';
import test from 'ava';
import { HubError } from '#lib/errors.ts';
import { descriptorSet, failing, failingBare, registry } from '../../test/echo-backend.ts';
import { dial, fixture, type Answer, type Fixture } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';
import { hubRules } from '../dialects/hub/rules.ts';
import { readRoutes } from '../rules/bindings.ts';

const bearer = { authorization: 'Bearer a' };

interface Detail {
  field: string;
  message: string;
  rule: string;
}

interface Failure {
  data: unknown;
  error: { code: string; message: string; details: Detail[] };
  meta: Record<string, unknown>;
}

/** The error of an answer that has to be a failure in an envelope. */
function failureOf({ status: code, headers, json }: Answer): Failure['error'] {
  const { data, error, meta, ...others } = json as unknown as Failure;
  if (data !== null || Object.keys(others).length > 0) throw new Error(`No failure: ${JSON.stringify(json)}`);
  if (headers['content-type'] !== 'application/json') throw new Error(`${code} is ${headers['content-type']}`);
  const { request_id: id, ...more } = meta;
  if (id !== headers['x-request-id'] || Object.keys(more).length > 0)
    throw new Error(`meta is ${JSON.stringify(meta)}`);
  return error;
}

function rulesIn(answer: Answer): string[] {
  return failureOf(answer).details.map(({ field, rule }) => `${field}: ${rule}`);
}

test('success: data, a null error, and the request id', async (t) => {
  const { send } = await fixture(t);
  const id = randomUUID();
  const {
    status: code,
    headers,
    json,
  } = await send('POST /api/v1/things', {
    body: { text_value: 'a', int64_value: 7 },
    headers: { 'x-request-id': id },
  });
  t.is(code, 201);
  t.is(headers['content-type'], 'application/json');
  t.deepEqual(Object.keys(json), ['data', 'error', 'meta']);
  t.like(json['data'], { text_value: 'a', int64_value: 7 });
  t.is(json['error'], null);
  t.deepEqual(json['meta'], { request_id: id });
});

test('success: what has no value is left out at every depth, what has a zero is there', async (t) => {
  const { send } = await fixture(t);
  const { json } = await send('POST /api/v1/things', {
    body: { nested: {}, children: [{ name: 'x' }], nested_by_id: { 1: {} }, by_message: {} },
  });
  const data = json['data'] as Record<string, unknown>;
  const nothing = { name: '', count: 0, tags: [] };
  t.like(data, { text_value: '', bool_value: false, int64_value: 0, double_value: 0, level: 'none' });
  t.like(data, { texts: [], numbers: [], labels: {}, times: [] });
  t.deepEqual(data['nested'], nothing);
  t.deepEqual(data['children'], [{ ...nothing, name: 'x' }]);
  t.deepEqual(data['nested_by_id'], { 1: nothing });
  t.deepEqual(data['by_message'], nothing);
  for (const absent of [
    'nickname',
    'color',
    'created_at',
    'limit',
    'maybe_text',
    'extra',
    'anything',
    'null_value',
    'by_name',
  ]) {
    t.false(absent in data, absent);
  }
  const { json: plain } = await send('POST /v1/everything', { body: {} });
  t.is(plain['nickname'], null);
  t.false(JSON.stringify(data).includes('null'));
});

test('success: members come in the order of the proto, set or not', async (t) => {
  const { send } = await fixture(t);
  const body = { nested: { name: 'x' }, created_at: '2026-11-29T00:00:00Z', text_value: 'a', limit: 5 };
  const { data } = (await send('POST /api/v1/things', { body })).json as { data: object };
  const everything = registry.getMessage('transcoding.v1.Everything')!;
  const order = everything.fields.map(({ name }) => name).filter((name) => name in data);
  t.deepEqual(Object.keys(data), order);
});

test('success: an enum that stands for nothing is left out of lists and maps, too', async (t) => {
  const { send } = await fixture(t);
  const body = {
    color: 'unspecified',
    colors: ['red', 'unspecified', 'deep_blue'],
    color_by_flag: { true: 0, false: 1 },
  };
  const { data } = (await send('POST /api/v1/things', { body })).json as { data: Record<string, unknown> };
  t.false('color' in data);
  t.deepEqual(data['colors'], ['red', 'deep_blue']);
  t.deepEqual(data['color_by_flag'], { false: 'red' });
  const set = {
    nickname: '',
    limit: 0,
    maybe_text: '',
    flag: false,
    by_wrapper: '',
    created_at: '2026-11-29T00:00:00Z',
  };
  t.like((await send('POST /api/v1/things', { body: set })).json['data'], set);
});

test('success: JSON of any form stays as it is, its nulls included', async (t) => {
  const { send } = await fixture(t);
  const body = { extra: { a: null, b: [null, { c: null }] }, items: [null], anything: null };
  t.like((await send('POST /api/v1/things', { body })).json['data'], body);
});

test('success: a list with its page, which is no part of data', async (t) => {
  const { send } = await fixture(t);
  const page = { offset: 0, limit: 20, total: 7 };
  const things = [{ name: 'a', count: 1, tags: ['t'] }];
  const browse = await send('POST /api/v1/shelves/s:browse', { body: { things, pagination: page } });
  t.deepEqual(browse.json['data'], things);
  t.like(browse.json['meta'], { pagination: page });
  const query = 'pagination.offset=40&pagination.total=9007199254740993';
  const far = await send(`GET /api/v1/shelves/s/things?${query}`);
  t.deepEqual(far.json['data'], []);
  t.true(far.text.includes('"pagination":{"offset":40,"limit":0,"total":9007199254740993}'));
  const whole = await send('POST /api/v1/shelves', { body: { name: 's', things, pagination: page } });
  t.deepEqual(whole.json['data'], { name: 's', things });
  t.like(whole.json['meta'], { pagination: page });
  const without = await send('POST /api/v1/shelves', { body: { name: 's' } });
  t.deepEqual(without.json['data'], { name: 's', things: [] });
  t.deepEqual(Object.keys(without.json['meta'] as object), ['request_id']);
});

test('success: nothing to say is an empty object, and 204 has no body', async (t) => {
  const { send } = await fixture(t);
  t.deepEqual((await send('POST /api/v1/nods', { body: {} })).json['data'], {});
  t.deepEqual((await send('POST /api/v1/shelves/first', { body: {} })).json['data'], {});
  const dropped = await send('DELETE /api/v1/things/a');
  t.is(dropped.status, 204);
  t.is(dropped.text, '');
});

test('lookup: the same data has the same entity tag whatever its request, and a known one is 304', async (t) => {
  const { send } = await fixture(t);
  const first = await send('GET /api/v1/things/a');
  const again = await send('GET /api/v1/things/a');
  const { etag = '' } = first.headers;
  t.regex(etag, /^W\/"/);
  t.is(again.headers.etag, etag);
  t.not(again.text, first.text);
  t.not((await send('GET /api/v1/things/b')).headers.etag, etag);
  const known = await send('GET /api/v1/things/a', { headers: { 'if-none-match': etag } });
  t.deepEqual([known.status, known.text], [304, '']);
  const page = (total: number) => send(`GET /api/v1/shelves/s/things?pagination.total=${total}`);
  t.not((await page(1)).headers.etag, (await page(2)).headers.etag);
});

test('lookup: HEAD has the headers without the body, and long answers are compressed', async (t) => {
  const { send } = await fixture(t);
  const id = randomUUID();
  const get = await send('GET /api/v1/things/a', { headers: { 'x-request-id': id } });
  const head = await send('HEAD /api/v1/things/a', { headers: { 'x-request-id': id } });
  t.is(head.text, '');
  t.is(head.headers['content-length'], get.headers['content-length']);
  t.is(head.headers.etag, get.headers.etag);
  const long = await send(`GET /api/v1/things/a?nickname=${'n'.repeat(5_000)}`, {
    headers: { 'accept-encoding': 'gzip' },
  });
  t.is(long.headers['content-encoding'], 'gzip');
  t.is((JSON.parse(gunzipSync(long.bytes).toString()) as { error: unknown }).error, null);
});

test('failure: each wrong field that the gateway finds, with the rule that it does not meet', async (t) => {
  const { send, backend } = await fixture(t);
  const answer = await send('POST /api/v1/things', {
    body: {
      text_value: 1,
      color: 'green',
      created_at: 'today',
      bytes_value: '*',
      otherName: 'a',
      renamed: 'b',
      by_name: 'a',
      by_number: 1,
      nested: { count: 'x' },
      numbers: [1, 'two'],
    },
  });
  t.is(answer.status, 400);
  t.like(failureOf(answer), { code: 'VALIDATION_ERROR' });
  t.regex(failureOf(answer).message, /^[A-Z]/);
  t.deepEqual(rulesIn(answer).toSorted(), [
    'by_number: conflict',
    'bytes_value: format',
    'color: enum',
    'created_at: format',
    'nested.count: type',
    'numbers[1]: type',
    'renamed: once',
    'text_value: type',
  ]);
  t.true(failureOf(answer).details.every(({ message }) => message.startsWith('must ')));
  // So the backend heard of them, and of nothing else.
  t.is(backend.calls.length, 1);
  const query = await send('GET /api/v1/things/a?int32_value=x&limit=1&limit=2&text_value=b');
  t.deepEqual(rulesIn(query), ['int32_value: type', 'limit: once']);
});

test('failure: each rule that a field does not meet for the backend is an entry of its own', async (t) => {
  const { send, backend } = await fixture(t);
  backend.violations = [
    { field: 'nickname', description: 'must have at least 8 characters', rule: 'min_length' },
    { field: 'nickname', description: 'must have a digit', rule: 'digit' },
    { field: 'otherName', description: 'is silly' },
  ];
  const answer = await send('POST /api/v1/things', { body: { nickname: 'a', int32_value: 'x' } });
  t.deepEqual(failureOf(answer).details, [
    { field: 'int32_value', message: 'must be a whole number', rule: 'type' },
    { field: 'nickname', message: 'must have at least 8 characters', rule: 'min_length' },
    { field: 'nickname', message: 'must have a digit', rule: 'digit' },
    { field: 'otherName', message: 'is silly', rule: 'invalid' },
  ]);
  const plain = await send('POST /v1/everything', { body: { int32_value: 'x' } });
  t.deepEqual(plain.json['field_errors'], {
    int32_value: ['must be a whole number'],
    nickname: ['must have at least 8 characters', 'must have a digit'],
    otherName: ['is silly'],
  });
});

test('failure: an error of the service keeps its reason, or has the code that the RPC names', async (t) => {
  const { send, backend } = await fixture(t);
  const asked = async (kind: HubError['kind'], reason: string, line = 'GET /api/v1/things/a') => {
    backend.handler = failing(new HubError(kind, reason, 'That is how it is'));
    const answer = await send(line);
    return [answer.status, failureOf(answer).code, failureOf(answer).message];
  };
  const message = 'That is how it is';
  t.deepEqual(await asked('ALREADY_EXISTS', 'NAME_TAKEN'), [409, 'NAME_TAKEN', message]);
  t.deepEqual(await asked('NOT_FOUND', 'THING_NOT_FOUND'), [404, 'NOT_FOUND', message]);
  t.deepEqual(await asked('PERMISSION_DENIED', 'LIMIT_EXCEEDED'), [403, 'LIMIT_EXCEEDED', message]);
  t.deepEqual(await asked('FAILED_PRECONDITION', 'THING_LOCKED', 'POST /api/v1/things'), [
    423,
    'THING_LOCKED',
    message,
  ]);
});

test('failure: whatever else has the code of its status', async (t) => {
  const { send, backend } = await fixture(t);
  const expected: [kind: HubError['kind'], reason: string, status: number, code: string][] = [
    ['INVALID_ARGUMENT', 'MALFORMED_REQUEST', 400, 'VALIDATION_ERROR'],
    ['UNAUTHENTICATED', 'TOKEN_MISSING', 401, 'UNAUTHORIZED'],
    ['UNAUTHENTICATED', 'TOKEN_INVALID', 401, 'UNAUTHORIZED'],
    ['UNAUTHENTICATED', 'TOKEN_EXPIRED', 401, 'TOKEN_EXPIRED'],
    ['PERMISSION_DENIED', 'ACCESS_DENIED', 403, 'FORBIDDEN'],
    ['NOT_FOUND', 'WHATEVER', 404, 'NOT_FOUND'],
    ['ABORTED', 'WHATEVER', 409, 'CONFLICT'],
    ['RESOURCE_EXHAUSTED', 'TOO_MANY_CALLS', 429, 'RATE_LIMITED'],
    ['UNIMPLEMENTED', 'UNIMPLEMENTED', 501, 'NOT_IMPLEMENTED'],
    ['UNAVAILABLE', 'DATABASE_UNAVAILABLE', 503, 'UNAVAILABLE'],
    ['DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED', 504, 'TIMEOUT'],
    ['INTERNAL', 'INTERNAL', 500, 'INTERNAL_ERROR'],
  ];
  for (const [kind, reason, code, name] of expected) {
    backend.handler = failing(new HubError(kind, reason, 'No'));
    const answer = await send('POST /api/v1/things', { body: {} });
    t.deepEqual([answer.status, failureOf(answer).code, failureOf(answer).details], [code, name, []], reason);
    if (code === 401) t.is(answer.headers['www-authenticate'], 'Bearer');
    if (code === 429 || code === 503) t.is(answer.headers['retry-after'], '1');
    t.regex(failureOf(answer).message, /^[A-Z]/);
  }
  backend.handler = failing(new HubError('UNAVAILABLE', 'DATABASE_UNAVAILABLE', 'Wait', { retryAfter: 6.5 }));
  t.is((await send('GET /api/v1/things/a')).headers['retry-after'], '7');
  backend.handler = failingBare(status.INTERNAL, 'secret of the inside');
  t.false((await send('GET /api/v1/things/a')).text.includes('secret'));
});

test('prefix: what is not there, and wrong methods, are told in the envelope; elsewhere they are not', async (t) => {
  const { send } = await fixture(t);
  for (const path of ['/api/v1', '/api/v1/', '/api/v1/nope', '/%61pi/v1/nope', '/api/v1/things/a/b/c/d?x=1']) {
    const answer = await send(`GET ${path}`, { headers: bearer });
    t.is(answer.status, 404, path);
    t.like(failureOf(answer), { code: 'NOT_FOUND', details: [] });
  }
  for (const path of ['/api', '/api/v2/things', '/api/v11/things', '/v1/nope', '/x/api/v1/things']) {
    t.like((await send(`GET ${path}`)).json, { status: 404, error_code: 'ROUTE_NOT_FOUND' }, path);
  }
  const wrong = await send('PUT /api/v1/things');
  t.is(wrong.status, 405);
  t.is(wrong.headers.allow, 'OPTIONS, POST');
  t.like(failureOf(wrong), { code: 'METHOD_NOT_ALLOWED' });
  t.is((await send('OPTIONS /api/v1/things')).status, 204);
  t.is((await send('HEAD /api/v1/nope')).headers['content-type'], 'application/json');
});

test('prefix: whatever is wrong with a request before its RPC is asked is told in the envelope', async (t) => {
  const { send, backend } = await fixture(t, { BODY_LIMIT: '1000' });
  const json = { 'content-type': 'application/json' };
  const expected: [line: string, given: Parameters<Fixture['send']>[1], status: number, code: string][] = [
    ['POST /api/v1/things', { body: '{', headers: json }, 400, 'VALIDATION_ERROR'],
    ['POST /api/v1/things', { body: '[]', headers: json }, 400, 'VALIDATION_ERROR'],
    ['POST /api/v1/things', { body: 'a=1', headers: { 'content-type': 'text/plain' } }, 415, 'UNSUPPORTED_MEDIA_TYPE'],
    [
      'POST /api/v1/things',
      { body: 'x', headers: { ...json, 'content-encoding': 'gzip' } },
      415,
      'UNSUPPORTED_MEDIA_TYPE',
    ],
    ['POST /api/v1/things', { body: { text_value: 'a'.repeat(2_000) } }, 413, 'PAYLOAD_TOO_LARGE'],
    ['GET /api/v1/things/%ff', {}, 400, 'VALIDATION_ERROR'],
    ['GET /api/v1/things/%zz', {}, 400, 'VALIDATION_ERROR'],
    [`GET /api/v1/things/${'a'.repeat(9_000)}`, {}, 414, 'URI_TOO_LONG'],
    ['GET /api/v1/things/a', { headers: { expect: 'miracles' } }, 417, 'EXPECTATION_FAILED'],
    ['GET /api/v1/things/a', { headers: { 'grpc-timeout': 'soon' } }, 400, 'VALIDATION_ERROR'],
    ['GET /api/v1/things/a', { headers: { authorization: 'Bearer \u00e9' } }, 401, 'UNAUTHORIZED'],
    [`GET /api/v1/things/a?${'a&'.repeat(501)}`, {}, 400, 'VALIDATION_ERROR'],
  ];
  for (const [line, given, code, name] of expected) {
    const answer = await send(line, given);
    t.is(answer.status, code, line);
    t.like(failureOf(answer), { code: name, details: [] }, line.slice(0, 100));
  }
  t.is(backend.calls.length, 0);
});

test('prefix: limits are told in the envelope', async (t) => {
  const { send } = await fixture(t, { RATE_LIMIT: '2' });
  const limited = await eventually(
    'too many',
    () => send('GET /api/v1/things/a'),
    ({ status: code }) => code === 429,
  );
  t.like(failureOf(limited), { code: 'RATE_LIMITED' });
  t.is(limited.headers['retry-after'], '1');
});

test('prefix: too much to do is told in the envelope', async (t) => {
  const { send, backend } = await fixture(t, { HTTP_CONCURRENCY: '4', RATE_LIMIT: '0' });
  const waiting: (() => void)[] = [];
  backend.handler = (call, callback) => void waiting.push(() => backend.echo(call, callback));
  const held = [2, 3, 4, 5].map((last) => send('GET /api/v1/things/a', { from: `127.0.0.${last}` }));
  await eventually(
    'all places are taken',
    () => waiting.length,
    (count) => count === 4,
  );
  const full = await send('GET /api/v1/things/a', { from: '127.0.0.6' });
  t.is(full.status, 503);
  t.like(failureOf(full), { code: 'UNAVAILABLE' });
  t.is(full.headers['retry-after'], '1');
  for (const go of waiting) go();
  for (const { status: code } of await Promise.all(held)) t.is(code, 200);
});

test('prefix: what is no request by the rules of HTTP is told in the envelope, as far as its path is known', async (t) => {
  const { gateway } = await fixture(t, {}, { headers: 500 });
  const asked = async (bytes: string) => {
    const { socket, until } = await dial(gateway.port);
    socket.write(bytes);
    const text = await until('end');
    socket.destroy();
    return text;
  };
  const enveloped =
    /^HTTP\/1\.1 (\d{3}) [^]*Content-Type: application\/json\r\n[^]*\{"data":null,"error":\{"code":"(\w+)"/i;
  const [, targetStatus, targetCode] =
    enveloped.exec(await asked('GET api/v1/things HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')) ?? [];
  t.deepEqual([targetStatus, targetCode], ['400', 'VALIDATION_ERROR']);
  const long = `GET /api/v1/things/a HTTP/1.1\r\nHost: a\r\nX-Long: ${'a'.repeat(20_000)}\r\n\r\n`;
  t.deepEqual(enveloped.exec(await asked(long))?.slice(1, 3), ['431', 'HEADERS_TOO_LARGE']);
  const bad = await asked('GET /api/v1/things/a HTTP/1.1\r\nHost a\r\n\r\n');
  t.deepEqual(enveloped.exec(bad)?.slice(1, 3), ['400', 'VALIDATION_ERROR']);
  t.regex(await asked('NONSENSE\r\n\r\n'), /application\/problem\+json/);
});

test('known fields: where the RPC wants it, a member that is no field, or that the path gives, is wrong', async (t) => {
  const { send, backend } = await fixture(t);
  const answer = await send('PATCH /api/v1/things/a', {
    body: { nickname: 'n', nope: null, nested: { name: 'x', more: 1 }, text_value: 'b', extra: { any: 1 } },
  });
  t.is(answer.status, 400);
  t.deepEqual(rulesIn(answer), ['nope: unknown', 'nested.more: unknown', 'text_value: unknown']);
  t.like(failureOf(answer), {
    code: 'VALIDATION_ERROR',
    message: 'Some fields are not valid: nope, nested.more, text_value',
  });
  const spelled = await send('PATCH /api/v1/things/a', { body: { textValue: 'b' } });
  t.deepEqual(rulesIn(spelled), ['textValue: unknown']);
  const inner = await send('PUT /api/v1/things/a/b', { body: { name: 'x', count: 1, colour: 'red' } });
  t.deepEqual(rulesIn(inner), ['colour: unknown', 'name: unknown']);
  const good = await send('PATCH /api/v1/things/a', { body: { nickname: 'n', nested: { inner: { name: 'x' } } } });
  t.like(good.json['data'], { text_value: 'a', nickname: 'n' });
  t.is((await send('PUT /api/v1/things/a/b', { body: { count: 1 } })).status, 200);
  // Elsewhere they are ignored, as ever.
  t.is((await send('POST /api/v1/things', { body: { nope: 1, nested: { more: 1 } } })).status, 201);
  const name = '\u{1f680}'.repeat(5_000);
  const long = await send('PATCH /api/v1/things/a', { body: { [name]: 1, ['x'.repeat(100_000)]: 2 } });
  t.is(long.status, 400);
  t.true(long.text.length < 3_000);
  const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`unknown_${index}`, 1]));
  t.true(rulesIn(await send('PATCH /api/v1/things/a', { body: many })).length >= 30);
  t.true(backend.calls.length > 0);
});

test('api key: it is passed on as metadata, and a bearer token beats it', async (t) => {
  const { send, backend } = await fixture(t, { CORS_ORIGINS: '*' });
  const seen = () => {
    const { metadata } = backend.calls.at(-1)!;
    return [metadata.get('authorization'), metadata.get('x-api-key')];
  };
  await send('GET /api/v1/things/a', { headers: { 'x-api-key': 'c4a_k' } });
  t.deepEqual(seen(), [[], ['c4a_k']]);
  await send('GET /v1/things/a', { headers: { 'x-api-key': 'c4a_k' } });
  t.deepEqual(seen(), [[], ['c4a_k']]);
  for (const authorization of ['Bearer a', 'bearer a', 'Bearer']) {
    await send('GET /api/v1/things/a', { headers: { 'x-api-key': 'c4a_k', authorization } });
    t.deepEqual(seen(), [[authorization], []]);
  }
  await send('GET /api/v1/things/a', { headers: { 'x-api-key': 'c4a_k', authorization: 'Basic eDp5' } });
  t.deepEqual(seen(), [[], ['c4a_k']]);
  await send('GET /api/v1/things/a', { headers: { 'grpc-metadata-x-api-key': 'c4a_k' } });
  t.deepEqual(seen(), [[], []]);
  const calls = backend.calls.length;
  for (const key of ['k\u00e9y', 'a\tb']) {
    const answer = await send('GET /api/v1/things/a', { headers: { 'x-api-key': key } });
    t.is(answer.status, 401);
    t.is(answer.headers['www-authenticate'], 'Bearer');
    t.like(failureOf(answer), { code: 'UNAUTHORIZED' });
  }
  t.is(backend.calls.length, calls);
  const preflight = await send('OPTIONS /api/v1/things/a', {
    headers: {
      origin: 'https://app.example',
      'access-control-request-method': 'GET',
      'access-control-request-headers': 'x-api-key',
    },
  });
  t.is(preflight.headers['access-control-allow-headers'], 'x-api-key');
});

test('api key: its user has limits of its own once a backend has said who it is', async (t) => {
  const { send, backend } = await fixture(t, { RATE_LIMIT: '50' });
  const trailers = new Metadata();
  trailers.set('x-caller-id', 'u1');
  backend.handler = (call, callback) => backend.echo(call, callback, trailers);
  const key = { headers: { 'x-api-key': 'c4a_k' } };
  const first = await send('GET /api/v1/things/a', key);
  t.is(first.headers['ratelimit-policy'], '"address";q=50;w=1');
  const next = await send('GET /api/v1/things/a', key);
  t.is(next.headers['ratelimit-policy'], '"user";q=50;w=1');
  // Nobody becomes a user with the text of a key in another place.
  const other = await send('GET /api/v1/things/a', { headers: { authorization: 'c4a_k' } });
  t.is(other.headers['ratelimit-policy'], '"address";q=50;w=1');
});

test('health: below the prefix it is bare, with the database', async (t) => {
  const { send, backend } = await fixture(t);
  t.like((await send('GET /api/v1/health')).json, { status: 'ok' });
  const ready = await eventually(
    'all is up',
    () => send('GET /api/v1/ready'),
    ({ status: code }) => code === 200,
  );
  t.like(ready.json, { status: 'ready', database: 'connected' });
  backend.health.setStatus('store', 'NOT_SERVING');
  const unready = () =>
    eventually(
      'something is down',
      () => send('GET /api/v1/ready'),
      ({ status: code }) => code === 503,
    );
  t.like((await unready()).json, { status: 'not_ready', reason: 'unavailable', database: 'connected' });
  backend.health.setStatus('database', 'NOT_SERVING');
  const without = await eventually('it is seen', unready, ({ json }) => json['database'] === 'disconnected');
  t.like(without.json, { status: 'not_ready' });
  t.is(without.headers['retry-after'], '1');
  backend.stop();
  await eventually('it is gone', unready, ({ json }) => (json['dependencies'] as object) !== undefined);
  t.like((await unready()).json, { status: 'not_ready', database: 'disconnected' });
  const wrong = await send('POST /api/v1/health');
  t.is(wrong.status, 405);
  t.like(failureOf(wrong), { code: 'METHOD_NOT_ALLOWED' });
});

/** Reads the routes of the test protos after a change to them. */
function routesWith(change: (set: FileDescriptorSet) => void) {
  const set = fromBinary(FileDescriptorSetSchema, readFileSync(descriptorSet));
  change(set);
  return () => readRoutes(createFileRegistry(set), (service) => service.startsWith('transcoding.'), hubRules);
}

test('rules: a path has to say by itself in which style it is answered', (t) => {
  const answers = registry.getExtension('chat4all.options.v1.answers')!;
  const optionsOf = ({ file }: FileDescriptorSet, name: string) =>
    file.flatMap(({ service }) => service).find((service) => service.name === name)!;
  const under = (path: string) => (changed: FileDescriptorSet) => {
    const { options } = optionsOf(changed, 'ShelfService');
    const value = getExtension(options!, answers) as { under: string };
    value.under = path;
    setExtension(options!, answers, value as never);
  };
  t.notThrows(routesWith(() => {}));
  t.throws(routesWith(under('/api/v2')), { message: /is not under \/api\/v2/ });
  t.throws(routesWith(under('/api/{x}')), { message: /no path without variables/ });
  t.throws(routesWith(under('api')), { message: /must begin with a slash/ });
  const stranger = (changed: FileDescriptorSet) => {
    const foreign = optionsOf(changed, 'ForeignService');
    const http = registry.getExtension('google.api.http')!;
    const { options } = foreign.method[0]!;
    const rule = getExtension(options!, http) as { pattern: unknown };
    rule.pattern = { case: 'post', value: '/api/v1/foreign' };
    setExtension(options!, http, rule as never);
  };
  t.throws(routesWith(stranger), { message: /is under \/api\/v1, where others/ });
  const streaming = (changed: FileDescriptorSet) => {
    optionsOf(changed, 'ShelfService').method[0]!.serverStreaming = true;
  };
  t.throws(routesWith(streaming), {
    message: /streams transcoding\.v1\.Everything, for which its style of answers has no form/,
  });
  const plain = (changed: FileDescriptorSet) => clearExtension(optionsOf(changed, 'ShelfService').options!, answers);
  t.throws(routesWith(plain), { message: /has a code for an error, but answers in no envelope/ });
});
