import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import type { DescMessage, JsonValue } from '@bufbuild/protobuf';
import { status, type ServerWritableStream } from '@grpc/grpc-js';
import test from 'ava';
import { Status } from '#gen/google/rpc/status.ts';
import { HubError } from '#lib/errors.ts';
import { toStatus } from '#lib/rpc/status.ts';
import { encode, registry } from '../../test/echo-backend.ts';
import { fixture, type Fixture } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';

const response = registry.getMessage('transcoding.v1.TalkResponse') as DescMessage;
const message = (json: JsonValue) => encode(response, json);
const word = (id: number, text = 'hello') => message({ id: String(id), word: { text } });
const whole = (id: number) => message({ id: String(id), whole: { words: [{ text: 'hello' }] } });
const speakerError = new HubError('UNAVAILABLE', 'SPEAKER_ERROR', 'Nobody speaks');

type Call = ServerWritableStream<Buffer, Buffer>;
const accepting = { accept: 'text/event-stream' };

/** Answers the next calls with these messages, and then with an error, if there is one. */
function says(backend: Fixture['backend'], messages: readonly Buffer[], error?: HubError): void {
  backend.sender = (call) => {
    for (const each of messages) call.write(each);
    if (error === undefined) call.end();
    else call.emit('error', toStatus(error));
  };
}

/** The events of an answer, each with its fields. */
function eventsIn(text: string): Record<string, string>[] {
  return text
    .split('\n\n')
    .filter((event) => event !== '' && !event.startsWith(':'))
    .map((event) =>
      Object.fromEntries(event.split('\n').map((line) => line.split(/: (.*)/s).slice(0, 2) as [string, string])),
    );
}

const statusMessage = ({ code, details: text, metadata }: ReturnType<typeof toStatus>): Buffer => {
  const encoded = metadata!.get('grpc-status-details-bin')[0] as Buffer;
  const { details } = Status.decode(encoded);
  return Buffer.from(Status.encode({ code: code as number, message: text as string, details }).finish());
};

/** A TalkResponse with a google.rpc.Status, which ProtoJSON could only write with the types of its details. */
function failed(id: number, error: HubError): Buffer {
  const inner = statusMessage(toStatus(error));
  const length = [(inner.length & 0x7f) | 0x80, inner.length >> 7];
  return Buffer.concat([Buffer.from([0x08, id]), Buffer.from([0x22, ...length]), inner]);
}

test('events: each message is one, with its type, its id and its value, and nothing may change them on their way', async (t) => {
  const { backend, send } = await fixture(t);
  says(backend, [word(1), word(2, 'a\nb'), whole(3)]);
  const {
    status: code,
    headers,
    text,
  } = await send('POST /api/1/talk', {
    body: { text: 'x' },
    headers: { ...accepting, 'accept-encoding': 'gzip' },
  });
  t.is(code, 200);
  t.like(headers, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
    'content-encoding': undefined,
  });
  t.is(
    text,
    [
      'retry: 1500\n',
      'event: word\nid: 1\ndata: {"text":"hello","note":null}\n',
      'event: word\nid: 2\ndata: {"text":"a\\nb","note":null}\n',
      'event: whole\nid: 3\ndata: {"words":[{"text":"hello","note":null}]}\n',
      '',
    ].join('\n'),
  );
});

test('events: they are asked for by Accept or by a field, and the backend is told by the field', async (t) => {
  const { backend, send } = await fixture(t);
  says(backend, [whole(1)]);
  const asks = [
    [{ body: { stream: true } }, true],
    [{ body: {}, headers: { accept: 'application/json, text/event-stream' } }, true],
    [{ body: { stream: false }, headers: accepting }, true],
    [{ headers: accepting }, true],
    [{ body: { stream: false } }, false],
    [{ body: {}, headers: { accept: '*/*' } }, false],
    [{}, false],
  ] as const;
  for (const [asked, isStream] of asks) {
    const { headers } = await send('POST /api/1/talk', asked);
    t.is(headers['content-type'], isStream ? 'text/event-stream' : 'application/json', JSON.stringify(asked));
    t.is((backend.calls.at(-1)!.request as { stream?: boolean }).stream ?? false, isStream, JSON.stringify(asked));
  }
});

test('events: who asks for none gets the value of the last one', async (t) => {
  const { backend, send } = await fixture(t);
  says(backend, [word(1), whole(2)]);
  const answer = await send('POST /api/1/talk', { body: { text: 'x', conversation_id: null } });
  t.is(answer.status, 200);
  t.deepEqual(answer.json, { words: [{ text: 'hello', note: null }] });
  says(backend, []);
  t.is((await send('POST /api/1/talk', { body: {} })).status, 204);
});

test('events: an error before the first one is an answer, whether or not events are asked for', async (t) => {
  const { backend, send } = await fixture(t);
  says(backend, [], speakerError);
  for (const headers of [{}, accepting]) {
    const answer = await send('POST /api/1/talk', { body: {}, headers });
    t.is(answer.status, 502);
    t.is(answer.headers['content-type'], 'application/problem+json');
    t.like(answer.json, { error_code: 'SPEAKER_ERROR', message: 'Nobody speaks', detail: 'Nobody speaks', code: 502 });
  }
  const wrong = await send('POST /api/1/talk', { body: { text: 7 }, headers: accepting });
  t.is(wrong.status, 400);
  t.deepEqual(wrong.json['field_errors'], { text: ['must be a string'] });
});

test('events: an error behind others, told by a message or by the end of the call, is one, too', async (t) => {
  const { backend, send } = await fixture(t);
  const problemIn = (text: string) => {
    const last = eventsIn(text).at(-1)!;
    return { type: last['event'], id: last['id'], problem: JSON.parse(last['data'] as string) as object };
  };
  says(backend, [word(1), failed(2, speakerError)]);
  const told = await send('POST /api/1/talk', { body: {}, headers: accepting });
  t.is(told.status, 200);
  t.like(problemIn(told.text), { type: 'error', id: '2' });
  t.like(problemIn(told.text).problem, {
    status: 502,
    error_code: 'SPEAKER_ERROR',
    message: 'Nobody speaks',
    code: 502,
  });
  const json = await send('POST /api/1/talk', { body: {} });
  t.is(json.status, 502);
  t.like(json.json, { error_code: 'SPEAKER_ERROR', request_id: json.headers['x-request-id'] });

  says(backend, [word(1)], speakerError);
  const ended = await send('POST /api/1/talk', { body: {}, headers: accepting });
  t.like(problemIn(ended.text), { type: 'error', id: undefined });
  t.like(problemIn(ended.text).problem, { status: 502, error_code: 'SPEAKER_ERROR', code: 502 });
  t.is((await send('POST /api/1/talk', { body: {} })).status, 502);
});

test('events: where they are always sent, none at all is 204', async (t) => {
  const { backend, send } = await fixture(t);
  says(backend, []);
  const nothing = await send('GET /api/1/talk');
  t.is(nothing.status, 204);
  t.is(nothing.headers['content-type'], undefined);
  says(backend, [word(7)]);
  const something = await send('GET /api/1/talk');
  t.is(something.headers['content-type'], 'text/event-stream');
  t.is(something.text, 'event: word\nid: 7\ndata: {"text":"hello","note":null}\n\n');
  const head = await send('HEAD /api/1/talk');
  t.is(head.status, 200);
  t.is(head.headers['content-type'], 'text/event-stream');
});

test('events: Last-Event-ID is a field, which the query may give, too', async (t) => {
  const { backend, send } = await fixture(t);
  says(backend, []);
  const idOf = async (line: string, headers: Record<string, string> = {}) => {
    const { status: code } = await send(line, { headers });
    return code === 204 ? (backend.calls.at(-1)!.request as { lastEventId?: string }).lastEventId : code;
  };
  t.is(await idOf('GET /api/1/talk'), undefined);
  t.is(await idOf('GET /api/1/talk', { 'last-event-id': '12' }), '12');
  t.is(await idOf('GET /api/1/talk?last_event_id=3', { 'last-event-id': '12' }), '3');
  t.is(await idOf('GET /api/1/talk', { 'last-event-id': 'x' }), 400);
  const wrong = await send('GET /api/1/talk', { headers: { 'last-event-id': 'x' } });
  t.deepEqual(Object.keys(wrong.json['field_errors'] as object), ['last-event-id']);
});

test('events: a client that waits is told that the connection is alive, also before the first one', async (t) => {
  const { backend, gateway } = await fixture(t, {}, { heartbeat: 50 });
  let call: Call | undefined;
  backend.sender = (stream) => (call = stream);
  const request = httpRequest({ port: gateway.port, host: '127.0.0.1', path: '/api/1/talk', agent: false }).end();
  const [answer] = (await once(request, 'response')) as [IncomingMessage];
  t.is(answer.headers['content-type'], 'text/event-stream');
  let text = '';
  answer.setEncoding('utf8').on('data', (piece: string) => (text += piece));
  await eventually('two comments', () => text.startsWith(': \n\n: \n\n'), Boolean);
  call!.write(word(1));
  await eventually('the event', () => text.includes('event: word'), Boolean);
  const before = text.length;
  await eventually(
    'another comment',
    () => text.slice(before),
    (more) => more.startsWith(': \n\n'),
  );
  const cancelled = once(call!, 'cancelled');
  request.on('error', () => {});
  answer.on('error', () => {});
  request.destroy();
  await cancelled;
});

test('events: they begin with the initial metadata of the backend, and each is sent at once', async (t) => {
  const { backend, gateway } = await fixture(t);
  let call: Call | undefined;
  backend.sender = (stream) => {
    call = stream;
    stream.sendMetadata(stream.metadata.clone());
  };
  const request = httpRequest({ port: gateway.port, host: '127.0.0.1', path: '/api/1/talk', agent: false }).end();
  const [answer] = (await once(request, 'response')) as [IncomingMessage];
  t.is(answer.statusCode, 200);
  answer.setEncoding('utf8');
  for (const id of [1, 2, 3]) {
    const arrived = once(answer, 'data');
    call!.write(word(id));
    t.regex(((await arrived) as [string])[0], new RegExp(`^event: word\nid: ${id}\n`));
  }
  call!.end();
  await once(answer, 'end');
});

test('request headers: they fill a field, unless the body does', async (t) => {
  const { backend, send } = await fixture(t);
  says(backend, []);
  const keyOf = () => (backend.calls.at(-1)!.request as { key?: string }).key;
  const headers = { 'idempotency-key': 'of the header' };
  await send('POST /api/1/talk', { body: {}, headers });
  t.is(keyOf(), 'of the header');
  await send('POST /api/1/talk', { body: { key: 'of the body' }, headers });
  t.is(keyOf(), 'of the body');
  await send('POST /api/1/talk?key=x', { body: {} });
  t.is(keyOf(), undefined);
});

test('the caller in the path: what is wrong with the body is told when the backend has nothing else to say', async (t) => {
  const { backend, send } = await fixture(t);
  const wrong = { body: '{"text":', headers: { 'content-type': 'application/json' } };
  const malformed = await send('POST /api/1/talk', wrong);
  t.is(malformed.status, 400);
  t.like(malformed.json, { error_code: 'MALFORMED_JSON', code: 400 });
  t.deepEqual(backend.calls.at(-1)?.request, { userId: '1' });
  backend.violations = [];
  says(backend, [whole(1)]);
  // A backend that lets it pass has no say.
  t.is((await send('POST /api/1/talk', wrong)).status, 400);
});

test('joined arrays: of all messages one array, whatever is in each', async (t) => {
  const { backend, send } = await fixture(t);
  const words = registry.getMessage('transcoding.v1.Words') as DescMessage;
  const some = (...texts: string[]) => encode(words, { words: texts.map((text) => ({ text })) });
  const shown = (...texts: string[]) => texts.map((text) => ({ text, note: null }));
  const cases: [Buffer[], unknown][] = [
    [[], []],
    [[some()], []],
    [[some('a', 'b')], shown('a', 'b')],
    [[some(), some('a'), some(), some('b', 'c'), some()], shown('a', 'b', 'c')],
  ];
  for (const [messages, expected] of cases) {
    says(backend, messages);
    const answer = await send('GET /api/1/words');
    t.is(answer.status, 200);
    t.is(answer.headers['content-type'], 'application/json');
    t.deepEqual(answer.json, expected as never);
  }
  says(backend, [some('a')], new HubError('NOT_FOUND', 'THING_NOT_FOUND', 'There is no such thing'));
  t.is((await send('GET /api/1/words')).status, 404, 'an error while nothing was sent is an answer');
  says(backend, [some('a'), some('b'), some('c')], new HubError('INTERNAL', 'INTERNAL', 'broken'));
  await t.throwsAsync(send('GET /api/1/words'), undefined, 'one that breaks off looks whole');
  says(backend, [some('a')]);
  const { etag } = (await send('GET /api/1/words')).headers;
  t.is((await send('GET /api/1/words', { headers: { 'if-none-match': etag as string } })).status, 304);
  says(backend, [some('a'), some('b')]);
  t.is((await send('HEAD /api/1/words')).status, 200);
});

test('joined arrays: a client that takes nothing holds the backend up', async (t) => {
  const { backend, gateway, send } = await fixture(t, { REQUEST_TIMEOUT: '60s' });
  const words = registry.getMessage('transcoding.v1.Words') as DescMessage;
  const piece = encode(words, { words: [{ text: 'x'.repeat(256 * 1024) }] });
  let sent = 0;
  const total = 400;
  backend.sender = (call) => {
    const more = () => {
      while (sent < total) {
        sent += 1;
        if (call.write(piece)) continue;
        call.once('drain', more);
        return;
      }
      call.end();
    };
    more();
  };
  const request = httpRequest({ port: gateway.port, host: '127.0.0.1', path: '/api/1/words', agent: false }).end();
  const [answer] = (await once(request, 'response')) as [IncomingMessage];
  let before = 0;
  await eventually(
    'nothing more is sent',
    async () => {
      for (let count = 0; count < 10; count++) await send('GET /v1/things/a');
      const isSteady = sent === before;
      before = sent;
      return isSteady;
    },
    Boolean,
  );
  t.true(sent < total, 'what nobody takes is not asked for');
  let text = '';
  for await (const bytes of answer.setEncoding('utf8')) text += bytes as string;
  t.is((JSON.parse(text) as unknown[]).length, total);
});

test('problems: with the text and the status once more below the path of the style, and in the envelope further down', async (t) => {
  const { send } = await fixture(t);
  const unknown = ['GET /api', 'GET /api/1', 'GET /api/1/nothing', 'GET /api/v1x/y', 'GET /%61pi/1/nothing'];
  for (const line of unknown) {
    const { status: code, json } = await send(line);
    t.is(code, 404, line);
    t.like(json, { error_code: 'ROUTE_NOT_FOUND', status: 404, code: 404, message: json['detail'] }, line);
  }
  t.like((await send('PUT /api/1/talk')).json, { error_code: 'METHOD_NOT_ALLOWED', code: 405 });
  t.like((await send('GET /api/%zz/talk')).json, { error_code: 'MALFORMED_PATH', code: 400 });
  t.like((await send('GET /v1/nothing')).json, { error_code: 'ROUTE_NOT_FOUND', code: undefined, message: undefined });
});

test('variables: they take nothing that is below the longer path of others', async (t) => {
  const { backend, send } = await fixture(t);
  says(backend, []);
  for (const line of ['GET /api/v1/talk', 'GET /api/%761/talk', 'DELETE /api/v1/hush', 'POST /api/v1/talk']) {
    const { status: code, json } = await send(line);
    t.is(code, 404, line);
    t.like(json, { data: null, error: { code: 'NOT_FOUND' } }, line);
  }
  t.is((await send('GET /api/v2/talk')).status, 204);
  t.is((await send('GET /api/V1/talk')).status, 204);
});

test('success: 204 has no body', async (t) => {
  const { send } = await fixture(t);
  const { status: code, text, headers } = await send('DELETE /api/1/hush');
  t.is(code, 204);
  t.is(text, '');
  t.is(headers['content-type'], undefined);
});

test('the gateway has no health of its own below a path without envelopes', async (t) => {
  const { send } = await fixture(t);
  t.is((await send('GET /api/v1/health')).status, 200);
  t.is((await send('GET /api/health')).status, 404);
});

test('events: the status that a backend ends with before them is that of the answer', async (t) => {
  const { backend, send } = await fixture(t);
  backend.sender = (call) => call.emit('error', { code: status.UNAUTHENTICATED, details: 'log in' });
  const { status: code, headers, json } = await send('GET /api/1/talk');
  t.is(code, 401);
  t.is(headers['www-authenticate'], 'Bearer');
  t.like(json, { code: 401 });
});
