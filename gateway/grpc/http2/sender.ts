import {
  ConnectionError,
  errorCodes,
  flags,
  frame,
  headSize,
  most31,
  protocolError,
  settings,
  types,
  writeHead,
} from './frames.ts';
import { defaultTableSize, mostBytes, noTable, writeField } from './hpack.ts';
import type { Outbox } from './write-queue.ts';
import type { Stream } from './request.ts';

/** What each side takes until it says otherwise (RFC 9113, 6.5.2). */
export const defaultWindow = 65_535;
const defaultFrameSize = 16_384;

/** Sends requests: of their bodies as much as the server takes at the moment. */
export class Sender {
  readonly #outbox: Outbox;
  /** Those whose bodies wait for the server to take more. */
  readonly #unsent = new Set<Stream>();
  #window = defaultWindow;
  #streamWindow = defaultWindow;
  #frameSize = defaultFrameSize;
  /** Whether the next block of fields has to say first that it uses no table. */
  #owesTableSize = false;

  constructor(outbox: Outbox) {
    this.#outbox = outbox;
  }

  /**
   * What the server says that it takes; `resume` is to follow.
   *
   * @param streams all that there are
   * @throws ConnectionError
   */
  settings(values: ReadonlyMap<number, number>, streams: Iterable<Stream>): void {
    this.#frameSize = values.get(settings.maxFrameSize) ?? this.#frameSize;
    // A decoder whose table became smaller wants to hear so (RFC 7541, 4.2), also from those that use none.
    if ((values.get(settings.headerTableSize) ?? Infinity) < defaultTableSize) this.#owesTableSize = true;
    const size = values.get(settings.initialWindowSize) ?? this.#streamWindow;
    const change = size - this.#streamWindow;
    if (change === 0) return;
    this.#streamWindow = size;
    // It is that of the streams which there are, too, and may become negative thereby (RFC 9113, 6.9.2).
    for (const stream of streams) {
      stream.window += change;
      if (stream.window > most31) throw new ConnectionError(errorCodes.flowControl, 'A window is too large');
    }
  }

  /** The server takes more on all streams. @throws ConnectionError */
  widen(size: number): void {
    if (size === 0) throw protocolError('The window became larger by nothing');
    this.#window += size;
    if (this.#window > most31) throw new ConnectionError(errorCodes.flowControl, 'The window is too large');
    this.resume();
  }

  widenStream(stream: Stream, size: number): void {
    stream.window += size;
    this.#sendBody(stream);
  }

  /** Sends what may be sent by now. */
  resume(): void {
    for (const stream of this.#unsent) this.#sendBody(stream);
  }

  /** Sends no more of it. */
  stop(stream: Stream): void {
    this.#unsent.delete(stream);
  }

  stopAll(): void {
    this.#unsent.clear();
  }

  /** Sends the head of a request, and of its body as much as the server takes. */
  begin(stream: Stream): void {
    stream.window = this.#streamWindow;
    const { id, head, fields, body } = stream;
    let most = head.bytes.length + 1;
    for (const name in fields) {
      const values = fields[name] as string | string[];
      if (typeof values === 'string') most += mostBytes(name, values);
      else for (const value of values) most += mostBytes(name, value);
    }
    const isWhole = body.length <= Math.min(stream.window, this.#window, this.#frameSize);
    const buffer = Buffer.allocUnsafe(headSize + most + (isWhole ? headSize + body.length : 0));
    let end = headSize;
    if (this.#owesTableSize) buffer[end++] = noTable;
    this.#owesTableSize = false;
    end += head.bytes.copy(buffer, end);
    for (const name in fields) {
      const values = fields[name] as string | string[];
      if (typeof values === 'string') end = writeField(buffer, end, name, values);
      else for (const value of values) end = writeField(buffer, end, name, value);
    }
    const size = end - headSize;
    if (size > this.#frameSize) {
      this.#sendLongHead(id, buffer.subarray(headSize, end));
      this.#sendBody(stream);
      return;
    }
    writeHead(buffer, 0, size, types.headers, flags.endHeaders, id);
    if (isWhole) {
      writeHead(buffer, end, body.length, types.data, flags.endStream, id);
      end += headSize + body.copy(buffer, end + headSize);
      this.#take(stream, body.length);
    }
    this.#outbox.write(buffer.subarray(0, end));
    if (!isWhole) this.#sendBody(stream);
  }

  #sendLongHead(id: number, block: Buffer): void {
    for (let at = 0; at < block.length; at += this.#frameSize) {
      const isLast = at + this.#frameSize >= block.length;
      const type = at === 0 ? types.headers : types.continuation;
      this.#outbox.write(frame(type, isLast ? flags.endHeaders : 0, id, block.subarray(at, at + this.#frameSize)));
    }
  }

  #sendBody(stream: Stream): void {
    while (!stream.isSent) {
      const size = Math.min(stream.body.length, stream.window, this.#window, this.#frameSize);
      if (size <= 0 && stream.body.length > 0) {
        this.#unsent.add(stream);
        return;
      }
      const piece = stream.body.subarray(0, size);
      this.#take(stream, size);
      this.#outbox.write(frame(types.data, stream.isSent ? flags.endStream : 0, stream.id, piece));
    }
    this.#unsent.delete(stream);
  }

  /** Takes bytes off the body, and from the windows. */
  #take(stream: Stream, size: number): void {
    stream.body = stream.body.subarray(size);
    stream.isSent = stream.body.length === 0;
    stream.window -= size;
    this.#window -= size;
  }
}
