import { constants, type ServerHttp2Stream } from 'node:http2';
import type { ServerWritableStream } from '@grpc/grpc-js';
import { HubError } from '../errors.ts';
import { RateFloor, type RateFloorOptions } from '../rate-floor.ts';

/** A message that is encoded already, since several streams are sent the same one. */
export class EncodedMessage {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
}

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
 * Writes messages as they come, with backpressure: the next one is asked for when the connection has taken the last one.
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
      const encoded = value instanceof EncodedMessage ? value.bytes : serialize(value);
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
