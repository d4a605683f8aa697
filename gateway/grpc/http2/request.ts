import type { IncomingHttpHeaders } from 'node:http2';
import { mostBytes, writeStatic } from './hpack.ts';

/** Fields of a request, by their names in lower case. */
export type Fields = Record<string, string | string[]>;

/**
 * Why nothing more is heard of a request: it never left, the server never looked at it, it gave it up, its answer breaks the rules
 * of HTTP, or the connection is gone.
 */
export type Loss =
  { kind: 'unsent' } | { kind: 'refused' } | { kind: 'reset'; code: number } | { kind: 'malformed' } | { kind: 'gone' };

/** Hears what a server answers: at last either `end` or `lost`. */
export interface Receiver {
  /** The head of the answer; then, if there is anything behind the body, that. @param isLast whether the answer ends with them */
  fields(fields: IncomingHttpHeaders, isLast: boolean): void;
  data(piece: Buffer): void;
  /** The answer is whole. */
  end(): void;
  lost(loss: Loss): void;
}

/** Hears an answer that nobody waits for any more. */
export const nobody: Receiver = { fields() {}, data() {}, end() {}, lost() {} };

/** The fields that requests have in common, coded. */
export class RequestHead {
  readonly bytes: Buffer;

  constructor(fields: Record<string, string>) {
    const entries = Object.entries(fields);
    const buffer = Buffer.alloc(entries.reduce((sum, [name, value]) => sum + mostBytes(name, value), 0));
    const end = entries.reduce((at, [name, value]) => writeStatic(buffer, at, name, value), 0);
    this.bytes = buffer.subarray(0, end);
  }
}

/** A request and what comes back. */
export class Stream {
  /** 0 while the server takes no more at once. */
  id = 0;
  readonly head: RequestHead;
  readonly fields: Fields;
  /** What is left of the body. */
  body: Buffer;
  isSent = false;
  receiver: Receiver;
  /** Bytes that the server takes at the moment. */
  window = 0;
  /** Bytes that were received and not given free again. */
  taken = 0;

  /** Whether its head is there. */
  #hasHead = false;
  /** Bytes of its body that it still has to have, if it said how many (content-length). */
  #left: number | undefined;

  constructor(head: RequestHead, fields: Fields, body: Buffer, receiver: Receiver) {
    this.head = head;
    this.fields = fields;
    this.body = body;
    this.receiver = receiver;
  }
  /** What fields of the answer are: its head, what is behind its body, nothing yet, or against the rules (RFC 9113, 8.1). */
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

  /** Whether a piece of the body may come now; it is counted. */
  takesData(piece: Buffer): boolean {
    if (this.#left !== undefined) this.#left -= piece.length;
    return this.#hasHead && (this.#left === undefined || this.#left >= 0);
  }

  /** Whether the answer has as many bytes as it said. */
  get isWhole(): boolean {
    return this.#hasHead && (this.#left === undefined || this.#left === 0);
  }
}
