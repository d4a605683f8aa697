import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { status } from '@grpc/grpc-js';
import type { ExecutionContext } from 'ava';
import type { Delivery } from '#lib/rpc/delivery.ts';

/** A request to a bare server of HTTP/2, which a test answers frame by frame. */
export interface RawRequest {
  /** Fields of the answer, each coded as a literal; of those that are in a list each is sent. */
  fields(fields: Record<string, string | string[]>, end?: 'end'): void;
  data(bytes: Buffer, end?: 'end'): void;
  /** RST_STREAM. */
  reset(code: number): void;
  /** GOAWAY. @param last whether this request is the last one that the server looks at, or it doesn't look at it */
  goAway(last: 'this' | 'earlier', code?: number): void;
  /** Closes the connection, behind what was written. */
  close(): void;
}

export interface RawServer {
  /** host:port. */
  address: string;
  /** How many requests have come. */
  requests: number;
  sockets: Socket[];
}

/** Starts such a server, until the test ends. @param settings pairs of a setting's number and its value */
export async function serveRaw(
  t: ExecutionContext,
  act: (request: RawRequest) => void,
  settings: readonly (readonly [number, number])[] = [],
): Promise<RawServer> {
  const said = settings.map(([name, value]) => Buffer.concat([uint32(name).subarray(2), uint32(value)]));
  const raw: RawServer = { address: '', requests: 0, sockets: [] };
  const server = createServer((socket) => {
    raw.sockets.push(socket);
    socket.on('error', () => {});
    socket.write(frame(types.settings, 0, 0, Buffer.concat(said)));
    let received = Buffer.alloc(0);
    // The preface goes before the first frame.
    let at = 24;
    socket.on('data', (piece: Buffer) => {
      received = Buffer.concat([received, piece]);
      while (at + 9 <= received.length && at + 9 + received.readUIntBE(at, 3) <= received.length) {
        const [type, flag, id] = [received[at + 3], received[at + 4] as number, received.readUInt32BE(at + 5)];
        const payload = received.subarray(at + 9, at + 9 + received.readUIntBE(at, 3));
        at += 9 + payload.length;
        const isAsked = (type === types.settings || type === types.ping) && (flag & flags.ack) === 0;
        if (isAsked) socket.write(frame(type, flags.ack, 0, type === types.ping ? payload : undefined));
        if (type !== types.headers) continue;
        raw.requests += 1;
        act(requestOn(socket, id));
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of raw.sockets) socket.destroy();
    server.close();
  });
  raw.address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return raw;
}

const types = { data: 0x0, headers: 0x1, reset: 0x3, settings: 0x4, ping: 0x6, goAway: 0x7 };
const flags = { ack: 0x1, endStream: 0x1, endHeaders: 0x4 };

function frame(type: number, flag: number, id: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flag;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
}

function requestOn(socket: Socket, id: number): RawRequest {
  const ends = (end: 'end' | undefined) => (end === undefined ? 0 : flags.endStream);
  return {
    fields(fields, end) {
      const entries = Object.entries(fields).flatMap(([name, given]) => [given].flat().map((value) => [name, value]));
      const block = entries.flatMap(([name, value]) => [Buffer.of(0), text(name!), text(value!)]);
      socket.write(frame(types.headers, flags.endHeaders | ends(end), id, Buffer.concat(block)));
    },
    data: (bytes, end) => void socket.write(frame(types.data, ends(end), id, bytes)),
    reset: (code) => void socket.write(frame(types.reset, 0, id, uint32(code))),
    goAway: (last, code = 0) => void socket.write(frame(types.goAway, 0, 0, uint32(last === 'this' ? id : 0, code))),
    close: () => socket.destroySoon(),
  };
}

/** A string of HPACK, without Huffman's code. */
function text(value: string): Buffer {
  if (value.length > 126) throw new Error(`${value} is too long for a test`);
  return Buffer.concat([Buffer.of(value.length), Buffer.from(value, 'latin1')]);
}

function uint32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

/** How a server may end a call, and what a client has to make of it. */
export interface Ending {
  what: string;
  act(request: RawRequest): void;
  delivery: Delivery;
  code: status;
  details?: string;
}

const head = { ':status': '200', 'content-type': 'application/grpc' };

/** Answers with a status, behind the head of the answer or with it. */
function answering(code: string | string[], message?: string, isWithHead = true): Ending['act'] {
  const trailers = { 'grpc-status': code, ...(message === undefined ? {} : { 'grpc-message': message }) };
  return (request) => {
    if (isWithHead) {
      request.fields({ ...head, ...trailers }, 'end');
      return;
    }
    request.fields(head);
    request.data(Buffer.alloc(5));
    request.fields(trailers, 'end');
  };
}

/** Texts that are those of clients of gRPC for calls that were lost. */
const textsOfClients = [
  'No connection established',
  'Failed to start HTTP/2 stream',
  'Stream refused by server',
  'Connection dropped',
  'Received RST_STREAM with code 2',
  'Call cancelled',
  '',
];

/** What is no status of gRPC's on the wire. (Node leaves out what begins or ends with a space.) */
const wrongStatuses = ['', '0x0', '1e1', '-1', '+0', '0.0', 'OK', ['0', '0'], ['14', '14'], '17', '4294967296'];

/** Every way in which a call ends that has no answer. */
export const endings: Ending[] = [
  ...textsOfClients.flatMap((message) =>
    [status.CANCELLED, status.INTERNAL, status.UNAVAILABLE].flatMap((code) =>
      [true, false].map((isWithHead) => ({
        what: `${status[code]} ${JSON.stringify(message)} ${isWithHead ? 'at once' : 'in the trailers'}`,
        act: answering(String(code), message, isWithHead),
        delivery: 'answered' as const,
        code,
        details: message,
      })),
    ),
  ),
  ...wrongStatuses.flatMap((wrong) =>
    [true, false].map((isWithHead) => ({
      what: `${JSON.stringify(wrong)} ${isWithHead ? 'at once' : 'in the trailers'}`,
      act: answering(wrong, 'n%C3%B3 %2F%25 %zz %', isWithHead),
      delivery: 'answered' as const,
      code: status.UNKNOWN,
      details: 'nó /% %zz %',
    })),
  ),
  {
    what: 'REFUSED_STREAM',
    act: (request) => request.reset(7),
    delivery: 'refused unprocessed',
    code: status.UNAVAILABLE,
  },
  ...[0, 2, 11].map((code) => ({
    what: `GOAWAY ${code} that leaves it out`,
    act: (request: RawRequest) => request.goAway('earlier', code),
    delivery: 'refused unprocessed' as const,
    code: status.UNAVAILABLE,
  })),
  {
    what: 'REFUSED_STREAM behind the head of the answer',
    act(request) {
      request.fields(head);
      request.reset(7);
    },
    delivery: 'maybe processed',
    code: status.UNAVAILABLE,
  },
  {
    what: 'a connection that ends behind GOAWAY',
    act(request) {
      request.goAway('this');
      request.close();
    },
    delivery: 'maybe processed',
    code: status.UNAVAILABLE,
  },
  {
    what: 'a connection that ends',
    act: (request) => request.close(),
    delivery: 'maybe processed',
    code: status.UNAVAILABLE,
  },
  {
    what: 'a connection that ends behind the head of the answer',
    act(request) {
      request.fields(head);
      request.close();
    },
    delivery: 'maybe processed',
    code: status.UNAVAILABLE,
  },
  ...[0, 2, 8].map((code) => ({
    what: `RST_STREAM ${code}`,
    act: (request: RawRequest) => request.reset(code),
    delivery: 'maybe processed' as const,
    code: status.UNAVAILABLE,
  })),
  {
    what: 'an end without a status',
    act(request) {
      request.fields(head);
      request.data(Buffer.alloc(5), 'end');
    },
    delivery: 'maybe processed',
    code: status.UNAVAILABLE,
  },
  {
    what: 'a status that is not at the end',
    act(request) {
      request.fields({ ...head, 'grpc-status': '0' });
      request.data(Buffer.alloc(5), 'end');
    },
    delivery: 'maybe processed',
    code: status.UNAVAILABLE,
  },
  {
    what: 'a proxy that has no server',
    act: (request) => request.fields({ ':status': '503' }, 'end'),
    delivery: 'maybe processed',
    code: status.UNAVAILABLE,
  },
  {
    what: 'a proxy that refuses',
    act: (request) => request.fields({ ':status': '403' }, 'end'),
    delivery: 'answered',
    code: status.PERMISSION_DENIED,
  },
  {
    what: 'RESOURCE_EXHAUSTED',
    act: answering('8', 'Received message larger than max (5 vs 4)', false),
    delivery: 'answered',
    code: status.RESOURCE_EXHAUSTED,
    details: 'Received message larger than max (5 vs 4)',
  },
  ...[false, true].map((isWhole) => ({
    what: `a message of 1 GiB${isWhole ? ' before an end' : ''}`,
    act(request: RawRequest) {
      request.fields(head);
      request.data(Buffer.from([0, 0x40, 0, 0, 0, 1]));
      if (isWhole) request.fields({ 'grpc-status': '0' }, 'end');
    },
    delivery: 'too large' as const,
    code: status.RESOURCE_EXHAUSTED,
  })),
  {
    what: 'ENHANCE_YOUR_CALM',
    act: (request) => request.reset(11),
    delivery: 'answered',
    code: status.RESOURCE_EXHAUSTED,
  },
];
