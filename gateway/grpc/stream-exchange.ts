import type { IncomingHttpHeaders } from 'node:http2';
import { status } from '@grpc/grpc-js';
import type { CallError } from '#lib/rpc/delivery.ts';
import { BufferList } from './buffer-list.ts';
import { Exchange, prefixLength } from './exchange.ts';

/** Hears what a server streams. The last call is either `end` or `fail`. */
export interface StreamListener {
  /** The metadata of the server; not if the stream has no messages. */
  begin(headers: IncomingHttpHeaders): void;
  /** Messages that came together, one or more. */
  messages(messages: readonly Buffer[]): void;
  end(trailers: IncomingHttpHeaders): void;
  fail(error: CallError): void;
}

/** A call that is answered with a stream of messages. */
export class StreamExchange extends Exchange {
  readonly #maxMessage: number;
  readonly #listener: StreamListener;
  /** The beginning of a message whose end is to come. */
  readonly #rest = new BufferList();
  /** How many bytes there must be until a message is whole, or its length is known. */
  #needed = prefixLength;

  /** @param maxMessage bytes that a message may have */
  constructor(maxMessage: number, listener: StreamListener) {
    super();
    this.#maxMessage = maxMessage;
    this.#listener = listener;
  }

  protected override begun(headers: IncomingHttpHeaders): void {
    this.#listener.begin(headers);
  }

  protected override take(piece: Buffer): void {
    let bytes = piece;
    if (this.#rest.size > 0) {
      this.#rest.push(piece);
      if (this.#rest.size < this.#needed) return;
      bytes = this.#rest.whole();
      this.#rest.clear();
    }
    const messages: Buffer[] = [];
    let at = 0;
    for (;;) {
      this.#needed = prefixLength;
      if (bytes.length - at < this.#needed) break;
      const length = bytes.readUInt32BE(at + 1);
      const isCompressed = bytes[at] !== 0;
      if (isCompressed || length > this.#maxMessage) {
        // What came before it is told all the same.
        this.#tell(messages);
        if (isCompressed) this.compressed();
        else this.tooLong(length, this.#maxMessage);
        return;
      }
      this.#needed += length;
      if (bytes.length - at < this.#needed) break;
      messages.push(bytes.subarray(at + prefixLength, at + this.#needed));
      at += this.#needed;
    }
    if (at < bytes.length) this.#rest.push(bytes.subarray(at));
    this.#tell(messages);
  }

  #tell(messages: readonly Buffer[]): void {
    if (messages.length > 0) this.#listener.messages(messages);
  }

  protected override succeed(_headers: IncomingHttpHeaders, trailers: IncomingHttpHeaders): void {
    if (this.#rest.size > 0) {
      this.fail(status.INTERNAL, 'The stream ended in the middle of a message', 'answered');
      return;
    }
    this.finish();
    this.#listener.end(trailers);
  }

  protected override failed(error: CallError): void {
    this.#rest.clear();
    this.#listener.fail(error);
  }
}
