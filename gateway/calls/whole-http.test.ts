import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import type { DescMessage, JsonValue } from '@bufbuild/protobuf';
import { status, type ServerWritableStream } from '@grpc/grpc-js';
import test from 'ava';
import { encode, registry } from '../../test/echo-backend.ts';
import { fixture, type Fixture } from '../../test/echo-gateway.ts';

const response = registry.getMessage('chat4all.http.v1.HttpResponse') as DescMessage;
const part = (json: JsonValue) => encode(response, json);
const piece = (text: string) => part({ body: Buffer.from(text).toString('base64') });
const json = { name: 'content-type', value: 'application/json' };

interface SeenRequest {
  method: string;
  path: string;
  query?: string;
  headers?: { name: string; value: string }[];
  body?: string;
}
const seenBy = (backend: Fixture['backend']) => backend.calls.at(-1)?.request as unknown as SeenRequest;

function answers(backend: Fixture['backend'], ...parts: Buffer[]): void {
  backend.sender = (call) => {
    for (const each of parts) call.write(each);
    call.end();
  };
}

test('a request arrives as a whole, with the headers that are its own business', async (t) => {
  const { backend, send } = await fixture(t);
  answers(backend, part({ status: 200, headers: [json] }));
  const body = Buffer.from('{"jsonrpc": "2.0"}');
  await send('POST /v1/whole?a=%20&a=2', {
    body,
    headers: {
      authorization: 'Bearer secret',
      'x-api-key': 'secret',
      cookie: 'secret=1',
      'grpc-metadata-x': 'y',
      'x-forwarded-for': '192.0.2.1',
      'x-other': 'z',
      accept: 'application/json, text/event-stream',
      'content-type': 'application/json; charset=utf-8',
      origin: 'https://app.example',
      'mcp-session-id': 's1',
      'mcp-protocol-version': '2025-11-25',
      'last-event-id': '7',
      'user-agent': 'test',
      'accept-language': 'pt',
    },
  });
  const { headers = [], body: sent, ...rest } = seenBy(backend);
  t.deepEqual(rest, { method: 'POST', path: '/v1/whole', query: 'a=%20&a=2' });
  t.deepEqual(Buffer.from(sent!, 'base64'), body);
  t.deepEqual(Object.fromEntries(headers.map(({ name, value }) => [name, value])), {
    accept: 'application/json, text/event-stream',
    'content-type': 'application/json; charset=utf-8',
    origin: 'https://app.example',
    'mcp-session-id': 's1',
    'mcp-protocol-version': '2025-11-25',
    'last-event-id': '7',
    'user-agent': 'test',
    'accept-language': 'pt',
  });
  t.deepEqual(
    backend.calls.at(-1)?.metadata.get('authorization'),
    ['Bearer secret'],
    'which goes where it always does',
  );
  await send('GET /v1/whole/a%2Fb%20c');
  t.like(seenBy(backend), { method: 'GET', path: '/v1/whole/a%2Fb%20c', body: undefined });
});

test('the answer has the status, the headers that may be, and all pieces', async (t) => {
  const { backend, send } = await fixture(t);
  const headers = [
    json,
    { name: 'Mcp-Session-Id', value: 's1' },
    { name: 'openai-model', value: 'm' },
    { name: 'allow', value: 'POST' },
    { name: 'set-cookie', value: 'a=b' },
    { name: 'connection', value: 'close' },
    { name: 'transfer-encoding', value: 'gzip' },
    { name: 'access-control-allow-origin', value: '*' },
  ];
  answers(
    backend,
    part({ status: 418, headers, body: Buffer.from('{"a":').toString('base64') }),
    piece('1'),
    piece('}'),
  );
  const answer = await send('POST /v1/whole', { body: {} });
  t.is(answer.status, 418);
  t.deepEqual(answer.json, { a: 1 });
  t.like(answer.headers, {
    'content-type': 'application/json',
    'mcp-session-id': 's1',
    'openai-model': 'm',
    allow: 'POST',
    'set-cookie': undefined,
    'access-control-allow-origin': undefined,
  });
  for (const code of [202, 204]) {
    answers(backend, part({ status: code }));
    const empty = await send('POST /v1/whole', { body: {} });
    t.is(empty.status, code);
    t.is(empty.text, '');
  }
});

test('each piece is sent at once, as events are not held up, and the call ends when the client goes', async (t) => {
  const { backend, gateway } = await fixture(t);
  let call: ServerWritableStream<Buffer, Buffer> | undefined;
  backend.sender = (stream) => {
    call = stream;
    stream.write(part({ status: 200, headers: [{ name: 'content-type', value: 'text/event-stream' }] }));
  };
  const request = httpRequest({ port: gateway.port, host: '127.0.0.1', path: '/v1/whole/a', agent: false }).end();
  const [answer] = (await once(request, 'response')) as [IncomingMessage];
  t.like(answer.headers, { 'cache-control': 'no-cache, no-transform', 'x-accel-buffering': 'no' });
  answer.setEncoding('utf8');
  for (const text of ['data: 1\n\n', 'data: 2\n\n']) {
    const arrived = once(answer, 'data');
    call!.write(piece(text));
    t.deepEqual(await arrived, [text]);
  }
  const cancelled = once(call!, 'cancelled');
  request.on('error', () => {});
  answer.on('error', () => {});
  request.destroy();
  await cancelled;
});

test('an error before the answer is a problem with the error of the style; behind its beginning the answer breaks off', async (t) => {
  const { backend, send } = await fixture(t);
  const ends = (code: number, ...parts: Buffer[]) => {
    backend.sender = (call) => {
      for (const each of parts) call.write(each);
      call.emit('error', { code, details: 'no' });
    };
  };
  ends(status.UNAUTHENTICATED);
  const refused = await send('POST /v1/whole', { body: {} });
  t.is(refused.status, 401);
  t.is(refused.headers['www-authenticate'], 'Bearer');
  t.is(refused.headers['content-type'], 'application/problem+json');
  t.like(refused.json, { status: 401, detail: 'no' });
  t.deepEqual(refused.json['error'], {
    message: 'no',
    type: 'authentication_error',
    param: null,
    code: 'invalid_api_key',
  });
  ends(status.RESOURCE_EXHAUSTED);
  const slowed = await send('POST /v1/whole', { body: {} });
  t.like(slowed.json['error'] as object, { type: 'rate_limit_error', code: 'rate_limit_exceeded' });
  t.is(slowed.headers['retry-after'], '1');
  ends(status.INTERNAL, part({ status: 200, headers: [json] }), piece('{'));
  await t.throwsAsync(send('POST /v1/whole', { body: {} }), undefined, 'one that breaks off looks whole');
});

test('headers that come before the answer are there whatever becomes of it, an error too', async (t) => {
  const { backend, send } = await fixture(t);
  const early = part({
    headers: [
      { name: 'x-should-retry', value: 'false' },
      { name: 'set-cookie', value: 'a=b' },
    ],
  });
  backend.sender = (call) => {
    call.write(early);
    call.emit('error', { code: status.UNAVAILABLE, details: 'no' });
  };
  const failed = await send('POST /v1/whole', { body: {} });
  t.is(failed.status, 503);
  t.like(failed.headers, { 'x-should-retry': 'false', 'set-cookie': undefined });
  t.like(failed.json, { status: 503, error_code: 'UNAVAILABLE' });
  answers(backend, early, part({ status: 201, headers: [json] }), piece('{}'));
  const answer = await send('POST /v1/whole', { body: {} });
  t.is(answer.status, 201);
  t.like(answer.headers, { 'x-should-retry': 'false', 'content-type': 'application/json' });
  t.is(answer.text, '{}');
});

test('a backend that answers nothing, or with no status, is an error on our side', async (t) => {
  const { backend, send } = await fixture(t);
  answers(backend);
  t.is((await send('POST /v1/whole', { body: {} })).status, 500);
  answers(backend, piece('a'));
  t.is((await send('POST /v1/whole', { body: {} })).status, 500);
  answers(backend, part({ status: 200, headers: [{ name: 'content-type', value: 'a\r\nb: c' }] }));
  t.is((await send('POST /v1/whole', { body: {} })).status, 500);
});

test('what never gets to the backend is told in the style of the path, too', async (t) => {
  const { backend, send } = await fixture(t, { BODY_LIMIT: '100' });
  answers(backend, part({ status: 200 }));
  const large = await send('POST /v1/whole', { body: 'x'.repeat(101) });
  t.is(large.status, 413);
  t.like(large.json['error'] as object, { type: 'invalid_request_error', code: 'payload_too_large' });
  const wrong = await send('DELETE /v1/whole');
  t.is(wrong.status, 405);
  t.is(wrong.headers['allow'], 'OPTIONS, POST');
  t.like(wrong.json, { error_code: 'METHOD_NOT_ALLOWED', error: { type: 'invalid_request_error' } });
  const unknown = await send('GET /v1/whole/a/b');
  t.is(unknown.status, 404);
  t.like(unknown.json['error'] as object, { code: 'route_not_found' });
  const zipped = await send('POST /v1/whole', { body: 'x', headers: { 'content-encoding': 'gzip' } });
  t.is(zipped.status, 415);
  t.is((await send('GET /v1/wholesome')).json['error'], undefined);
});

test('HEAD is answered with the head of a GET', async (t) => {
  const { backend, send } = await fixture(t);
  answers(backend, part({ status: 200, headers: [json] }), piece('{}'));
  const { status: code, headers, text } = await send('HEAD /v1/whole/a');
  t.is(code, 200);
  t.is(headers['content-type'], 'application/json');
  t.is(text, '');
  t.is(seenBy(backend).method, 'GET');
});
