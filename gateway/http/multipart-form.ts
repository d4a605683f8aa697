/** Reads forms with files (RFC 7578), which are multipart bodies (RFC 2046, 5.1), as their bytes come. */

/** What a form is told as. */
export interface FormSink {
  /** Another part begins. @param name of its field; undefined if it says none */
  part(name: string | undefined): void;
  /** The next bytes of that part. */
  bytes(piece: Buffer): void;
}

/** Bytes that the headers of a part may have, the blanks behind a boundary, and how many parts a form may have. */
const limits = { headers: 16 * 1024, padding: 256, parts: 1_000 };
const lineEnd = Buffer.from('\r\n');
const headersEnd = Buffer.from('\r\n\r\n');

/**
 * The boundary that a Content-Type names: 1 to 70 characters, as they are or in quotes.
 *
 * @returns undefined if it names none
 */
export function boundaryIn(contentType: string): string | undefined {
  const boundary = parameterIn(contentType, 'boundary');
  return boundary !== undefined && /^[\x20-\x7e]{0,69}[\x21-\x7e]$/.test(boundary) ? boundary : undefined;
}

/**
 * The value of a parameter behind the first part of a header, its quotes and escapes taken away. One whose quotes don't end is none, nor
 * is what follows it.
 */
function parameterIn(header: string, wanted: string): string | undefined {
  const begin = /;\s*([^\s=;"]+)\s*=\s*/y;
  const plain = /[^\s;"]*/y;
  for (let at = header.indexOf(';'); at !== -1; at = header.indexOf(';', at)) {
    begin.lastIndex = at;
    const [all = ';', name = ''] = begin.exec(header) ?? [];
    at += all.length;
    let value = '';
    if (header[at] === '"') {
      for (at += 1; header[at] !== '"'; at += 1) {
        if (header[at] === '\\') at += 1;
        if (at >= header.length) return undefined;
        value += header[at];
      }
      at += 1;
    } else {
      plain.lastIndex = at;
      value = plain.exec(header)?.[0] ?? '';
      at += value.length;
    }
    if (name.toLowerCase() === wanted) return value;
  }
  return undefined;
}

/** Where in a form it is. */
type State = 'before' | 'headers' | 'part' | 'after';

/** How far the bytes were read, and whether more of them have to come before it goes on. */
interface Step {
  at: number;
  isStuck: boolean;
}

/** A form of which the bytes come one piece after the other. */
export class Form {
  readonly #delimiter: Buffer;
  readonly #sink: FormSink;
  #state: State = 'before';
  #parts = 0;
  /** What was not looked at to its end. The first delimiter may stand at the very beginning: then no line ends before it. */
  #rest: Buffer = lineEnd;

  constructor(boundary: string, sink: FormSink) {
    this.#delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1');
    this.#sink = sink;
  }

  /** Whether the last delimiter has come: what follows is no part of the form. */
  get isWhole(): boolean {
    return this.#state === 'after';
  }

  /** @throws Error if it is no form */
  write(piece: Buffer): void {
    if (this.#state === 'after') return;
    const bytes = Buffer.concat([this.#rest, piece]);
    let step: Step = { at: 0, isStuck: false };
    while (!step.isStuck) {
      step = this.#state === 'headers' ? this.#readHeaders(bytes, step.at) : this.#readPart(bytes, step.at);
    }
    // A copy: whoever was told of the bytes may use their memory for something else.
    this.#rest = Buffer.from(bytes.subarray(step.at));
  }

  #readHeaders(bytes: Buffer, from: number): Step {
    const end = bytes.indexOf(headersEnd, from);
    if ((end === -1 ? bytes.length : end) - from > limits.headers)
      throw new Error('The headers of a part are too long');
    if (end === -1) return { at: from, isStuck: true };
    this.#parts += 1;
    if (this.#parts > limits.parts) throw new Error('The form has too many parts');
    this.#sink.part(nameIn(bytes.toString('utf8', from, end)));
    this.#state = 'part';
    return { at: end + headersEnd.length, isStuck: false };
  }

  #readPart(bytes: Buffer, from: number): Step {
    for (let search = from; ;) {
      const found = bytes.indexOf(this.#delimiter, search);
      // As much of a delimiter as may still be coming.
      const safe = Math.max(from, bytes.length - this.#delimiter.length + 1);
      const after = found === -1 ? 'unknown' : this.#lineAfter(bytes, found + this.#delimiter.length);
      if (after === 'other') {
        // A line that only begins like a delimiter.
        search = found + 1;
        continue;
      }
      const to = found === -1 ? safe : found;
      if (this.#state === 'part' && to > from) this.#sink.bytes(bytes.subarray(from, to));
      if (after === 'unknown') return { at: to, isStuck: true };
      this.#state = after.isLast ? 'after' : 'headers';
      return { at: after.end, isStuck: after.isLast };
    }
  }

  /** What stands behind a delimiter: nothing but blanks up to the end of the line, or two hyphens. */
  #lineAfter(bytes: Buffer, from: number): { isLast: boolean; end: number } | 'unknown' | 'other' {
    let at = from;
    if (bytes[at] === 0x2d) {
      if (at + 1 >= bytes.length) return 'unknown';
      return bytes[at + 1] === 0x2d ? { isLast: true, end: at + 2 } : 'other';
    }
    while (bytes[at] === 0x20 || bytes[at] === 0x09) at += 1;
    if (at - from > limits.padding) return 'other';
    if (at + 1 >= bytes.length && (at >= bytes.length || bytes[at] === 0x0d)) return 'unknown';
    // Where the line ends, the headers begin: of a part without any, an empty line follows at once.
    return bytes[at] === 0x0d && bytes[at + 1] === 0x0a ? { isLast: false, end: at } : 'other';
  }
}

/**
 * The name of the field in the headers of a part.
 *
 * @throws Error if its bytes are in an encoding of mail, which HTTP doesn't use (RFC 7578, 4.7)
 */
function nameIn(headers: string): string | undefined {
  let name: string | undefined;
  // A line that begins with a blank belongs to the one before.
  for (const line of headers.replaceAll(/\r\n[ \t]+/g, ' ').split('\r\n')) {
    const [, header, value = ''] = /^([^\s:]+)[ \t]*:[ \t]*(.*)$/s.exec(line) ?? [];
    if (header === undefined && line !== '') throw new Error('A part has a line that is no header');
    if (header?.toLowerCase() === 'content-disposition') name = fieldName(value);
    if (header?.toLowerCase() === 'content-transfer-encoding' && !/^(7bit|8bit|binary)$/i.test(value.trim())) {
      throw new Error('A part is encoded');
    }
  }
  return name;
}

/** Browsers write quotes and ends of lines in names as RFC 3986 does (WHATWG HTML, 4.10.21.8). */
function fieldName(disposition: string): string | undefined {
  if (!/^form-data\s*(;|$)/i.test(disposition)) return undefined;
  return parameterIn(disposition, 'name')?.replaceAll(/%(22|0D|0A)/gi, decodeURIComponent);
}
