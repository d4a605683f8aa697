import type { IncomingHttpHeaders } from 'node:http2';
import { maxFieldBytes, writeStatic } from './hpack.ts';

/** Fields of a request, by their names in lower case. */
export type Fields = Record<string, string | string[]>;

/**
 * Why a request gets no answer: it was never sent, the server refused it unprocessed (REFUSED_STREAM, or GOAWAY), the server reset it,
 * the answer is malformed, or the connection is gone.
 */
export type Loss =
  { kind: 'unsent' } | { kind: 'refused' } | { kind: 'reset'; code: number } | { kind: 'malformed' } | { kind: 'gone' };

/** Receives the answer of a server. The last call is either `end` or `lost`. */
export interface Receiver {
  /** The header fields of the answer, and later its trailers, if it has any. @param isLast whether they end the stream */
  fields(fields: IncomingHttpHeaders, isLast: boolean): void;
  data(piece: Buffer): void;
  /** The answer is whole. */
  end(): void;
  lost(loss: Loss): void;
}

/** A request whose answer may go on for long. */
export interface LastingRequest {
  /** The receiver is not called any more. */
  cancel(): void;
  /** Lets the server send no more than fits into the window of the stream, until `resume`. */
  pause(): void;
  resume(): void;
}

/** Receives an answer that nobody waits for any more. */
export const noReceiver: Receiver = { fields() {}, data() {}, end() {}, lost() {} };

/** The header fields that all requests to an RPC have in common, encoded once. */
export class RequestHead {
  readonly bytes: Buffer;

  constructor(fields: Record<string, string>) {
    const entries = Object.entries(fields);
    const buffer = Buffer.alloc(entries.reduce((sum, [name, value]) => sum + maxFieldBytes(name, value), 0));
    const end = entries.reduce((at, [name, value]) => writeStatic(buffer, at, name, value), 0);
    this.bytes = buffer.subarray(0, end);
  }
}

/** A request and what comes back. */
export class Stream {
  /** 0 while the request waits because of MAX_CONCURRENT_STREAMS. */
  id = 0;
  readonly head: RequestHead;
  readonly fields: Fields;
  /** What is left of the body. */
  body: Buffer;
  isSent = false;
  receiver: Receiver;
  /** The flow-control window of the server: bytes that may be sent now. */
  window = 0;
  /** Bytes received for which no WINDOW_UPDATE was sent yet. */
  taken = 0;
  /** Whether the answer may go on for long: then a cancelled request is always reset. */
  isLasting = false;
  /** Whether the receiver wants no more for now: then the server may send no more than what the window has left. */
  isPaused = false;

  /** Whether the header fields of the answer have come. */
  #hasHead = false;
  /** Bytes of the body that are still to come, if there was a content-length. */
  #left: number | undefined;

  constructor(head: RequestHead, fields: Fields, body: Buffer, receiver: Receiver) {
    this.head = head;
    this.fields = fields;
    this.body = body;
    this.receiver = receiver;
  }

  /** What a header block of the answer is (RFC 9113, 8.1): its header fields, its trailers, an interim response (1xx), or malformed. */
  kindOf(fields: IncomingHttpHeaders, isLast: boolean): 'head' | 'trailers' | 'interim' | 'malformed' {
    for (const name in fields) {
      if (!name.startsWith(':')) break;
      if (name !== ':status') return 'malformed';
    }
    const status = fields[':status'] as unknown as string | undefined;
    if (this.#hasHead) return status === undefined && isLast ? 'trailers' : 'malformed';
    if (status === undefined || !/^[1-9]\d\d$/.test(status)) return 'malformed';
    if (status.startsWith('1')) return isLast ? 'malformed' : 'interim';
    const length = fields['content-length'];
    if (length !== undefined && !/^\d{1,15}$/.test(length)) return 'malformed';
    this.#left = length === undefined ? undefined : Number(length);
    this.#hasHead = true;
    return 'head';
  }

  /** Counts a piece of the body. @returns whether it may come now */
  takesData(piece: Buffer): boolean {
    if (this.#left !== undefined) this.#left -= piece.length;
    return this.#hasHead && (this.#left === undefined || this.#left >= 0);
  }

  /** Whether the answer has as many bytes as its content-length says. */
  get isWhole(): boolean {
    return this.#hasHead && (this.#left === undefined || this.#left === 0);
  }
}
