import { once } from 'node:events';
import { request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http';
import type { ServerWritableStream } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { encode, registry, type EchoStream } from '../../test/echo-backend.ts';
import { dial, fixture } from '../../test/echo-gateway.ts';
import { eventually } from '../../test/eventually.ts';
import { watchFrames } from '../../test/frames.ts';
import type { DescMessage } from '@bufbuild/protobuf';

const everything = registry.getMessage('transcoding.v1.Everything') as DescMessage;
const events = { headers: { accept: 'text/event-stream' } };

/** A request whose answer is read as it comes. */
function open(port: number, line: string, headers: Record<string, string> = {}): ClientRequest {
  const [method, path] = line.split(' ');
  return httpRequest({ port, host: '127.0.0.1', method, path, headers, agent: false });
}

async function answerTo(request: ClientRequest): Promise<IncomingMessage> {
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return response;
}

function linesOf(text: string): Record<string, Record<string, unknown>>[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, Record<string, unknown>>);
}

test('stream: each message is a line with its result', async (t) => {
  const { send } = await fixture(t);
  const answer = await send('GET /v1/streams/a?count=3');
  t.is(answer.status, 200);
  t.is(answer.headers['content-type'], 'application/json');
  const lines = linesOf(answer.text);
  t.deepEqual(
    lines.map(({ result }) => result?.['nested']),
    [0, 1, 2].map((count) => ({ name: 'a', count, inner: null, tags: [] })),
  );
  const named = await send('GET /v1/streams/a/nested?count=1');
  t.deepEqual(linesOf(named.text), [{ result: { name: 'a', count: 0, inner: null, tags: [] } }] as never);
  t.is((await send('GET /v1/streams/a?count=0')).text, '');
});

test('stream: an error before the first message is an answer, one after it is the last line', async (t) => {
  const { send } = await fixture(t);
  const early = await send('GET /v1/streams/a?code=5&reason=gone');
  t.is(early.status, 404);
  t.like(early.json, { error_code: 'NOT_FOUND', detail: 'gone' });
  const late = await send('GET /v1/streams/a?count=2&code=5&reason=gone');
  t.is(late.status, 200);
  const lines = linesOf(late.text);
  t.is(lines.length, 3);
  t.like(lines[2]?.['error'], { status: 404, error_code: 'NOT_FOUND', detail: 'gone' });
  t.is(lines[2]?.['error']?.['request_id'], late.headers['x-request-id']);
  t.is((await send('GET /v1/streams/a?count=x')).status, 400);
});

test('stream: who accepts events gets them', async (t) => {
  const { send } = await fixture(t);
  const answer = await send('GET /v1/streams/a/nested?count=2&code=13', events);
  t.is(answer.headers['content-type'], 'text/event-stream');
  const data = answer.text.split('\n\n').filter((event) => event !== '');
  t.is(data.length, 3);
  t.true(data.every((event) => event.startsWith('data: ') && !event.includes('\n')));
  const [first, , last] = data.map((event) => JSON.parse(event.slice('data: '.length)) as Record<string, object>);
  t.like(first, { result: { name: 'a', count: 0 } });
  t.like(last, { error: { status: 500, error_code: 'INTERNAL' } });
});

test('stream: events begin before the first of them, and end when the client goes away', async (t) => {
  const { backend, gateway } = await fixture(t);
  let call: ServerWritableStream<Buffer, Buffer> | undefined;
  const arrived = new Promise<void>((resolve) => {
    backend.sender = (stream) => {
      call = stream;
      stream.sendMetadata(stream.metadata.clone());
      resolve();
    };
  });
  const request = open(gateway.port, 'GET /v1/streams/a', events.headers);
  request.end();
  await arrived;
  const response = await answerTo(request);
  t.is(response.headers['content-type'], 'text/event-stream');
  const cancelled = once(call as ServerWritableStream<Buffer, Buffer>, 'cancelled');
  request.on('error', () => {});
  response.on('error', () => {});
  request.destroy();
  await cancelled;
  t.pass();
});

test('stream: a client that takes nothing holds the backend up', async (t) => {
  const { backend, gateway, send } = await fixture(t, { REQUEST_TIMEOUT: '60s' });
  const message = encode(everything, { textValue: 'x'.repeat(256 * 1024) });
  let sent = 0;
  const total = 400;
  backend.sender = (call) => {
    const more = () => {
      while (sent < total) {
        sent += 1;
        if (call.write(message)) continue;
        call.once('drain', more);
        return;
      }
      call.end();
    };
    more();
  };
  const request = open(gateway.port, 'GET /v1/streams/a');
  request.end();
  const response = await answerTo(request);
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
  let bytes = 0;
  for await (const piece of response) bytes += (piece as Buffer).length;
  t.true(bytes > total * 256 * 1024);
  t.is(sent, total);
});

test('stream: bodies of any type are sent as they are', async (t) => {
  const { send } = await fixture(t);
  const answer = await send('GET /v1/streams/a/bodies?count=2');
  t.is(answer.headers['content-type'], 'text/plain');
  t.is(answer.text, 'a 0a 1');
  await t.throwsAsync(send('GET /v1/streams/a/bodies?count=2&code=13'), undefined, 'one that breaks off looks whole');
  const single = await send('GET /v1/bodies/b');
  t.is(single.headers['content-type'], 'text/plain');
  t.is(single.text, 'b');
});

test('stream: a body of any type is taken as it is', async (t) => {
  const { backend, send } = await fixture(t);
  const body = Buffer.from([0, 255, 1]);
  const answer = await send('POST /v1/bodies', { body, headers: { 'content-type': 'image/png' } });
  t.is(answer.headers['content-type'], 'image/png');
  t.deepEqual(answer.bytes, body);
  const named = await send('PUT /v1/bodies/c', { body: 'a{}', headers: { 'content-type': 'text/css' } });
  t.is(named.status, 200);
  t.deepEqual(backend.calls.at(-1)?.request, {
    name: 'c',
    body: { contentType: 'text/css', data: Buffer.from('a{}').toString('base64') },
  });
});

test('stream: values in a body are messages, whatever is between them', async (t) => {
  const { send } = await fixture(t);
  for (const body of ['{"name":"a"}\n{"name":"b"}\n', '{"name":"a"}{"name":"b"}', ' {"name":\n"a"}  {"name":"b"} ']) {
    const { status: code, json } = await send('POST /v1/streams:collect', { body });
    t.is(code, 200);
    t.deepEqual(
      (json['children'] as { name: string }[]).map(({ name }) => name),
      ['a', 'b'],
    );
  }
  t.is((await send('POST /v1/streams:collect', { body: '' })).json['int32_value'], 0);
  for (const body of ['{"name":"a"}\n{"count":"x"}', '{"name":"a"} {', '[1]', 'x']) {
    t.is((await send('POST /v1/streams:collect', { body })).status, 400, body);
  }
});

test('stream: in both directions at once, each message is answered before the next is sent', async (t) => {
  const { backend, gateway } = await fixture(t);
  const request = open(gateway.port, 'POST /v1/streams:chat', { 'content-type': 'application/json' });
  request.write('{"name":"a"}\n');
  const response = await answerTo(request);
  response.setEncoding('utf8');
  const lines = response[Symbol.asyncIterator]();
  const next = async () => {
    const { value } = (await lines.next()) as { value: string };
    return JSON.parse(value) as { result: { name: string }; error?: unknown };
  };
  t.is((await next()).result.name, 'a');
  request.write('{"name":"b"}\n');
  t.is((await next()).result.name, 'b');
  request.end('{"name":7}\n');
  t.like(await next(), { error: { status: 400, error_code: 'INVALID_ARGUMENT' } });
  t.true((await lines.next()).done);
  t.is(backend.calls.length, 2);
});

type Patience = Parameters<typeof fixture>[2];
interface CutOptions {
  env?: NodeJS.ProcessEnv;
  patience?: Patience;
  head?: string;
  /** Whether the backend itself has ended the call. */
  isOver?: boolean;
}

/** Two messages on their way to a backend, whose frames are watched. */
async function sendTwo(t: ExecutionContext, path: string, env: NodeJS.ProcessEnv = {}, patience: Patience = {}) {
  const gateway = await fixture(t, env, patience, (address) => watchFrames(t, address));
  const { socket, until } = await dial(gateway.gateway.port);
  const head = `POST ${path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n`;
  const say = (text: string) => void socket.write(`${text.length.toString(16)}\r\n${text}\r\n`);
  return {
    ...gateway,
    socket,
    until,
    say,
    async begin(more = '') {
      socket.write(`${head}${more}\r\n`);
      say('{"name":"a"}{"name":"b"}\n');
      const [stream] = await eventually(
        'two messages',
        () => gateway.backend.streams,
        ([first]) => first?.messages === 2,
      );
      return stream as EchoStream;
    },
  };
}

type Sent = Awaited<ReturnType<typeof sendTwo>>;

/** Each way in which a stream of messages can end before its time. */
const cuts: readonly [what: string, cut: (sent: Sent, stream: EchoStream) => unknown, options?: CutOptions][] = [
  ['the client is lost', ({ socket }) => socket.destroy()],
  ['the client closes its side', ({ socket }) => socket.end()],
  ['the third message is no JSON', ({ say }) => say('{"name"}\n')],
  ['the third message has a wrong field', ({ say }) => say('{"count":"x"}\n')],
  ['the third message is too long', ({ say }) => say(`{"name":"${'x'.repeat(200)}`), { env: { BODY_LIMIT: '100' } }],
  ['what follows is no chunk', ({ socket }) => socket.write('zz\r\n')],
  ['nothing follows', () => {}, { patience: { uploadIdle: 1_500 } }],
  ['its deadline passes', () => {}, { head: 'Grpc-Timeout: 3S\r\n' }],
  ['the backend refuses it', (_sent, stream) => stream.fail({ code: 5, details: 'gone' }), { isOver: true }],
  ['the gateway stops', ({ gateway }) => gateway.stop(), { env: { HTTP_DRAIN: '50ms' } }],
];

for (const path of ['/v1/streams:collect', '/v1/streams:chat']) {
  for (const [what, cut, { env, patience, head, isOver } = {}] of cuts) {
    test.serial(`stream: ${path} never looks complete if ${what}`, async (t) => {
      const sent = await sendTwo(t, path, env, patience);
      const stream = await sent.begin(head);
      await cut(sent, stream);
      // What the backend has ended by itself isn't cancelled to it.
      if (isOver !== true) await eventually('the cancellation', () => stream.isCancelled, Boolean);
      await eventually('the reset', () => sent.frames.at(-1)?.resetWith !== undefined, Boolean);
      t.false(sent.frames.at(-1)?.isEnded, 'END_STREAM');
      t.false(stream.isWhole);
      t.is(stream.messages, 2);
      sent.socket.destroy();
    });
  }
}
