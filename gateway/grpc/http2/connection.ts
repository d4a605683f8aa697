import type { Socket } from 'node:net';
import { FrameReader, type FrameHandler } from './frame-reader.ts';
import {
  ConnectionError,
  errorCodes,
  flags,
  frame,
  goAway,
  most31,
  protocolError,
  resetFrame,
  settings,
  settingsFrame,
  types,
  windowUpdate,
} from './frames.ts';
import { HpackDecoder, HpackError, largestList } from './hpack.ts';
import { Outbox } from './write-queue.ts';
import { nobody, Stream, type Fields, type Receiver, type RequestHead } from './request.ts';
import { defaultWindow, Sender } from './sender.ts';

export interface ConnectionOptions {
  /** Bytes that the server may send ahead, on a stream and on all of them. */
  window: { stream: number; connection: number };
  /** The server has said what it takes: it is there. */
  onReady: () => void;
  /** The connection takes no more requests; those under way may go on. Called once. */
  onRetired: () => void;
  /**
   * So many requests were given up (RST_STREAM) that the server may soon end the connection: it should be left for another one. Called
   * again with each that follows.
   */
  onWorn: () => void;
  /** How many requests that is. */
  mostResets: number;
}

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
/** On a worn connection, for which there is no other yet, at most so many requests that were given up wait for their answers. */
const mostUnheard = 1_000;
/** Requests that may wait until the server takes more of them, and the bytes of their bodies. */
const mostWaiting = { requests: 10_000, bytes: 64 * 1024 * 1024 };
/** Of so many streams that were reset it is known that something may still come for them. */
const mostLate = 1_000;

/**
 * The client's side of a connection of HTTP/2 (RFC 9113) for requests whose bodies are whole, as unary calls of gRPC are. Node's
 * own makes a Duplex of each: that is most of what such a call costs. Everything that is written in one turn of the event loop
 * leaves together.
 */
export class ClientConnection {
  readonly #socket: Socket;
  readonly #outbox: Outbox;
  readonly #sender: Sender;
  readonly #options: ConnectionOptions;
  readonly #decoder = new HpackDecoder();
  readonly #streams = new Map<number, Stream>();
  /** Those that the server doesn't take yet. */
  readonly #waiting = new Set<Stream>();
  #waitingBytes = 0;
  /** By what was sent with them, which comes back. */
  readonly #pings = new Map<bigint, () => void>();
  #lastPing = 0n;
  #nextId = 1;
  #isReady = false;
  #isRetired = false;
  /** What the server takes. */
  #mostStreams = Infinity;
  #largestHead = Infinity;
  /** The last stream that was handed to the socket. */
  #lastSent = 0;
  /** Bytes that were received on all streams and not given free again. */
  #taken = 0;
  /** How many streams were reset, and those that were to be, but whose answers come to their end. */
  #resets = 0;
  readonly #unheard = new Set<Stream>();
  /** The last of the streams for which frames may still come that are of no consequence; of those up to an id nothing is known. */
  readonly #late = new Set<number>();
  #lateUpTo = 0;
  /** Frames of answers that were received. */
  heard = 0;

  /** @param socket connected, or about to be */
  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#outbox = new Outbox(socket, () => (this.#lastSent = this.#nextId - 2));
    this.#sender = new Sender(this.#outbox);
    this.#options = options;
    const { window } = options;
    const reader = new FrameReader(this.#handler());
    this.#outbox.write(preface);
    this.#outbox.write(
      settingsFrame([
        [settings.enablePush, 0],
        [settings.initialWindowSize, window.stream],
        [settings.maxHeaderListSize, largestList],
      ]),
    );
    this.#outbox.write(windowUpdate(0, window.connection - defaultWindow));
    socket.on('data', (piece: Buffer) => this.#read(reader, piece));
    socket.on('error', () => {});
    socket.on('close', () => this.#lose());
  }

  /** Whether it takes requests. */
  get isOpen(): boolean {
    return this.#isReady && !this.#isRetired;
  }

  /** Bytes that the fields of a request may have, as HTTP/2 counts them (RFC 9113, 6.5.2). */
  get largestHead(): number {
    return this.#largestHead;
  }

  /** Requests that have no answer yet. */
  get open(): number {
    return this.#streams.size + this.#waiting.size;
  }

  /**
   * Sends a request.
   *
   * @param head the fields that come first
   * @param fields of ASCII
   * @returns what gives it up: nothing is heard of it any more
   */
  request(head: RequestHead, fields: Fields, body: Buffer, receiver: Receiver): () => void {
    const stream = new Stream(head, fields, body, receiver);
    if (this.#streams.size < this.#mostStreams) this.#begin(stream);
    else this.#wait(stream);
    return () => this.#cancel(stream);
  }

  /** Asks whether the server is there. */
  ping(answered: () => void): void {
    const payload = Buffer.alloc(8);
    payload.writeBigUInt64BE((this.#lastPing += 1n));
    this.#pings.set(this.#lastPing, answered);
    this.#outbox.write(frame(types.ping, 0, 0, payload));
  }

  /** Ends the connection once all requests have their answers. */
  close(): void {
    this.#retire();
    if (this.open === 0) this.#end();
  }

  /** The same, but requests that the server doesn't take yet go on, too, and `onRetired` isn't called. */
  leave(): void {
    this.#isRetired = true;
    if (this.open === 0) this.#end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #begin(stream: Stream): void {
    stream.id = this.#nextId;
    this.#nextId += 2;
    this.#streams.set(stream.id, stream);
    this.#sender.begin(stream);
    if (this.#nextId > most31) this.#retire();
  }

  #wait(stream: Stream): void {
    const bytes = this.#waitingBytes + stream.body.length;
    if (this.#waiting.size >= mostWaiting.requests || bytes > mostWaiting.bytes) {
      queueMicrotask(() => stream.receiver.lost({ kind: 'unsent' }));
      return;
    }
    this.#waiting.add(stream);
    this.#waitingBytes = bytes;
  }

  /** @returns whether it did wait */
  #stopWaiting(stream: Stream): boolean {
    const didWait = this.#waiting.delete(stream);
    if (didWait) this.#waitingBytes -= stream.body.length;
    return didWait;
  }

  #cancel(stream: Stream): void {
    if (this.#stopWaiting(stream)) return;
    if (this.#streams.get(stream.id) !== stream) return;
    if (this.#resets >= 2 * this.#options.mostResets && this.#unheard.size < mostUnheard) {
      stream.receiver = nobody;
      this.#unheard.add(stream);
    } else {
      this.#writeReset(stream);
      this.#finish(stream, 'late frames');
    }
    if (this.#resets >= this.#options.mostResets && !this.#isRetired) this.#options.onWorn();
  }

  #writeReset({ id }: Stream): void {
    this.#resets += 1;
    this.#outbox.write(resetFrame(id, errorCodes.cancel));
  }

  /** A stream is over. @param then whether the server may still send something on it */
  #finish(stream: Stream, then?: 'late frames'): void {
    this.#streams.delete(stream.id);
    this.#sender.stop(stream);
    this.#unheard.delete(stream);
    if (then !== undefined) this.#expectLate(stream.id);
    if (this.#waiting.size > 0) this.#beginWaiting();
    if (this.#isRetired && this.open === 0) this.#end();
  }

  #expectLate(id: number): void {
    this.#late.add(id);
    if (this.#late.size <= mostLate) return;
    const [first] = this.#late;
    this.#late.delete(first as number);
    this.#lateUpTo = Math.max(this.#lateUpTo, first as number);
  }

  #beginWaiting(): void {
    for (const next of this.#waiting) {
      if (this.#streams.size >= this.#mostStreams) return;
      this.#stopWaiting(next);
      this.#begin(next);
    }
  }

  #retire(): void {
    const wasRetired = this.#isRetired;
    this.#isRetired = true;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    this.#waitingBytes = 0;
    for (const { receiver } of waiting) receiver.lost({ kind: 'unsent' });
    if (!wasRetired) this.#options.onRetired();
  }

  #end(): void {
    if (this.#socket.destroyed || this.#socket.writableEnded) return;
    this.#outbox.write(goAway(errorCodes.none));
    this.#outbox.flush();
    this.#socket.destroySoon();
  }

  /** The connection is gone. */
  #lose(): void {
    this.#retire();
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#sender.stopAll();
    for (const { id, receiver } of streams) receiver.lost({ kind: id > this.#lastSent ? 'unsent' : 'gone' });
  }

  #read(reader: FrameReader, piece: Buffer): void {
    // Behind an error nothing is looked at any more.
    if (this.#socket.destroyed) return;
    try {
      reader.read(piece);
    } catch (error) {
      this.#fail(error);
    }
  }

  #handler(): FrameHandler {
    return {
      data: (id, piece, size, isLast) => this.#data(id, piece, size, isLast),
      fields: (id, block, isLast) => this.#fields(id, block, isLast),
      reset: (id, code) => this.#reset(id, code),
      settings: (values) => this.#settings(values),
      ping: (payload, isAnswer) => this.#ping(payload, isAnswer),
      goAway: (last) => this.#goAway(last),
      windowUpdate: (id, size) => this.#windowUpdate(id, size),
    };
  }

  /** The server doesn't keep to the protocol. */
  #fail(error: unknown): void {
    const isKnown = error instanceof ConnectionError || error instanceof HpackError;
    if (!isKnown) throw error;
    this.#outbox.write(goAway(error instanceof ConnectionError ? error.code : errorCodes.compression));
    this.#outbox.flush();
    this.#socket.destroy();
  }

  #fields(id: number, block: Buffer, isLast: boolean): void {
    this.heard += 1;
    // Decoded in any case: later blocks build on it.
    const fields = this.#decoder.decode(block);
    const stream = this.#stream(id);
    if (stream === undefined) return;
    const kind = fields === undefined ? 'malformed' : stream.kindOf(fields, isLast);
    if (fields === undefined || kind === 'malformed') return this.#refuse(stream);
    if (kind === 'interim') return;
    stream.receiver.fields(fields, isLast);
    if (isLast) this.#answered(stream);
  }

  /** The answer is malformed (RFC 9113, 8.1.1): that ends its stream, and no other. */
  #refuse(stream: Stream, code: number = errorCodes.protocol): void {
    this.#outbox.write(resetFrame(stream.id, code));
    this.#finish(stream, 'late frames');
    stream.receiver.lost({ kind: 'malformed' });
  }

  /** The answer is whole. */
  #answered(stream: Stream): void {
    if (this.#streams.get(stream.id) !== stream) return;
    if (!stream.isWhole) return this.#refuse(stream);
    // It doesn't want the rest of the request.
    if (!stream.isSent) this.#writeReset(stream);
    this.#finish(stream);
    stream.receiver.end();
  }

  #data(id: number, piece: Buffer, size: number, isLast: boolean): void {
    this.heard += 1;
    const stream = this.#stream(id);
    this.#taken += size;
    if (this.#taken >= this.#options.window.connection / 2) {
      this.#outbox.write(windowUpdate(0, this.#taken));
      this.#taken = 0;
    }
    if (stream === undefined) return;
    if (!stream.takesData(piece)) return this.#refuse(stream);
    stream.taken += size;
    if (!isLast && stream.taken >= this.#options.window.stream / 2) {
      this.#outbox.write(windowUpdate(id, stream.taken));
      stream.taken = 0;
    }
    if (piece.length > 0) stream.receiver.data(piece);
    if (isLast) this.#answered(stream);
  }

  #reset(id: number, code: number): void {
    const stream = this.#stream(id, 'may be over');
    if (stream === undefined) return;
    this.#finish(stream, 'late frames');
    stream.receiver.lost(code === errorCodes.refusedStream ? { kind: 'refused' } : { kind: 'reset', code });
  }

  #settings(values: ReadonlyMap<number, number>): void {
    this.#mostStreams = values.get(settings.maxConcurrentStreams) ?? this.#mostStreams;
    this.#largestHead = values.get(settings.maxHeaderListSize) ?? this.#largestHead;
    this.#sender.settings(values, this.#streams.values());
    this.#outbox.answer(frame(types.settings, flags.ack, 0, Buffer.alloc(0)));
    if (!this.#isReady) {
      this.#isReady = true;
      this.#options.onReady();
    }
    this.#sender.resume();
    this.#beginWaiting();
  }

  #ping(payload: Buffer, isAnswer: boolean): void {
    if (!isAnswer) {
      this.#outbox.answer(frame(types.ping, flags.ack, 0, payload));
      return;
    }
    const key = payload.readBigUInt64BE(0);
    const answered = this.#pings.get(key);
    this.#pings.delete(key);
    answered?.();
  }

  #goAway(last: number): void {
    this.#retire();
    for (const stream of [...this.#streams.values()].filter(({ id }) => id > last)) {
      this.#finish(stream, 'late frames');
      stream.receiver.lost({ kind: 'refused' });
    }
    if (this.open === 0) this.#end();
  }

  #windowUpdate(id: number, size: number): void {
    if (id === 0) return this.#sender.widen(size);
    const stream = this.#stream(id, 'may be over');
    if (stream === undefined) return;
    if (size === 0) return this.#refuse(stream);
    if (stream.window + size > most31) return this.#refuse(stream, errorCodes.flowControl);
    this.#sender.widenStream(stream, size);
  }

  /**
   * The stream of this id; undefined if it is over.
   *
   * @param allowed whether such a frame may come once the server has said all (RFC 9113, 5.1)
   * @throws ConnectionError if there was none, or if nothing may come for it any more
   */
  #stream(id: number, allowed?: 'may be over'): Stream | undefined {
    const stream = this.#streams.get(id);
    if (stream !== undefined) return stream;
    if (id % 2 === 0 || id >= this.#nextId) throw protocolError(`There was no stream ${id}`);
    if (allowed === undefined && id > this.#lateUpTo && !this.#late.has(id)) {
      throw new ConnectionError(errorCodes.streamClosed, `The server has ended stream ${id}`);
    }
    return undefined;
  }
}
