import { constants, type ServerHttp2Stream } from 'node:http2';
import type { ServerWritableStream } from '@grpc/grpc-js';
import { HubError } from '../errors.ts';
import { RateFloor, type RateFloorOptions } from '../rate-floor.ts';

/** The prefix of a message (gRPC over HTTP/2, Length-Prefixed-Message): whether it is compressed, and its length. */
const prefixLength = 5;

/** A message that is encoded already, since several streams are sent the same one. Of an array of them as much as possible is sent at once. */
export class EncodedMessage {
  /** With its prefix. */
  readonly frame: Buffer;

  /** @param parts encodings that are the encoding of one message when they are joined */
  constructor(...parts: readonly Uint8Array[]) {
    this.frame = Buffer.concat([Buffer.alloc(prefixLength), ...parts]);
    this.frame.writeUInt32BE(this.frame.length - prefixLength, 1);
  }

  get bytes(): Buffer {
    return this.frame.subarray(prefixLength);
  }
}

/** Encoded messages are written in pieces of about this size, so that it shows that a slow reader reads. */
const maxWriteBytes = 64 * 1024;

export interface WritingOptions {
  /** Sends the initial metadata, unless that was done. */
  begin: () => void;
  /** Aborted when the reader has gone. */
  signal: AbortSignal;
  /** The minimum rate of the reader. */
  minRate: RateFloorOptions;
}

/** Writes messages to a reader with backpressure. The stream of a reader that is too slow is reset. */
export class Writing {
  readonly #call: ServerWritableStream<unknown, object>;
  readonly #signal: AbortSignal;
  readonly #floor: RateFloor;
  readonly #onAbort = () => this.#onTaken();
  #onTaken: () => void = () => {};
  #taken = Promise.resolve();
  #tooSlow: HubError | undefined;

  /** @param signal aborted when the reader has gone */
  constructor(call: ServerWritableStream<unknown, object>, signal: AbortSignal, minRate: RateFloorOptions) {
    this.#call = call;
    this.#signal = signal;
    this.#floor = new RateFloor(minRate, () => {
      this.#tooSlow = new HubError('DEADLINE_EXCEEDED', 'READER_TOO_SLOW', 'The caller takes the bytes too slowly');
      reset(call);
      this.#onTaken();
    });
    this.#floor.pause();
    signal.addEventListener('abort', this.#onAbort);
  }

  /** @param done is called when the connection has taken the message */
  write(message: object, done: () => void = () => {}): void {
    this.#taken = new Promise<void>((resolve) => {
      this.#onTaken = resolve;
      this.#call.write(message, () => {
        done();
        resolve();
      });
    });
  }

  /**
   * Writes encoded messages in one piece. For grpc-js each of them would be a write of its own, which takes longer than all else that is
   * done for it here, so that they go directly to the stream. The metadata must have been sent.
   *
   * @param done is called when the connection has taken them
   */
  writeEncoded(messages: readonly EncodedMessage[], done: () => void): void {
    const { stream } = (this.#call as ServedStream).call ?? {};
    if (stream === undefined) {
      // The private fields of grpc-js have changed.
      messages.forEach(({ bytes }, index) => this.write(bytes, index === messages.length - 1 ? done : () => {}));
      return;
    }
    this.#taken = new Promise<void>((resolve) => {
      this.#onTaken = resolve;
      const taken = () => {
        done();
        resolve();
      };
      if (stream.destroyed || stream.writableEnded) taken();
      else stream.write(Buffer.concat(messages.map(({ frame }) => frame)), taken);
    });
  }

  /**
   * Waits until the connection has taken the last message, so that never more than one is in flight.
   *
   * @throws the signal's reason once the reader has gone; HubError DEADLINE_EXCEEDED `READER_TOO_SLOW`
   */
  async last(): Promise<void> {
    this.#check();
    this.#floor.resume();
    await this.#taken;
    this.#floor.pause();
    this.#check();
  }

  /** The reader has taken this many bytes. */
  count(bytes: number): void {
    this.#floor.count(bytes);
  }

  /** Ends the watch over the reader; must be called. */
  stop(): void {
    this.#floor.stop();
    this.#signal.removeEventListener('abort', this.#onAbort);
  }

  #check(): void {
    if (this.#tooSlow !== undefined) throw this.#tooSlow;
    this.#signal.throwIfAborted();
  }
}

/**
 * Writes messages as they come, with backpressure: the next one, or the next array of encoded ones, is asked for when the connection has
 * taken the last one.
 *
 * @throws what `messages` throws, or the signal's reason once the reader has gone; HubError DEADLINE_EXCEEDED `READER_TOO_SLOW`
 */
export async function writeMessages(
  call: ServerWritableStream<unknown, Buffer>,
  messages: AsyncIterable<object>,
  serialize: (message: object) => Buffer,
  { begin, signal, minRate }: WritingOptions,
): Promise<void> {
  const writing = new Writing(call as ServerWritableStream<unknown, object>, signal, minRate);
  const iterator = messages[Symbol.asyncIterator]();
  let isWhole = false;
  let giveUp: (reason: unknown) => void = () => {};
  const onAbort = () => giveUp(signal.reason);
  signal.addEventListener('abort', onAbort);
  /** Doesn't wait for a message that nobody will read. */
  const next = () =>
    new Promise<IteratorResult<object>>((resolve, reject) => {
      giveUp = reject;
      if (signal.aborted) reject(signal.reason as Error);
      else iterator.next().then(resolve, reject);
    });
  try {
    for (;;) {
      const { done, value } = await next();
      if (done === true) break;
      if (Array.isArray(value)) {
        begin();
        for (const some of pieces(value as EncodedMessage[])) {
          const size = some.reduce((sum, { frame }) => sum + frame.length, 0);
          writing.writeEncoded(some, () => writing.count(size));
          await writing.last();
        }
        continue;
      }
      const encoded = serialize(value);
      begin();
      writing.write(encoded, () => writing.count(encoded.length));
      await writing.last();
    }
    isWhole = true;
  } finally {
    writing.stop();
    signal.removeEventListener('abort', onAbort);
    // Not awaited: the next message may never come.
    if (!isWhole) iterator.return?.().catch(() => {});
  }
}

/** Messages that are written together. */
function* pieces(messages: readonly EncodedMessage[]): Generator<readonly EncodedMessage[]> {
  let begin = 0;
  let size = 0;
  for (const [index, { frame }] of messages.entries()) {
    size += frame.length;
    if (size < maxWriteBytes) continue;
    yield messages.slice(begin, index + 1);
    begin = index + 1;
    size = 0;
  }
  if (begin < messages.length) yield messages.slice(begin);
}

/** Private fields of a call that grpc-js 1.14 serves. */
interface ServedStream {
  call?: { stream?: ServerHttp2Stream };
}

/** A client that doesn't read the reset of its stream in this time loses its connection. */
const resetLimitMs = 5_000;

/**
 * Resets the stream of a call. An ordinary end would have to wait until the client has read all that was written. A client that doesn't
 * even read its connection loses that, too: otherwise it would hold the bytes that are in flight.
 *
 * grpc-js has no public access to the stream. If its private fields change, the tests of readers that read nothing fail.
 */
function reset(call: object): void {
  const { stream } = (call as ServedStream).call ?? {};
  if (stream === undefined || stream.destroyed) return;
  const { session } = stream;
  const timer = setTimeout(() => session?.destroy(), resetLimitMs).unref();
  stream.once('close', () => clearTimeout(timer));
  stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
}
