import type { IncomingHttpHeaders } from 'node:http2';
import { status } from '@grpc/grpc-js';
import type { CallError } from '#lib/rpc/delivery.ts';
import { BufferList } from './buffer-list.ts';
import { Exchange, prefixLength } from './exchange.ts';

/** What a server answered. */
export interface UnaryAnswer {
  message: Buffer;
  /** Its metadata, as HTTP/2 has it. */
  headers: IncomingHttpHeaders;
  trailers: IncomingHttpHeaders;
}

/** One unary call: collects the response, and makes an answer or an error of it. */
export class UnaryExchange extends Exchange {
  readonly #maxAnswer: number;
  readonly #resolve: (answer: UnaryAnswer) => void;
  readonly #reject: (error: CallError) => void;
  readonly #body = new BufferList();
  /** The length of the message, as its prefix says. */
  #announced: number | undefined;

  constructor(maxAnswer: number, resolve: (answer: UnaryAnswer) => void, reject: (error: CallError) => void) {
    super();
    this.#maxAnswer = maxAnswer;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  protected override take(piece: Buffer): void {
    this.#body.push(piece);
    const { size } = this.#body;
    // The length comes first: a message that is too long is refused before it has come.
    if (this.#announced === undefined && size >= prefixLength) {
      this.#announced = this.#body.begin(prefixLength).readUInt32BE(1);
    }
    const length = Math.max(this.#announced ?? 0, size - prefixLength);
    if (length > this.#maxAnswer) this.tooLong(length, this.#maxAnswer);
  }

  protected override succeed(headers: IncomingHttpHeaders, trailers: IncomingHttpHeaders): void {
    const body = this.#body.whole();
    if (body.length < prefixLength || body.readUInt32BE(1) !== body.length - prefixLength) {
      this.fail(status.UNIMPLEMENTED, 'The server answered with no message, or with several', 'answered');
    } else if (body[0] !== 0) {
      this.compressed();
    } else {
      this.finish();
      this.#resolve({ message: body.subarray(prefixLength), headers, trailers });
    }
  }

  protected override failed(error: CallError): void {
    this.#body.clear();
    this.#reject(error);
  }
}
