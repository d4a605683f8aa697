import {
  ConnectionError,
  errorCodes,
  flags,
  frame,
  headSize,
  maxInt31,
  protocolError,
  settings,
  types,
  writeHead,
} from './frames.ts';
import { defaultTableSize, maxFieldBytes, noTable, writeField } from './hpack.ts';
import type { WriteQueue } from './write-queue.ts';
import type { Stream } from './request.ts';

/** The initial values of SETTINGS_INITIAL_WINDOW_SIZE and SETTINGS_MAX_FRAME_SIZE (RFC 9113, 6.5.2). */
export const defaultWindow = 65_535;
const defaultFrameSize = 16_384;

/** Sends requests, and of their bodies as much as flow control allows. */
export class Sender {
  readonly #queue: WriteQueue;
  /** Streams whose bodies wait for WINDOW_UPDATE. */
  readonly #unsent = new Set<Stream>();
  #window = defaultWindow;
  #streamWindow = defaultWindow;
  #frameSize = defaultFrameSize;
  /** Whether the next header block has to begin with a table size update. */
  #owesTableSize = false;

  constructor(queue: WriteQueue) {
    this.#queue = queue;
  }

  /**
   * Applies the SETTINGS of the server. `resume` must be called afterwards.
   *
   * @param streams all that are open
   * @throws ConnectionError
   */
  settings(values: ReadonlyMap<number, number>, streams: Iterable<Stream>): void {
    this.#frameSize = values.get(settings.maxFrameSize) ?? this.#frameSize;
    // A reduced table size has to be acknowledged in the next header block (RFC 7541, 4.2), even by an encoder that uses no table.
    if ((values.get(settings.headerTableSize) ?? Infinity) < defaultTableSize) this.#owesTableSize = true;
    const size = values.get(settings.initialWindowSize) ?? this.#streamWindow;
    const change = size - this.#streamWindow;
    if (change === 0) return;
    this.#streamWindow = size;
    // The change applies to open streams, too, whose windows may become negative (RFC 9113, 6.9.2).
    for (const stream of streams) {
      stream.window += change;
      if (stream.window > maxInt31)
        throw new ConnectionError(errorCodes.flowControl, 'A flow-control window is too large');
    }
  }

  /** WINDOW_UPDATE for the connection. @throws ConnectionError */
  widen(size: number): void {
    if (size === 0) throw protocolError('WINDOW_UPDATE with an increment of 0');
    this.#window += size;
    if (this.#window > maxInt31)
      throw new ConnectionError(errorCodes.flowControl, 'The flow-control window is too large');
    this.resume();
  }

  widenStream(stream: Stream, size: number): void {
    stream.window += size;
    this.#sendBody(stream);
  }

  /** Sends what flow control allows by now. */
  resume(): void {
    for (const stream of this.#unsent) this.#sendBody(stream);
  }

  /** Sends no more of a stream. */
  stop(stream: Stream): void {
    this.#unsent.delete(stream);
  }

  stopAll(): void {
    this.#unsent.clear();
  }

  /** Sends the header fields of a request, and of its body as much as flow control allows. */
  begin(stream: Stream): void {
    stream.window = this.#streamWindow;
    const { id, head, fields, body } = stream;
    let maxBytes = head.bytes.length + 1;
    for (const name in fields) {
      const values = fields[name] as string | string[];
      if (typeof values === 'string') maxBytes += maxFieldBytes(name, values);
      else for (const value of values) maxBytes += maxFieldBytes(name, value);
    }
    const isWhole = body.length <= Math.min(stream.window, this.#window, this.#frameSize);
    const buffer = Buffer.allocUnsafe(headSize + maxBytes + (isWhole ? headSize + body.length : 0));
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
    this.#queue.write(buffer.subarray(0, end));
    if (!isWhole) this.#sendBody(stream);
  }

  #sendLongHead(id: number, block: Buffer): void {
    for (let at = 0; at < block.length; at += this.#frameSize) {
      const isLast = at + this.#frameSize >= block.length;
      const type = at === 0 ? types.headers : types.continuation;
      this.#queue.write(frame(type, isLast ? flags.endHeaders : 0, id, block.subarray(at, at + this.#frameSize)));
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
      this.#queue.write(frame(types.data, stream.isSent ? flags.endStream : 0, stream.id, piece));
    }
    this.#unsent.delete(stream);
  }

  /** Takes bytes off the body, and off both windows. */
  #take(stream: Stream, size: number): void {
    stream.body = stream.body.subarray(size);
    stream.isSent = stream.body.length === 0;
    stream.window -= size;
    this.#window -= size;
  }
}
