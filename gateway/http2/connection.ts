import type { Socket } from 'node:net';
import {
  ConnectionError,
  errorCodes,
  flags,
  frame,
  goAway,
  headSize,
  most31,
  protocolError,
  requireSize,
  resetFrame,
  settings,
  settingsFrame,
  types,
  windowUpdate,
  withoutPadding,
  writeHead,
} from './frames.ts';
import { HpackDecoder, HpackError, largestList, mostBytes, writeField } from './hpack.ts';
import { nobody, Stream, type Fields, type Receiver, type RequestHead } from './request.ts';

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
/** As it is until the other side says otherwise; we let it be so. */
const defaults = { window: 65_535, frameSize: 16_384 };
/** On a worn connection, for which there is no other yet, at most so many requests that were given up wait for their answers. */
const mostUnheard = 1_000;
/** Bytes of the fields of an answer as they are coded. More ends the connection: they would have to be decoded all the same. */
const largestBlock = 2 * largestList;

/**
 * The client's side of a connection of HTTP/2 (RFC 9113) for requests whose bodies are whole, as unary calls of gRPC are. Node's
 * own makes a Duplex of each: that is most of what such a call costs. Everything that is written in one turn of the event loop
 * leaves together.
 */
export class ClientConnection {
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #decoder = new HpackDecoder();
  readonly #streams = new Map<number, Stream>();
  /** Those that the server doesn't take yet. */
  readonly #waiting = new Set<Stream>();
  readonly #pings: (() => void)[] = [];
  #nextId = 1;
  #isReady = false;
  #isRetired = false;
  #unread: Buffer = Buffer.alloc(0);
  /** The fields of an answer of which more has to come. */
  #block: { id: number; isLast: boolean; pieces: Buffer[]; size: number } | undefined;
  #written: Buffer[] = [];
  /** What the server takes. */
  #window = defaults.window;
  #streamWindow = defaults.window;
  #frameSize = defaults.frameSize;
  #mostStreams = Infinity;
  #largestHead = Infinity;
  /** The last stream that was handed to the socket. */
  #lastSent = 0;
  /** Bytes that were received on all streams and not given free again. */
  #taken = 0;
  /** How many streams were reset, and those that were to be, but whose answers come to their end. */
  #resets = 0;
  readonly #unheard = new Set<Stream>();

  /** @param socket connected, or about to be */
  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    const { window } = options;
    this.#write(preface);
    this.#write(
      settingsFrame([
        [settings.enablePush, 0],
        [settings.initialWindowSize, window.stream],
        [settings.maxHeaderListSize, largestList],
      ]),
    );
    this.#write(windowUpdate(0, window.connection - defaults.window));
    socket.on('data', (piece: Buffer) => this.#read(piece));
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
    else this.#waiting.add(stream);
    return () => this.#cancel(stream);
  }

  /** Asks whether the server is there. */
  ping(answered: () => void): void {
    this.#pings.push(answered);
    this.#write(frame(types.ping, 0, 0, Buffer.alloc(8)));
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
    stream.window = this.#streamWindow;
    this.#nextId += 2;
    this.#streams.set(stream.id, stream);
    this.#writeRequest(stream);
    if (this.#nextId > most31) this.#retire();
  }

  #cancel(stream: Stream): void {
    if (this.#waiting.delete(stream)) return;
    if (this.#streams.get(stream.id) !== stream) return;
    if (this.#resets >= 2 * this.#options.mostResets && this.#unheard.size < mostUnheard) {
      stream.receiver = nobody;
      this.#unheard.add(stream);
    } else {
      this.#writeReset(stream);
      this.#finish(stream);
    }
    if (this.#resets >= this.#options.mostResets && !this.#isRetired) this.#options.onWorn();
  }

  #writeReset({ id }: Stream): void {
    this.#resets += 1;
    this.#write(resetFrame(id, errorCodes.cancel));
  }

  /** A stream is over. */
  #finish(stream: Stream): void {
    this.#streams.delete(stream.id);
    this.#unheard.delete(stream);
    if (this.#waiting.size > 0) this.#beginWaiting();
    if (this.#isRetired && this.open === 0) this.#end();
  }

  #beginWaiting(): void {
    for (const next of this.#waiting) {
      if (this.#streams.size >= this.#mostStreams) return;
      this.#waiting.delete(next);
      this.#begin(next);
    }
  }

  #retire(): void {
    const wasRetired = this.#isRetired;
    this.#isRetired = true;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const { receiver } of waiting) receiver.lost({ kind: 'unsent' });
    if (!wasRetired) this.#options.onRetired();
  }

  #end(): void {
    if (this.#socket.destroyed || this.#socket.writableEnded) return;
    this.#write(goAway(errorCodes.none));
    this.#flush();
    this.#socket.destroySoon();
  }

  /** The connection is gone. */
  #lose(): void {
    this.#retire();
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const { id, receiver } of streams) receiver.lost({ kind: id > this.#lastSent ? 'unsent' : 'gone' });
  }

  #write(bytes: Buffer): void {
    if (this.#written.push(bytes) === 1) setImmediate(() => this.#flush());
  }

  #flush(): void {
    const written = this.#written;
    this.#written = [];
    if (written.length === 0 || this.#socket.destroyed) return;
    this.#lastSent = this.#nextId - 2;
    this.#socket.write(written.length === 1 ? (written[0] as Buffer) : Buffer.concat(written));
  }

  /** Writes the head of a request, and of its body as much as the server takes. */
  #writeRequest(stream: Stream): void {
    const { id, head, fields, body } = stream;
    let most = head.bytes.length;
    for (const name in fields) {
      const values = fields[name] as string | string[];
      if (typeof values === 'string') most += mostBytes(name, values);
      else for (const value of values) most += mostBytes(name, value);
    }
    const isWhole = body.length <= Math.min(stream.window, this.#window, this.#frameSize);
    const buffer = Buffer.allocUnsafe(headSize + most + (isWhole ? headSize + body.length : 0));
    let end = headSize + head.bytes.copy(buffer, headSize);
    for (const name in fields) {
      const values = fields[name] as string | string[];
      if (typeof values === 'string') end = writeField(buffer, end, name, values);
      else for (const value of values) end = writeField(buffer, end, name, value);
    }
    const size = end - headSize;
    if (size > this.#frameSize) {
      this.#writeLongHead(id, buffer.subarray(headSize, end));
      this.#writeBody(stream);
      return;
    }
    writeHead(buffer, 0, size, types.headers, flags.endHeaders, id);
    if (isWhole) {
      writeHead(buffer, end, body.length, types.data, flags.endStream, id);
      end += headSize + body.copy(buffer, end + headSize);
      this.#take(stream, body.length);
    }
    this.#write(buffer.subarray(0, end));
    if (!isWhole) this.#writeBody(stream);
  }

  #writeLongHead(id: number, block: Buffer): void {
    for (let at = 0; at < block.length; at += this.#frameSize) {
      const isLast = at + this.#frameSize >= block.length;
      const type = at === 0 ? types.headers : types.continuation;
      this.#write(frame(type, isLast ? flags.endHeaders : 0, id, block.subarray(at, at + this.#frameSize)));
    }
  }

  /** Writes of a body as much as the server takes now. */
  #writeBody(stream: Stream): void {
    while (!stream.isSent) {
      const size = Math.min(stream.body.length, stream.window, this.#window, this.#frameSize);
      if (size <= 0 && stream.body.length > 0) return;
      const piece = stream.body.subarray(0, size);
      this.#take(stream, size);
      this.#write(frame(types.data, stream.isSent ? flags.endStream : 0, stream.id, piece));
    }
  }

  /** Takes bytes off the body, and from the windows. */
  #take(stream: Stream, size: number): void {
    stream.body = stream.body.subarray(size);
    stream.isSent = stream.body.length === 0;
    stream.window -= size;
    this.#window -= size;
  }

  #read(piece: Buffer): void {
    const bytes = this.#unread.length === 0 ? piece : Buffer.concat([this.#unread, piece]);
    let at = 0;
    try {
      while (bytes.length - at >= headSize) {
        const size = bytes.readUIntBE(at, 3);
        if (size > defaults.frameSize) throw new ConnectionError(errorCodes.frameSize, `A frame has ${size} bytes`);
        const end = at + headSize + size;
        if (end > bytes.length) break;
        const id = bytes.readUInt32BE(at + 5) & most31;
        this.#frame(bytes[at + 3] as number, bytes[at + 4] as number, id, bytes.subarray(at + headSize, end));
        at = end;
      }
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#unread = bytes.subarray(at);
  }

  /** The server doesn't keep to the protocol. */
  #fail(error: unknown): void {
    const isKnown = error instanceof ConnectionError || error instanceof HpackError;
    if (!isKnown) throw error;
    this.#write(goAway(error instanceof ConnectionError ? error.code : errorCodes.compression));
    this.#flush();
    this.#socket.destroy();
  }

  #frame(type: number, flag: number, id: number, payload: Buffer): void {
    if (!this.#isReady && type !== types.settings) throw protocolError('The first frame has no settings');
    if (this.#block !== undefined && type !== types.continuation) throw protocolError('Fields were interrupted');
    switch (type) {
      case types.data:
        return this.#data(id, flag, payload);
      case types.headers: {
        const block = withoutPadding(payload, flag, (flag & flags.priority) === 0 ? 0 : 5);
        this.#block = { id, isLast: (flag & flags.endStream) !== 0, pieces: [block], size: block.length };
        return this.#endBlock(flag);
      }
      case types.continuation:
        if (this.#block?.id !== id) throw protocolError('Fields go on that have not begun');
        this.#block.pieces.push(payload);
        this.#block.size += payload.length;
        if (this.#block.size > largestBlock) throw protocolError('There are too many fields');
        return this.#endBlock(flag);
      case types.resetStream:
        return this.#reset(id, payload);
      case types.settings:
        return this.#settings(flag, payload);
      case types.ping:
        requireSize(payload, 8);
        if ((flag & flags.ack) === 0) this.#write(frame(types.ping, flags.ack, 0, payload));
        else this.#pings.shift()?.();
        return undefined;
      case types.goAway:
        return this.#goAway(payload);
      case types.windowUpdate:
        return this.#windowUpdate(id, payload);
      case types.pushPromise:
        throw protocolError('Nothing may be pushed');
      default:
        // Others are to be ignored (RFC 9113, 4.1).
        return undefined;
    }
  }

  #endBlock(flag: number): void {
    if ((flag & flags.endHeaders) === 0) return;
    const { id, isLast, pieces } = this.#block!;
    this.#block = undefined;
    // Decoded in any case: later blocks build on it.
    const fields = this.#decoder.decode(pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces));
    const stream = this.#stream(id);
    if (stream === undefined) return;
    if (fields === undefined) {
      this.#refuse(stream);
      return;
    }
    const isInterim = /^1\d\d$/.test(fields[':status'] as unknown as string) && !isLast;
    if (!isInterim) stream.receiver.fields(fields, isLast);
    if (isLast) this.#answered(stream);
  }

  /** The answer is malformed (RFC 9113, 8.1.1): that ends its stream, and no other. */
  #refuse(stream: Stream): void {
    this.#write(resetFrame(stream.id, errorCodes.protocol));
    this.#finish(stream);
    stream.receiver.lost({ kind: 'malformed' });
  }

  /** The answer is whole. */
  #answered(stream: Stream): void {
    if (this.#streams.get(stream.id) !== stream) return;
    // It doesn't want the rest of the request.
    if (!stream.isSent) this.#writeReset(stream);
    this.#finish(stream);
    stream.receiver.end();
  }

  #data(id: number, flag: number, payload: Buffer): void {
    const stream = this.#stream(id);
    const isLast = (flag & flags.endStream) !== 0;
    this.#taken += payload.length;
    if (this.#taken >= this.#options.window.connection / 2) {
      this.#write(windowUpdate(0, this.#taken));
      this.#taken = 0;
    }
    const piece = withoutPadding(payload, flag);
    if (stream === undefined) return;
    stream.taken += payload.length;
    if (!isLast && stream.taken >= this.#options.window.stream / 2) {
      this.#write(windowUpdate(id, stream.taken));
      stream.taken = 0;
    }
    if (piece.length > 0) stream.receiver.data(piece);
    if (isLast) this.#answered(stream);
  }

  #reset(id: number, payload: Buffer): void {
    requireSize(payload, 4);
    const stream = this.#stream(id);
    if (stream === undefined) return;
    const code = payload.readUInt32BE(0);
    this.#finish(stream);
    stream.receiver.lost(code === errorCodes.refusedStream ? { kind: 'refused' } : { kind: 'reset', code });
  }

  #settings(flag: number, payload: Buffer): void {
    if ((flag & flags.ack) !== 0) return;
    if (payload.length % 6 !== 0) throw new ConnectionError(errorCodes.frameSize, 'Settings are cut off');
    for (let at = 0; at < payload.length; at += 6) {
      this.#setting(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
    }
    this.#write(frame(types.settings, flags.ack, 0, Buffer.alloc(0)));
    if (!this.#isReady) {
      this.#isReady = true;
      this.#options.onReady();
    }
    for (const stream of this.#streams.values()) this.#writeBody(stream);
    this.#beginWaiting();
  }

  #setting(name: number, value: number): void {
    if (name === settings.maxConcurrentStreams) this.#mostStreams = value;
    else if (name === settings.maxHeaderListSize) this.#largestHead = value;
    else if (name === settings.maxFrameSize) {
      if (value < defaults.frameSize || value >= 2 ** 24) throw protocolError(`Frames can't have ${value} bytes`);
      this.#frameSize = value;
    } else if (name === settings.initialWindowSize) {
      if (value > most31) throw new ConnectionError(errorCodes.flowControl, 'A window is too large');
      // It is that of the streams which there are, too, and may become negative thereby (RFC 9113, 6.9.2).
      for (const stream of this.#streams.values()) stream.window += value - this.#streamWindow;
      this.#streamWindow = value;
    }
  }

  #goAway(payload: Buffer): void {
    if (payload.length < 8) throw new ConnectionError(errorCodes.frameSize, 'A goodbye is cut off');
    const last = payload.readUInt32BE(0) & most31;
    this.#retire();
    for (const stream of [...this.#streams.values()].filter(({ id }) => id > last)) {
      this.#finish(stream);
      stream.receiver.lost({ kind: 'refused' });
    }
    if (this.open === 0) this.#end();
  }

  #windowUpdate(id: number, payload: Buffer): void {
    requireSize(payload, 4);
    const size = payload.readUInt32BE(0) & most31;
    if (id === 0) {
      this.#window += size;
      if (this.#window > most31) throw new ConnectionError(errorCodes.flowControl, 'The window is too large');
      for (const stream of this.#streams.values()) this.#writeBody(stream);
      return;
    }
    const stream = this.#stream(id);
    if (stream === undefined) return;
    stream.window += size;
    this.#writeBody(stream);
  }

  /** The stream of this id; undefined if it is over. */
  #stream(id: number): Stream | undefined {
    const stream = this.#streams.get(id);
    if (stream === undefined && (id % 2 === 0 || id >= this.#nextId)) throw protocolError(`There was no stream ${id}`);
    return stream;
  }
}
