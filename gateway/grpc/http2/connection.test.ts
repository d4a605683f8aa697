import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { connect, createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { eventually } from '../../../test/eventually.ts';
import { ClientConnection } from './connection.ts';
import { RequestHead, type Fields, type Loss, type Receiver } from './request.ts';

const head = new RequestHead({ ':method': 'POST', ':scheme': 'http', ':path': '/a.B/C', ':authority': 'test' });
const mostResets = 3;
const window = { stream: 1024 * 1024, connection: 8 * 1024 * 1024 };

/** What came of a request. */
class Heard implements Receiver {
  heads: IncomingHttpHeaders[] = [];
  pieces: Buffer[] = [];
  ended: 'whole' | Loss | undefined;

  fields(fields: IncomingHttpHeaders): void {
    this.heads.push(fields);
  }

  data(piece: Buffer): void {
    this.pieces.push(piece);
  }

  end(): void {
    this.ended = 'whole';
  }

  lost(loss: Loss): void {
    this.ended = loss;
  }

  get body(): Buffer {
    return Buffer.concat(this.pieces);
  }

  async over(): Promise<this> {
    await eventually('the request is over', () => this.ended, Boolean);
    return this;
  }
}

interface Opened {
  connection: ClientConnection;
  socket: Socket;
  retired: () => boolean;
  /** How often it was said that the connection is worn. */
  worn: () => number;
  ask(body?: Buffer, fields?: Fields): { heard: Heard; cancel: () => void };
}

async function open(t: ExecutionContext, port: number): Promise<Opened> {
  const socket = connect(port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  let isRetired = false;
  let worn = 0;
  const connection = await new Promise<ClientConnection>((resolve) => {
    const opening = new ClientConnection(socket, {
      window,
      onReady: () => resolve(opening),
      onRetired: () => (isRetired = true),
      onTooManyResets: () => (worn += 1),
      maxResets: mostResets,
    });
  });
  return {
    connection,
    socket,
    retired: () => isRetired,
    worn: () => worn,
    ask(body = Buffer.from('request'), fields = {}) {
      const heard = new Heard();
      return { heard, cancel: connection.request(head, fields, body, heard) };
    },
  };
}

async function listening(t: ExecutionContext, server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => void server.close());
  return (server.address() as AddressInfo).port;
}

/** Node's server. */
async function serve(
  t: ExecutionContext,
  answer: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
  settings: { maxConcurrentStreams?: number; initialWindowSize?: number; maxFrameSize?: number } = {},
) {
  const server = createServer({ settings });
  const sessions: ServerHttp2Session[] = [];
  server.on('session', (session) => {
    sessions.push(session);
    session.on('error', () => {});
    t.teardown(() => session.destroy());
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    answer(stream, headers);
  });
  return { sessions, opened: await open(t, await listening(t, server as unknown as Server)) };
}

function echo(stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200 });
  stream.pipe(stream);
}

test('request: fields of any length arrive, also more than fit into a frame', async (t) => {
  let arrived: IncomingHttpHeaders = {};
  const { opened } = await serve(t, (stream, headers) => {
    arrived = headers;
    echo(stream);
  });
  const fields = { 'x-short': 's', 'x-list': ['1', '2'], 'x-long': 'l'.repeat(40_000), authorization: 'Bearer t' };
  const { heard } = opened.ask(Buffer.from('body'), fields);
  t.is((await heard.over()).body.toString(), 'body');
  t.like(arrived, { ...fields, 'x-list': '1, 2', ':method': 'POST', ':path': '/a.B/C', ':authority': 'test' });
  const { heard: empty } = opened.ask(Buffer.alloc(0), fields);
  t.is((await empty.over()).body.length, 0);
  t.is(empty.ended, 'whole');
});

test('request: of those that are given up only so many are reset; the answers of others come to their end unheard', async (t) => {
  const streams: ServerHttp2Stream[] = [];
  const { opened } = await serve(t, (stream) => void streams.push(stream));
  const bystander = opened.ask().heard;
  const asked = Array.from({ length: 10 }, () => opened.ask());
  await eventually(
    'all are there',
    () => streams.length,
    (count) => count === 11,
  );
  for (const [index, { cancel }] of asked.entries()) {
    cancel();
    t.is(opened.worn(), Math.max(0, index + 2 - mostResets));
  }
  await eventually(
    'some are reset',
    () => streams.filter(({ closed }) => closed).length,
    (count) => count === 6,
  );
  // Who leaves the connection ends nothing on it.
  opened.connection.leave();
  t.false(opened.connection.isOpen);
  for (const stream of streams) if (!stream.closed) echo(stream);
  t.is((await bystander.over()).ended, 'whole');
  t.true(asked.every(({ heard }) => heard.ended === undefined && heard.heads.length === 0));
  await eventually('it ends when all is answered', () => opened.socket.destroyed, Boolean);
  t.is(streams.filter(({ rstCode }) => rstCode === 0x8).length, 6);
  t.false(opened.retired());
});

test('request: one that waits for room goes on when the connection is left', async (t) => {
  const streams: ServerHttp2Stream[] = [];
  const { opened } = await serve(t, (stream) => void streams.push(stream), { maxConcurrentStreams: 1 });
  const [first, second] = [opened.ask().heard, opened.ask().heard];
  await eventually('the first is there', () => streams.length, Boolean);
  opened.connection.leave();
  echo(streams[0]!);
  await eventually(
    'the second is there',
    () => streams.length,
    (count) => count === 2,
  );
  echo(streams[1]!);
  t.is((await first.over()).ended, 'whole');
  t.is((await second.over()).ended, 'whole');
});

test('request: bodies and answers that are larger than all windows arrive whole', async (t) => {
  const { opened } = await serve(t, echo, { initialWindowSize: 1_000 });
  const bodies = [3_000_000, 1, 100_000, 20_000_000].map((size, index) => Buffer.alloc(size, index + 1));
  const asked = bodies.map((body) => opened.ask(body).heard);
  for (const [index, heard] of asked.entries()) {
    t.is((await heard.over()).ended, 'whole');
    t.true(heard.body.equals(bodies[index]!));
  }
});

test('request: a window that becomes smaller meanwhile is kept to', async (t) => {
  const streams: ServerHttp2Stream[] = [];
  const { opened, sessions } = await serve(t, (stream) => {
    stream.respond({ ':status': 200 });
    streams.push(stream);
  });
  const body = Buffer.alloc(200_000, 'b');
  const { heard } = opened.ask(body);
  await eventually('the request is there', () => streams.length, Boolean);
  await new Promise((resolve) => sessions[0]!.settings({ initialWindowSize: 10 }, resolve));
  streams[0]!.pipe(streams[0]!);
  t.true((await heard.over()).body.equals(body));
});

test('request: no more at once than the server takes; the others wait, and may be given up meanwhile', async (t) => {
  let most = 0;
  const open = new Set<ServerHttp2Stream>();
  let served = 0;
  const { opened } = await serve(
    t,
    (stream) => {
      served += 1;
      open.add(stream);
      stream.on('close', () => open.delete(stream));
      most = Math.max(most, open.size);
      setTimeout(() => stream.destroyed || echo(stream), 20);
    },
    { maxConcurrentStreams: 2 },
  );
  const asked = Array.from({ length: 9 }, () => opened.ask());
  const [given] = asked.splice(6, 1);
  given!.cancel();
  for (const { heard } of asked) t.is((await heard.over()).ended, 'whole');
  t.is(given!.heard.ended, undefined);
  t.is(most, 2);
  t.is(served, 8);
});

test('request: an answer that comes before the body has gone ends it', async (t) => {
  let code: number | undefined;
  const { opened } = await serve(t, (stream) => {
    stream.on('close', () => (code = stream.rstCode));
    stream.respond({ ':status': 200, 'grpc-status': '3' }, { endStream: true });
  });
  const { heard } = opened.ask(Buffer.alloc(1_000_000));
  t.is((await heard.over()).ended, 'whole');
  await eventually(
    'the stream is closed',
    () => code,
    (found) => found !== undefined,
  );
  t.is((await opened.ask(Buffer.alloc(0)).heard.over()).ended, 'whole');
});

test('ping: is answered, by both sides; close: waits for the answers', async (t) => {
  let stream: ServerHttp2Stream | undefined;
  const { opened, sessions } = await serve(t, (asked) => (stream = asked));
  await new Promise<void>((resolve) => opened.connection.ping(resolve));
  await new Promise<void>((resolve, reject) => {
    sessions[0]!.ping(Buffer.from('12345678'), (error, _, payload) => {
      t.is(payload.toString(), '12345678');
      if (error === null) resolve();
      else reject(error);
    });
  });
  const { heard } = opened.ask();
  await eventually('the request is there', () => stream, Boolean);
  opened.connection.close();
  t.false(opened.connection.isOpen);
  t.true(opened.retired());
  echo(stream!);
  t.is((await heard.over()).ended, 'whole');
  if (!opened.socket.destroyed) await once(opened.socket, 'close');
});

/** A server that sends whatever a test says. */
async function serveRaw(t: ExecutionContext) {
  const sockets: Socket[] = [];
  let received = Buffer.alloc(0);
  const server = createTcpServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    socket.on('data', (piece) => (received = Buffer.concat([received, piece as Buffer])));
    socket.write(frame(0x4, 0, 0));
  });
  const opened = await open(t, await listening(t, server));
  const [socket] = sockets as [Socket];
  t.teardown(() => void socket.destroy());
  return {
    opened,
    socket,
    /** Frames of the client, of one type. */
    framesOf(type: number): Buffer[] {
      const found: Buffer[] = [];
      for (let at = 24; at + 9 <= received.length;) {
        const end = at + 9 + received.readUIntBE(at, 3);
        if (received[at + 3] === type) found.push(received.subarray(at, end));
        at = end;
      }
      return found;
    },
  };
}

function frame(type: number, flags: number, id: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(9);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(id, 5);
  return Buffer.concat([bytes, payload]);
}

const ok = Buffer.from([0x88]);
const [data, headers, reset, goAway, continuation] = [0x0, 0x1, 0x3, 0x7, 0x9];
const [endStream, endHeaders, padded, priority] = [0x1, 0x4, 0x8, 0x20];

function uint32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

test('frames: padded, with priorities, in parts, of unknown types, after others and byte by byte: all are understood', async (t) => {
  const { opened, socket } = await serveRaw(t);
  const { heard } = opened.ask();
  const field = Buffer.from('\0\x01x\x01y', 'latin1');
  const answer = Buffer.concat([
    frame(headers, endHeaders, 1, Buffer.from([0x08, 0x03, ...Buffer.from('103')])),
    frame(0x2, 0, 1, Buffer.alloc(5)),
    frame(0xfa, 0xff, 0, Buffer.from('whatever')),
    frame(headers, padded | priority, 1, Buffer.concat([Buffer.from([2]), Buffer.alloc(5), ok, Buffer.alloc(2)])),
    frame(continuation, 0, 1, field.subarray(0, 2)),
    frame(continuation, endHeaders, 1, field.subarray(2)),
    frame(data, padded, 1, Buffer.from('\x03body\0\0\0', 'latin1')),
    frame(data, 0, 1),
    frame(headers, endHeaders | endStream, 1, field),
  ]);
  for (const byte of answer) {
    socket.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  await heard.over();
  t.is(heard.ended, 'whole');
  t.deepEqual(
    heard.heads.map((fields) => ({ ...fields })),
    [{ ':status': '200', x: 'y' }, { x: 'y' }] as object[],
  );
  t.is(heard.body.toString(), 'body');
});

test('frames: what comes for a request that was given up is of no consequence', async (t) => {
  const { opened, socket, framesOf } = await serveRaw(t);
  const { heard, cancel } = opened.ask();
  await eventually('the request is there', () => framesOf(headers).length, Boolean);
  cancel();
  cancel();
  await eventually('it is told to the server', () => framesOf(reset).length, Boolean);
  t.deepEqual(framesOf(reset), [frame(reset, 0, 1, uint32(8))]);
  // Its fields are decoded all the same: the next ones build on them.
  const indexed = Buffer.concat([ok, Buffer.from('\x40\x01x\x01y', 'latin1')]);
  socket.write(frame(headers, endHeaders, 1, indexed));
  socket.write(frame(data, endStream, 1, Buffer.from('late')));
  const next = opened.ask().heard;
  await eventually(
    'the next one is there',
    () => framesOf(headers).length,
    (count) => count === 2,
  );
  socket.write(frame(headers, endHeaders | endStream, 3, Buffer.from([0x88, 0xbe])));
  await next.over();
  t.deepEqual(
    next.heads.map((fields) => ({ ...fields })),
    [{ ':status': '200', x: 'y' }],
  );
  t.is(heard.ended, undefined);
});

test('goodbye: what the server has not looked at is refused, the rest gets its answer, and nothing more is sent', async (t) => {
  const { opened, socket, framesOf } = await serveRaw(t);
  const asked = [opened.ask().heard, opened.ask().heard];
  await eventually(
    'both are there',
    () => framesOf(headers).length,
    (count) => count === 2,
  );
  socket.write(frame(goAway, 0, 0, uint32(1, 0)));
  t.deepEqual((await asked[1]!.over()).ended, { kind: 'refused' });
  t.false(opened.connection.isOpen);
  t.true(opened.retired());
  t.is(asked[0]!.ended, undefined);
  socket.write(frame(headers, endHeaders | endStream, 1, ok));
  t.is((await asked[0]!.over()).ended, 'whole');
  if (!opened.socket.destroyed) await once(opened.socket, 'close');
});

test('reset: says why; a connection that is lost says so to all', async (t) => {
  const { opened, socket, framesOf } = await serveRaw(t);
  const asked = Array.from({ length: 4 }, () => opened.ask().heard);
  await eventually(
    'all are there',
    () => framesOf(headers).length,
    (count) => count === 4,
  );
  socket.write(Buffer.concat([frame(reset, 0, 1, uint32(7)), frame(reset, 0, 3, uint32(2))]));
  t.deepEqual((await asked[0]!.over()).ended, { kind: 'refused' });
  t.deepEqual((await asked[1]!.over()).ended, { kind: 'reset', code: 2 });
  socket.destroy();
  for (const heard of asked.slice(2)) t.deepEqual((await heard.over()).ended, { kind: 'gone' });
  t.true(opened.retired());
});

test('an answer with fields that HTTP forbids ends its request alone', async (t) => {
  const { opened, socket, framesOf } = await serveRaw(t);
  const asked = Array.from({ length: 4 }, () => opened.ask().heard);
  await eventually(
    'all are there',
    () => framesOf(headers).length,
    (count) => count === 4,
  );
  socket.write(frame(headers, endHeaders, 1, Buffer.concat([ok, Buffer.from('\0\x01x\x02\r\n', 'latin1')])));
  socket.write(frame(headers, endHeaders | endStream, 3, Buffer.concat([ok, Buffer.from('\0\x01X\x01y', 'latin1')])));
  socket.write(frame(headers, endHeaders, 5, ok));
  socket.write(frame(headers, endHeaders | endStream, 5, Buffer.from('\0\x03x y\x01z', 'latin1')));
  socket.write(frame(headers, endHeaders | endStream, 7, ok));
  for (const heard of asked.slice(0, 3)) t.deepEqual((await heard.over()).ended, { kind: 'malformed' });
  t.is((await asked[3]!.over()).ended, 'whole');
  t.true(opened.connection.isOpen);
  await eventually(
    'the server is told',
    () => framesOf(reset).length,
    (count) => count === 3,
  );
  t.deepEqual(
    framesOf(reset),
    [1, 3, 5].map((id) => frame(reset, 0, id, uint32(1))),
  );
});

test('what never left is told apart from what may have arrived', async (t) => {
  const { opened, socket, framesOf } = await serveRaw(t);
  const sent = opened.ask().heard;
  await eventually('the request is there', () => framesOf(headers).length, Boolean);
  // What is written in one turn leaves at its end, if there is a connection then.
  const unsent = opened.ask().heard;
  opened.socket.destroy();
  t.deepEqual((await sent.over()).ended, { kind: 'gone' });
  t.deepEqual((await unsent.over()).ended, { kind: 'unsent' });
  socket.destroy();

  const other = await serveRaw(t);
  other.socket.write(frame(0x4, 0, 0, Buffer.from('000300000001', 'hex')));
  const first = other.opened.ask().heard;
  await eventually('the request is there', () => other.framesOf(headers).length, Boolean);
  const waiting = other.opened.ask().heard;
  other.socket.write(frame(goAway, 0, 0, uint32(1, 0)));
  t.deepEqual((await waiting.over()).ended, { kind: 'unsent' });
  t.is(first.ended, undefined);
  t.is(other.framesOf(headers).length, 1);
});

test('settings: how much the server takes of fields is known', async (t) => {
  const { opened, socket } = await serveRaw(t);
  t.is(opened.connection.maxHeaderListSize, Infinity);
  socket.write(frame(0x4, 0, 0, Buffer.from('000600002000', 'hex')));
  await eventually(
    'it is read',
    () => opened.connection.maxHeaderListSize,
    (size) => size === 8_192,
  );
  t.pass();
});
