import { once } from 'node:events';
import {
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { connectivityState, status, type ServiceError } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import type { CallError } from '#lib/rpc/delivery.ts';
import { asLost, Reach } from '#lib/rpc/reach.ts';
import { behindTime } from '../../test/clock.ts';
import { eventually } from '../../test/eventually.ts';
import { endings, serveRaw, type Ending } from '../../test/raw-http2.ts';
import type { StreamListener } from './stream-exchange.ts';
import { UnaryClient } from './unary-client.ts';
import { keepalives, type Keepalive } from './unary-peer.ts';

const path = '/a.B/C';
const request = Buffer.from('request');

interface Served {
  server: Http2Server;
  address: string;
  sessions: ServerHttp2Session[];
  streams: ServerHttp2Stream[];
}

/** A bare HTTP/2 server, on which each stream is answered by `answer`. */
async function serve(t: ExecutionContext, answer: (stream: ServerHttp2Stream) => unknown, port = 0): Promise<Served> {
  const server = createServer();
  const served: Served = { server, address: '', sessions: [], streams: [] };
  server.on('session', (session) => {
    served.sessions.push(session);
    session.on('error', () => {});
  });
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => {});
    served.streams.push(stream);
    answer(stream);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  served.address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  t.teardown(() => {
    for (const session of served.sessions) session.destroy();
    server.close();
  });
  return served;
}

function framed(text: string): Buffer {
  const frame = Buffer.alloc(5 + text.length);
  frame.writeUInt32BE(text.length, 1);
  frame.write(text, 5);
  return frame;
}

/** Answers with a text and a status of gRPC's. */
function answering(text: string, trailers: Record<string, string> = { 'grpc-status': '0' }) {
  return (stream: ServerHttp2Stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'x-initial': 'i' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    stream.end(framed(text));
  };
}

async function connected(
  t: ExecutionContext,
  target: string,
  options: { maxAnswer?: number; keepalive?: Keepalive; window?: number } = {},
) {
  const client = new UnaryClient(target, {
    tls: undefined,
    maxAnswer: 1_000,
    keepalive: keepalives.foreign,
    ...options,
  });
  t.teardown(() => client.close());
  await until(client, connectivityState.READY);
  return client;
}

async function until(client: UnaryClient, wanted: connectivityState): Promise<void> {
  for (;;) {
    const state = client.getConnectivityState(true);
    if (state === wanted) return;
    await new Promise<void>((resolve) => client.watchConnectivityState(state, Infinity, resolve));
  }
}

function call(client: UnaryClient, deadline = Infinity, onCall?: (cancel: () => void) => void) {
  return client.call(path, { 'x-a': ['b', 'c'] }, request, deadline, onCall);
}

async function failure(work: Promise<unknown>): Promise<CallError> {
  return (await work.then(
    () => undefined,
    (error: unknown) => error,
  )) as CallError;
}

test('unary: an answer has its message, its headers and its trailers', async (t) => {
  const { address } = await serve(t, answering('hello', { 'grpc-status': '0', 'x-last': 'l' }));
  const { message, headers, trailers } = await call(await connected(t, address));
  t.is(message.toString(), 'hello');
  t.is(headers['x-initial'], 'i');
  t.is(trailers['x-last'], 'l');
});

test('unary: a status is an error, with what was said about it', async (t) => {
  const { address } = await serve(t, answering('', { 'grpc-status': '5', 'grpc-message': 'n%C3%B3', 'x-last': 'l' }));
  const { code, details, metadata } = await failure(call(await connected(t, address)));
  t.is(code, status.NOT_FOUND);
  t.is(details, 'nó');
  t.deepEqual(metadata.get('x-last'), ['l']);
});

test('unary: what is no answer of gRPC is an error', async (t) => {
  const cases: [(stream: ServerHttp2Stream) => void, status][] = [
    [(stream) => stream.respond({ ':status': 200, 'grpc-status': '7' }, { endStream: true }), status.PERMISSION_DENIED],
    [(stream) => stream.respond({ ':status': 502 }, { endStream: true }), status.UNAVAILABLE],
    [(stream) => stream.respond({ ':status': 404 }, { endStream: true }), status.UNIMPLEMENTED],
    [(stream) => stream.close(0x7), status.UNAVAILABLE],
    [(stream) => stream.close(0x2), status.INTERNAL],
    [answering('x'.repeat(1_001)), status.RESOURCE_EXHAUSTED],
    [(stream) => stream.session?.destroy(), status.UNAVAILABLE],
  ];
  for (const [answer, expected] of cases) {
    const { address } = await serve(t, answer);
    t.is((await failure(call(await connected(t, address)))).code, expected);
  }
});

test('unary: whatever ends a call, the error says how far it came, and a status what the server meant', async (t) => {
  await Promise.all(
    endings.map(async (ending) => {
      const { address } = await serveRaw(t, ending.act);
      const error = await failure(call(await connected(t, address)));
      t.is(error.delivery, ending.delivery, ending.what);
      t.is(asLost(error).code, ending.code, ending.what);
      if (ending.details !== undefined) t.is(error.details, ending.details, ending.what);
    }),
  );
});

test('unary: how often a call is made is decided by how far it came, and by nothing that is said', async (t) => {
  const tried = async ({ act }: Ending, isRepeatable: boolean) => {
    const server = await serveRaw(t, act);
    const client = await connected(t, server.address);
    const reach = new Reach(client);
    await failure(reach.call(() => call(client), { isRepeatable, deadline: Date.now() + 60_000 }));
    return server.requests;
  };
  await Promise.all(
    endings.flatMap((ending) =>
      [false, true].map(async (isRepeatable) => {
        const isSafe =
          ending.delivery === 'refused unprocessed' || (ending.delivery === 'maybe processed' && isRepeatable);
        t.is(await tried(ending, isRepeatable), isSafe ? 5 : 1, `${ending.what}, ${isRepeatable}`);
      }),
    ),
  );
});

test('unary: a status is digits, and OK is 0', async (t) => {
  const codeOf = async (given: string | string[]) => {
    const { address } = await serveRaw(t, (request) => {
      request.fields({ ':status': '200' });
      request.data(framed('answer'));
      request.fields({ 'grpc-status': given }, 'end');
    });
    const error = await failure(call(await connected(t, address)));
    return error === undefined ? status.OK : error.code;
  };
  for (const ok of ['0', '00']) t.is(await codeOf(ok), status.OK, ok);
  for (const wrong of [
    '',
    ' ',
    ' 0',
    '0 ',
    '\t0',
    '0x0',
    '1e1',
    '0e0',
    '-0',
    '+0',
    '0,0',
    'x',
    ['0', '0'],
    ['0', '5'],
  ]) {
    t.is(await codeOf(wrong), status.UNKNOWN, JSON.stringify(wrong));
  }
  for (const [text, code] of [
    ['1', status.CANCELLED],
    ['05', status.NOT_FOUND],
    ['16', status.UNAUTHENTICATED],
    ['17', status.UNKNOWN],
    ['99999999999999999999', status.UNKNOWN],
  ] as const) {
    t.is(await codeOf(text), code, text);
  }
});

test('unary: what was given up, and what found no server, is told apart', async (t) => {
  const { address, server, sessions, streams } = await serve(t, () => {});
  const client = await connected(t, address);
  t.is((await failure(call(client, Date.now() + 20))).delivery, 'given up');
  t.is((await failure(call(client, Infinity, (cancel) => cancel()))).delivery, 'given up');
  const lost = failure(call(client));
  await eventually(
    'all are there',
    () => streams.length,
    (count) => count === 3,
  );
  sessions[0]?.destroy();
  t.is((await lost).delivery, 'maybe processed');
  server.close();
  await until(client, connectivityState.TRANSIENT_FAILURE);
  t.is((await failure(call(client))).delivery, 'never sent');
});

test.serial('unary: a call that is lost once its deadline has passed has exceeded it', async (t) => {
  for (const ending of endings.filter(({ delivery }) => delivery === 'maybe processed')) {
    // oxlint-disable-next-line no-await-in-loop -- the clock is everybody's
    const client = await connected(t, (await serveRaw(t, ending.act)).address);
    // oxlint-disable-next-line no-await-in-loop
    const error = await behindTime(60_000, () => failure(call(client, Date.now() + 60_000)));
    t.like(error, { code: status.DEADLINE_EXCEEDED, delivery: 'given up' }, ending.what);
    client.close();
  }
});

test('unary: a deadline and a cancellation end the call on both sides', async (t) => {
  const { address, streams } = await serve(t, () => {});
  const client = await connected(t, address);
  t.is((await failure(call(client, Date.now() + 20))).code, status.DEADLINE_EXCEEDED);
  let cancel = () => {};
  const cancelled = failure(call(client, Infinity, (ofCall) => (cancel = ofCall)));
  cancel();
  t.is((await cancelled).code, status.CANCELLED);
  for (const stream of streams) if (!stream.closed) await once(stream, 'close');
  t.true(streams.every(({ closed }) => closed));
});

test('unary: calls that are given up end no other, however many, though the server ends connections with many resets', async (t) => {
  t.timeout(60_000);
  const slow: ServerHttp2Stream[] = [];
  const { address, streams, sessions } = await serve(t, (stream) => void slow.push(stream));
  const client = await connected(t, address);
  const bystander = call(client);
  await eventually('it is there', () => streams.length, Boolean);
  // The limit of Node's servers is 1,000.
  for (let round = 0; round < 15; round += 1) {
    const cancels: (() => void)[] = [];
    const given = Array.from({ length: 200 }, () => failure(call(client, Infinity, (cancel) => cancels.push(cancel))));
    const expected = streams.length + given.length;
    await eventually(
      'they are there',
      () => streams.length,
      (count) => count === expected,
    );
    for (const cancel of cancels) cancel();
    for (const { code } of await Promise.all(given)) t.is(code, status.CANCELLED);
  }
  answering('still there')(slow[0]!);
  t.is((await bystander).message.toString(), 'still there');
  t.true(sessions.length > 1);
});

test('unary: calls go to all servers in turn', async (t) => {
  const [one, two] = [await serve(t, answering('1')), await serve(t, answering('2'))];
  const client = await connected(t, `ipv4:${one.address},${two.address}`);
  const heard = new Set<string>();
  while (heard.size < 2) heard.add((await call(client)).message.toString());
  one.server.close();
  one.sessions[0]?.destroy();
  const before = one.streams.length;
  // One that breaks meanwhile says so.
  for (let answers = 0; answers < 5;) {
    const failed = await failure(call(client));
    if (failed === undefined) answers += 1;
    else t.is(failed.code, status.UNAVAILABLE);
  }
  t.true(one.streams.length <= before + 1);
});

test('unary: a server that says goodbye answers what it has, and gets nothing more', async (t) => {
  let waiting: ServerHttp2Stream | undefined;
  const { address, sessions } = await serve(t, (stream) => {
    if (waiting === undefined) waiting = stream;
    else answering('second')(stream);
  });
  const client = await connected(t, address);
  const first = call(client);
  while (waiting === undefined) await new Promise((resolve) => setImmediate(resolve));
  sessions[0]?.goaway(0, (waiting as ServerHttp2Stream).id);
  while (sessions.length < 2) await new Promise((resolve) => setImmediate(resolve));
  await until(client, connectivityState.READY);
  t.is((await call(client)).message.toString(), 'second');
  answering('first')(waiting);
  t.is((await first).message.toString(), 'first');
});

test('unary: a server that comes back is found again', async (t) => {
  const first = await serve(t, answering('1'));
  const client = await connected(t, first.address);
  first.server.close();
  first.sessions[0]?.destroy();
  await until(client, connectivityState.TRANSIENT_FAILURE);
  t.is((await failure(call(client))).code, status.UNAVAILABLE);
  await serve(t, answering('2'), Number(first.address.split(':')[1]));
  await until(client, connectivityState.READY);
  t.is((await call(client)).message.toString(), '2');
});

/** Answers with the request, or resets every tenth. */
async function answerNumbered(stream: ServerHttp2Stream): Promise<void> {
  // Not all of it comes of what is given up.
  const pieces = (await stream.toArray().catch(() => undefined)) as Buffer[] | undefined;
  if (pieces === undefined) return;
  const body = Buffer.concat(pieces);
  const number = body.readUInt32BE(5);
  if (number % 10 === 2) {
    stream.close(0x2);
    return;
  }
  if (number % 3 === 0) await new Promise((resolve) => setTimeout(resolve, number % 20));
  if (stream.destroyed) return;
  stream.respond({ ':status': 200, 'x-number': `${number}` }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'x-last': `${number}` }));
  stream.end(body);
}

test('unary: of many calls at once, large, given up and reset ones among them, each gets its own answer', async (t) => {
  const { address } = await serve(t, (stream) => void answerNumbered(stream));
  const client = await connected(t, address, { maxAnswer: 1_000_000 });
  const work = async (number: number) => {
    const message = Buffer.alloc(number % 50 === 4 ? 200_000 : 4 + (number % 300), number % 251);
    message.writeUInt32BE(number);
    let cancel = () => {};
    const answer = client.call(
      path,
      { 'x-long': 'l'.repeat(number % 40 === 5 ? 20_000 : 5) },
      message,
      Infinity,
      (given) => {
        cancel = given;
      },
    );
    if (number % 40 === 1) setTimeout(() => cancel(), number % 7);
    const found = await answer.catch((error: ServiceError) => error.code);
    if (typeof found === 'number') return found;
    t.true(found.message.equals(message));
    t.is(found.headers['x-number'], `${number}`);
    t.is(found.trailers['x-last'], `${number}`);
    return status.OK;
  };
  const counts = new Map<status, number>();
  let next = 0;
  const worker = async () => {
    while (next < 4_000) {
      const found = await work(next++);
      counts.set(found, (counts.get(found) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: 100 }, worker));
  t.is(counts.get(status.INTERNAL), 400);
  const [done, cancelled] = [counts.get(status.OK)!, counts.get(status.CANCELLED)!];
  t.is(done + cancelled, 3_600);
  t.true(cancelled > 0);
});

test('unary: a target that is no address is refused', (t) => {
  t.throws(() => new UnaryClient('a:b:c', { tls: undefined, maxAnswer: 1, keepalive: keepalives.foreign }), {
    message: /a:b:c/,
  });
});

/** What came of a call that is answered with a stream. */
class Heard implements StreamListener {
  headers: IncomingHttpHeaders | undefined;
  readonly texts: string[] = [];
  trailers: IncomingHttpHeaders | undefined;
  error: CallError | undefined;

  begin(headers: IncomingHttpHeaders): void {
    this.headers = headers;
  }

  messages(messages: readonly Buffer[]): void {
    this.texts.push(...messages.map(String));
  }

  end(trailers: IncomingHttpHeaders): void {
    this.trailers = trailers;
  }

  fail(error: CallError): void {
    this.error = error;
  }

  async over(): Promise<this> {
    await eventually('the stream is over', () => this.trailers ?? this.error, Boolean);
    return this;
  }
}

function listen(client: UnaryClient, deadline = Infinity) {
  const heard = new Heard();
  return { heard, ...client.stream(path, {}, request, deadline, heard) };
}

/** Begins to answer, and sends pieces one after the other; then the trailers, unless there are none. */
function streaming(pieces: readonly Buffer[], trailers?: Record<string, string>) {
  return async (stream: ServerHttp2Stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'x-initial': 'i' }, { waitForTrailers: true });
    if (trailers !== undefined) stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    for (const piece of pieces) {
      stream.write(piece);
      // A frame of its own.
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (trailers !== undefined) stream.end();
  };
}

test('streams: messages come in order however they are cut, between the headers and the trailers', async (t) => {
  const texts = ['one', '', 'a longer one', 'x'.repeat(900)];
  const all = Buffer.concat(texts.map(framed));
  for (const size of [1, 4, 7, 400, all.length]) {
    const pieces = Array.from({ length: Math.ceil(all.length / size) }, (_, index) =>
      all.subarray(index * size, (index + 1) * size),
    );
    const { address } = await serve(t, streaming(pieces, { 'grpc-status': '0', 'x-last': 'l' }));
    const { heard } = listen(await connected(t, address));
    await heard.over();
    t.is(heard.headers?.['x-initial'], 'i');
    t.deepEqual(heard.texts, texts, `pieces of ${size} bytes`);
    t.is(heard.trailers?.['x-last'], 'l');
  }
});

test('streams: whatever is wrong is told behind the messages that came before', async (t) => {
  const compressed = framed('zip');
  compressed[0] = 1;
  const ok = { 'grpc-status': '0' };
  const cases: [ReturnType<typeof streaming>, status, CallError['delivery']][] = [
    [streaming([framed('one')], { 'grpc-status': '9', 'grpc-message': 'no' }), status.FAILED_PRECONDITION, 'answered'],
    [streaming([framed('one'), compressed], ok), status.INTERNAL, 'answered'],
    [streaming([framed('one'), framed('x'.repeat(1_001)).subarray(0, 20)], ok), status.RESOURCE_EXHAUSTED, 'too large'],
    [streaming([framed('one'), framed('two').subarray(0, 6)], ok), status.INTERNAL, 'answered'],
    [streaming([framed('one')], { 'x-last': 'l' }), status.INTERNAL, 'maybe processed'],
    [
      async (stream) => {
        await streaming([framed('one')])(stream);
        setImmediate(() => stream.session?.destroy());
      },
      status.UNAVAILABLE,
      'maybe processed',
    ],
  ];
  for (const [answer, code, delivery] of cases) {
    const { address } = await serve(t, answer);
    const { heard } = listen(await connected(t, address));
    const { error, texts } = await heard.over();
    t.like(error, { code, delivery }, `${error?.message}`);
    t.deepEqual(texts, ['one']);
  }
});

test('streams: a server is held up by who takes nothing, and goes on when that does', async (t) => {
  const message = framed('x'.repeat(900));
  let written = 0;
  const { address } = await serve(t, async (stream) => {
    stream.respond({ ':status': 200 }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    for (; written < 2_000; written += 1) if (!stream.write(message)) await once(stream, 'drain');
    stream.end();
  });
  const client = await connected(t, address, { window: 64 * 1024 });
  const { heard, pause, resume } = listen(client);
  pause();
  let before = -1;
  await eventually(
    'nothing more comes',
    () => {
      const found = { count: heard.texts.length, isStill: heard.texts.length > 0 && heard.texts.length === before };
      before = found.count;
      return found;
    },
    ({ isStill }) => isStill,
  );
  t.true(heard.texts.length < 200, `${heard.texts.length} messages`);
  resume();
  await heard.over();
  t.is(heard.texts.length, 2_000);
  t.truthy(heard.trailers);
});

test('streams: who has cancelled is told so, and the server that its stream is over', async (t) => {
  const { address, streams } = await serve(t, streaming([framed('one')]));
  const { heard, cancel } = listen(await connected(t, address));
  await eventually('it has begun', () => heard.texts.length, Boolean);
  cancel();
  t.like(heard.error, { code: status.CANCELLED, delivery: 'given up' });
  await eventually(
    'the stream is reset',
    () => streams[0]!.rstCode,
    (code) => code === 8,
  );
});

test('streams: the deadline ends them', async (t) => {
  const { address } = await serve(t, streaming([framed('one')]));
  const { heard } = listen(await connected(t, address), Date.now() + 300);
  await heard.over();
  t.is(heard.error?.code, status.DEADLINE_EXCEEDED);
});

test('streams: one that was refused unprocessed is begun once more, and a second time not', async (t) => {
  let refusals = 1;
  const { address, streams } = await serve(t, (stream) => {
    if (refusals > 0) {
      refusals -= 1;
      stream.close(7);
    } else void streaming([framed('one')], { 'grpc-status': '0' })(stream);
  });
  const client = await connected(t, address);
  const first = listen(client);
  t.deepEqual((await first.heard.over()).texts, ['one']);
  t.is(streams.length, 2);
  refusals = 2;
  const second = listen(client);
  t.like((await second.heard.over()).error, { code: status.UNAVAILABLE, delivery: 'refused unprocessed' });
  t.is(streams.length, 4);
});

test('streams: without a connection they fail at once', async (t) => {
  const client = new UnaryClient('127.0.0.1:1', { tls: undefined, maxAnswer: 1_000, keepalive: keepalives.foreign });
  t.teardown(() => client.close());
  const { heard } = listen(client);
  t.like((await heard.over()).error, { code: status.UNAVAILABLE, delivery: 'never sent' });
});
