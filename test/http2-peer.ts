import type { IncomingHttpHeaders } from 'node:http2';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { ClientConnection } from '../gateway/grpc/http2/connection.ts';
import { headSize } from '../gateway/grpc/http2/frames.ts';
import { RequestHead, type Fields, type Loss, type Receiver } from '../gateway/grpc/http2/request.ts';

/** What came of a request, as one text for each thing that was heard. */
export class Heard implements Receiver {
  readonly events: string[] = [];
  ended: 'whole' | Loss | undefined;
  /** How often it was over. */
  ends = 0;

  fields(fields: IncomingHttpHeaders, isLast: boolean): void {
    this.events.push(`${JSON.stringify(Object.entries(fields))}${isLast ? ' last' : ''}`);
  }

  data(piece: Buffer): void {
    this.events.push(piece.toString('latin1'));
  }

  end(): void {
    this.ended = 'whole';
    this.ends += 1;
  }

  lost(loss: Loss): void {
    this.ended = loss;
    this.ends += 1;
  }
}

/** A frame of HTTP/2. */
export interface SentFrame {
  type: number;
  flag: number;
  id: number;
  payload: Buffer;
}

const prefaceSize = 24;
const head = new RequestHead({ ':method': 'POST', ':scheme': 'http', ':path': '/a.B/C', ':authority': 'test' });

/** A client's connection, and the bytes in both directions: the test is the server. */
export class Peer {
  readonly socket: Duplex;
  readonly connection: ClientConnection;
  isReady = false;
  isRetired = false;
  #sent = Buffer.alloc(0);

  /** @param takes whether it takes what it is sent */
  constructor({ takes = true } = {}) {
    const socket = new Duplex({
      read() {},
      write: (piece: Buffer, _encoding, done) => {
        this.#sent = Buffer.concat([this.#sent, piece]);
        if (takes) done();
      },
    });
    this.socket = Object.assign(socket, { destroySoon: () => socket.destroy() });
    this.connection = new ClientConnection(this.socket as unknown as Socket, {
      window: { stream: 1024 * 1024, connection: 8 * 1024 * 1024 },
      onReady: () => (this.isReady = true),
      onRetired: () => (this.isRetired = true),
      onTooManyResets: () => {},
      maxResets: 3,
    });
  }

  /** Sends bytes to the client, and waits until it has looked at them. */
  async send(...pieces: Buffer[]): Promise<void> {
    for (const piece of pieces) if (!this.socket.destroyed) this.socket.push(piece);
    await turn();
  }

  ask(body = Buffer.from('request'), fields: Fields = {}): { heard: Heard; cancel: () => void } {
    const heard = new Heard();
    return { heard, cancel: this.connection.request(head, fields, body, heard) };
  }

  /** What the client sent, of one type or all. */
  frames(type?: number): SentFrame[] {
    const found: SentFrame[] = [];
    const bytes = this.#sent.subarray(prefaceSize);
    for (let at = 0; at + headSize <= bytes.length;) {
      const end = at + headSize + bytes.readUIntBE(at, 3);
      const payload = bytes.subarray(at + headSize, end);
      found.push({ type: bytes[at + 3]!, flag: bytes[at + 4]!, id: bytes.readUInt32BE(at + 5), payload });
      at = end;
    }
    return found.filter((frame) => type === undefined || frame.type === type);
  }

  /** The code with which the client has ended the connection; undefined if it has not. */
  get goodbye(): number | undefined {
    return this.frames(0x7).at(-1)?.payload.readUInt32BE(4);
  }
}

/** Waits until what was written in this turn of the event loop has left. */
export async function turn(): Promise<void> {
  for (let turns = 0; turns < 3; turns += 1) await new Promise((resolve) => setImmediate(resolve));
}

export function rawFrame(type: number, flag: number, id: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(headSize + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flag;
  bytes.writeUInt32BE(id, 5);
  bytes.set(payload, headSize);
  return bytes;
}

export function uint32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

/** SETTINGS. */
export function rawSettings(...values: readonly (readonly [name: number, value: number])[]): Buffer {
  const entries = values.map(([name, value]) => Buffer.concat([uint32(name).subarray(2), uint32(value)]));
  return rawFrame(0x4, 0, 0, Buffer.concat(entries));
}

/** Fields as HPACK has them, each a literal. */
export function literals(...fields: readonly (readonly [name: string, value: string])[]): Buffer {
  const text = (value: string) => Buffer.concat([Buffer.of(value.length), Buffer.from(value, 'latin1')]);
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.of(0), text(name), text(value)]));
}
