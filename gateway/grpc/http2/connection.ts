import type { Socket } from 'node:net';
import { FrameReader, type FrameHandler } from './frame-reader.ts';
import {
  ConnectionError,
  errorCodes,
  flags,
  frame,
  goAway,
  maxInt31,
  protocolError,
  resetFrame,
  settings,
  settingsFrame,
  types,
  windowUpdate,
} from './frames.ts';
import { HpackDecoder, HpackError, maxHeaderListBytes } from './hpack.ts';
import { WriteQueue } from './write-queue.ts';
import { noReceiver, Stream, type Fields, type LastingRequest, type Receiver, type RequestHead } from './request.ts';
import { defaultWindow, Sender } from './sender.ts';

export interface ConnectionOptions {
  /** The flow-control windows that we grant, in bytes. */
  window: { stream: number; connection: number };
  /** The server's SETTINGS have come. */
  onReady: () => void;
  /** The connection takes no more requests; those in flight may go on. Called once. */
  onRetired: () => void;
  /**
   * So many requests were cancelled (RST_STREAM) that the server may soon end the connection: it should be replaced. Called again with
   * each that follows.
   */
  onTooManyResets: () => void;
  /** After how many cancelled requests `onTooManyResets` is called. */
  maxResets: number;
}

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
/** While a connection with too many resets has no replacement yet, so many cancelled requests are not reset: their answers are dropped. */
const maxUncancelled = 1_000;
/** Requests that may wait because of MAX_CONCURRENT_STREAMS, and the bytes of their bodies. */
const maxWaiting = { requests: 10_000, bytes: 64 * 1024 * 1024 };
/** For so many streams that were reset, frames that were already on their way are ignored. */
const maxLateStreams = 1_000;

/**
 * The client's side of an HTTP/2 connection (RFC 9113) for requests whose bodies are known in full, as those of gRPC calls with one request are.
 * Node's own client makes a Duplex of each request, which is most of what such a call costs. Everything that is written in one turn
 * of the event loop is sent together.
 */
export class ClientConnection {
  readonly #socket: Socket;
  readonly #queue: WriteQueue;
  readonly #sender: Sender;
  readonly #options: ConnectionOptions;
  readonly #decoder = new HpackDecoder();
  readonly #streams = new Map<number, Stream>();
  /** Those that wait because of MAX_CONCURRENT_STREAMS. */
  readonly #waiting = new Set<Stream>();
  #waitingBytes = 0;
  /** By their payload, which the acknowledgement repeats. */
  readonly #pings = new Map<bigint, () => void>();
  #lastPing = 0n;
  #nextId = 1;
  #isReady = false;
  #isRetired = false;
  /** SETTINGS of the server. */
  #maxStreams = Infinity;
  #maxHeaderListSize = Infinity;
  /** The last stream that was written to the socket. */
  #lastSent = 0;
  /** Bytes received on all streams for which no WINDOW_UPDATE was sent yet. */
  #taken = 0;
  /** How many streams were reset, and the cancelled ones whose answers are read to their end instead. */
  #resets = 0;
  readonly #uncancelled = new Set<Stream>();
  /** The streams that were reset last, for which late frames are ignored; for streams up to `#lateUpTo` they are ignored, too. */
  readonly #late = new Set<number>();
  #lateUpTo = 0;
  /** How many frames of answers were received. */
  heard = 0;

  /** @param socket connected, or about to be */
  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#queue = new WriteQueue(socket, () => (this.#lastSent = this.#nextId - 2));
    this.#sender = new Sender(this.#queue);
    this.#options = options;
    const { window } = options;
    const reader = new FrameReader(this.#handler());
    this.#queue.write(preface);
    this.#queue.write(
      settingsFrame([
        [settings.enablePush, 0],
        [settings.initialWindowSize, window.stream],
        [settings.maxHeaderListSize, maxHeaderListBytes],
      ]),
    );
    this.#queue.write(windowUpdate(0, window.connection - defaultWindow));
    socket.on('data', (piece: Buffer) => this.#read(reader, piece));
    socket.on('error', () => {});
    socket.on('close', () => this.#lose());
  }

  /** Whether it takes requests. */
  get isOpen(): boolean {
    return this.#isReady && !this.#isRetired;
  }

  /** The server's SETTINGS_MAX_HEADER_LIST_SIZE; Infinity if it announced none. */
  get maxHeaderListSize(): number {
    return this.#maxHeaderListSize;
  }

  /** How many requests are in flight or waiting. */
  get open(): number {
    return this.#streams.size + this.#waiting.size;
  }

  /**
   * Sends a request.
   *
   * @param head the header fields that come first
   * @param fields the other header fields, in ASCII
   * @returns cancels the request: the receiver is not called any more
   */
  request(head: RequestHead, fields: Fields, body: Buffer, receiver: Receiver): () => void {
    const stream = this.#open(new Stream(head, fields, body, receiver));
    return () => this.#cancel(stream);
  }

  /** Sends a request whose answer may go on for long, and may be more than its receiver can take at once. */
  stream(head: RequestHead, fields: Fields, body: Buffer, receiver: Receiver): LastingRequest {
    const stream = new Stream(head, fields, body, receiver);
    stream.isLasting = true;
    this.#open(stream);
    return {
      cancel: () => this.#cancel(stream),
      pause: () => (stream.isPaused = true),
      resume: () => {
        stream.isPaused = false;
        if (this.#streams.get(stream.id) === stream) this.#grant(stream);
      },
    };
  }

  #open(stream: Stream): Stream {
    if (this.#streams.size < this.#maxStreams) this.#begin(stream);
    else this.#wait(stream);
    return stream;
  }

  /** Sends a PING. */
  ping(answered: () => void): void {
    const payload = Buffer.alloc(8);
    payload.writeBigUInt64BE((this.#lastPing += 1n));
    this.#pings.set(this.#lastPing, answered);
    this.#queue.write(frame(types.ping, 0, 0, payload));
  }

  /** Closes the connection once all requests in flight are answered; those that wait are lost. */
  close(): void {
    this.#retire();
    if (this.open === 0) this.#end();
  }

  /** The same, but requests that wait go on, too, and `onRetired` isn't called. */
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
    if (this.#nextId > maxInt31) this.#retire();
  }

  #wait(stream: Stream): void {
    const bytes = this.#waitingBytes + stream.body.length;
    if (this.#waiting.size >= maxWaiting.requests || bytes > maxWaiting.bytes) {
      queueMicrotask(() => stream.receiver.lost({ kind: 'unsent' }));
      return;
    }
    this.#waiting.add(stream);
    this.#waitingBytes = bytes;
  }

  /** @returns whether it was waiting */
  #stopWaiting(stream: Stream): boolean {
    const didWait = this.#waiting.delete(stream);
    if (didWait) this.#waitingBytes -= stream.body.length;
    return didWait;
  }

  #cancel(stream: Stream): void {
    if (this.#stopWaiting(stream)) return;
    if (this.#streams.get(stream.id) !== stream) return;
    const isKept = this.#resets >= 2 * this.#options.maxResets && this.#uncancelled.size < maxUncancelled;
    if (isKept && !stream.isLasting) {
      stream.receiver = noReceiver;
      this.#uncancelled.add(stream);
    } else {
      this.#writeReset(stream);
      this.#finish(stream, 'late frames');
    }
    if (this.#resets >= this.#options.maxResets && !this.#isRetired) this.#options.onTooManyResets();
  }

  #writeReset({ id }: Stream): void {
    this.#resets += 1;
    this.#queue.write(resetFrame(id, errorCodes.cancel));
  }

  /** A stream is over. @param then whether the server may still send something on it */
  #finish(stream: Stream, then?: 'late frames'): void {
    this.#streams.delete(stream.id);
    this.#sender.stop(stream);
    this.#uncancelled.delete(stream);
    if (then !== undefined) this.#expectLate(stream.id);
    if (this.#waiting.size > 0) this.#beginWaiting();
    if (this.#isRetired && this.open === 0) this.#end();
  }

  #expectLate(id: number): void {
    this.#late.add(id);
    if (this.#late.size <= maxLateStreams) return;
    const [first] = this.#late;
    this.#late.delete(first as number);
    this.#lateUpTo = Math.max(this.#lateUpTo, first as number);
  }

  #beginWaiting(): void {
    for (const next of this.#waiting) {
      if (this.#streams.size >= this.#maxStreams) return;
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
    this.#queue.write(goAway(errorCodes.none));
    this.#queue.flush();
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
    // After an error nothing more is read.
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

  /** Closes the connection for a connection error. */
  #fail(error: unknown): void {
    const isKnown = error instanceof ConnectionError || error instanceof HpackError;
    if (!isKnown) throw error;
    this.#queue.write(goAway(error instanceof ConnectionError ? error.code : errorCodes.compression));
    this.#queue.flush();
    this.#socket.destroy();
  }

  #fields(id: number, block: Buffer, isLast: boolean): void {
    this.heard += 1;
    // Decoded in any case: later header blocks depend on the table.
    const fields = this.#decoder.decode(block);
    const stream = this.#stream(id);
    if (stream === undefined) return;
    const kind = fields === undefined ? 'malformed' : stream.kindOf(fields, isLast);
    if (fields === undefined || kind === 'malformed') return this.#refuse(stream);
    if (kind === 'interim') return;
    stream.receiver.fields(fields, isLast);
    if (isLast) this.#answered(stream);
  }

  /** Resets a stream whose answer is malformed: a stream error (RFC 9113, 8.1.1). */
  #refuse(stream: Stream, code: number = errorCodes.protocol): void {
    this.#queue.write(resetFrame(stream.id, code));
    this.#finish(stream, 'late frames');
    stream.receiver.lost({ kind: 'malformed' });
  }

  /** The answer is whole. */
  #answered(stream: Stream): void {
    if (this.#streams.get(stream.id) !== stream) return;
    if (!stream.isWhole) return this.#refuse(stream);
    // The server doesn't need the rest of the request.
    if (!stream.isSent) this.#writeReset(stream);
    this.#finish(stream);
    stream.receiver.end();
  }

  #data(id: number, piece: Buffer, size: number, isLast: boolean): void {
    this.heard += 1;
    const stream = this.#stream(id);
    this.#taken += size;
    if (this.#taken >= this.#options.window.connection / 2) {
      this.#queue.write(windowUpdate(0, this.#taken));
      this.#taken = 0;
    }
    if (stream === undefined) return;
    if (!stream.takesData(piece)) return this.#refuse(stream);
    stream.taken += size;
    if (piece.length > 0) stream.receiver.data(piece);
    if (isLast) this.#answered(stream);
    else if (this.#streams.get(id) === stream) this.#grant(stream);
  }

  /** Lets the server send as much again as was taken. */
  #grant(stream: Stream): void {
    if (stream.isPaused || stream.taken < this.#options.window.stream / 2) return;
    this.#queue.write(windowUpdate(stream.id, stream.taken));
    stream.taken = 0;
  }

  #reset(id: number, code: number): void {
    const stream = this.#stream(id, 'may be over');
    if (stream === undefined) return;
    this.#finish(stream, 'late frames');
    stream.receiver.lost(code === errorCodes.refusedStream ? { kind: 'refused' } : { kind: 'reset', code });
  }

  #settings(values: ReadonlyMap<number, number>): void {
    this.#maxStreams = values.get(settings.maxConcurrentStreams) ?? this.#maxStreams;
    this.#maxHeaderListSize = values.get(settings.maxHeaderListSize) ?? this.#maxHeaderListSize;
    this.#sender.settings(values, this.#streams.values());
    this.#queue.answer(frame(types.settings, flags.ack, 0, Buffer.alloc(0)));
    if (!this.#isReady) {
      this.#isReady = true;
      this.#options.onReady();
    }
    this.#sender.resume();
    this.#beginWaiting();
  }

  #ping(payload: Buffer, isAnswer: boolean): void {
    if (!isAnswer) {
      this.#queue.answer(frame(types.ping, flags.ack, 0, payload));
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
    if (stream.window + size > maxInt31) return this.#refuse(stream, errorCodes.flowControl);
    this.#sender.widenStream(stream, size);
  }

  /**
   * The stream of this id; undefined if it is over.
   *
   * @param allowed whether such a frame may come on a closed stream (RFC 9113, 5.1)
   * @throws ConnectionError if the stream is idle, or if no frame may come for it any more
   */
  #stream(id: number, allowed?: 'may be over'): Stream | undefined {
    const stream = this.#streams.get(id);
    if (stream !== undefined) return stream;
    if (id % 2 === 0 || id >= this.#nextId) throw protocolError(`Stream ${id} is idle`);
    if (allowed === undefined && id > this.#lateUpTo && !this.#late.has(id)) {
      throw new ConnectionError(errorCodes.streamClosed, `Stream ${id} is closed`);
    }
    return undefined;
  }
}
