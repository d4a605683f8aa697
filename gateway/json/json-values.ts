const [quote, backslash, comma, colon] = [0x22, 0x5c, 0x2c, 0x3a];
const [openList, closeList, openObject, closeObject] = [0x5b, 0x5d, 0x7b, 0x7d];

function isSpace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

/** A value in a body is too long. */
export class ValueTooLong extends Error {}

/**
 * Splits a stream of JSON values, whatever is between them: lines, spaces, or nothing. It only looks for their ends; whether they are
 * JSON is checked when they are parsed.
 */
export class JsonValues {
  readonly #limit: number;
  #pieces: Buffer[] = [];
  #size = 0;
  #depth = 0;
  #inText = false;
  #isEscaped = false;
  #hasBegun = false;

  /** @param limit bytes that a value may have */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * The values that end in the next bytes.
   *
   * @param most after so many it stops; what follows is then not looked at
   * @throws ValueTooLong
   */
  push(chunk: Buffer, most = Infinity): Buffer[] {
    const values: Buffer[] = [];
    let from = 0;
    const finish = (to: number) => {
      const piece = chunk.subarray(from, to);
      values.push(this.#pieces.length === 0 ? piece : Buffer.concat([...this.#pieces, piece]));
      this.#pieces = [];
      this.#size = 0;
      this.#hasBegun = false;
      from = to;
    };
    const { length } = chunk;
    for (let at = 0; at < length; at++) {
      if (values.length >= most) return values;
      if (this.#inText) {
        at = this.#skipText(chunk, at);
        if (!this.#inText && this.#depth === 0) finish(at + 1);
        continue;
      }
      const byte = chunk[at] as number;
      if (this.#depth === 0) {
        if (isSpace(byte)) {
          if (this.#hasBegun) finish(at);
          from = at + 1;
          continue;
        }
        const begins = byte === quote || byte === openObject || byte === openList;
        // A bare word or number ends where the next value begins.
        if (begins && this.#hasBegun) finish(at);
        if (!this.#hasBegun) {
          from = at;
          this.#hasBegun = true;
        }
      }
      if (byte === quote) this.#inText = true;
      else if (byte === openObject || byte === openList) this.#depth += 1;
      else if (byte === closeObject || byte === closeList) {
        this.#depth = Math.max(0, this.#depth - 1);
        if (this.#depth === 0) finish(at + 1);
      } else if (this.#depth === 0 && (byte === comma || byte === colon)) finish(at + 1);
    }
    if (this.#hasBegun) {
      this.#pieces.push(chunk.subarray(from));
      this.#size += chunk.length - from;
      if (this.#size > this.#limit) throw new ValueTooLong();
    }
    return values;
  }

  /** Goes on within a text. @returns where it ends, or the end of the piece */
  #skipText(chunk: Buffer, from: number): number {
    const { length } = chunk;
    let at = from;
    if (this.#isEscaped) at += 1;
    while (at < length && chunk[at] !== quote) at += chunk[at] === backslash ? 2 : 1;
    this.#inText = at >= length;
    // The last byte of the piece may have been a backslash.
    this.#isEscaped = at > length;
    return at;
  }

  /** What is left at the end of the stream: a value that only its end could end, or the beginning of one. */
  rest(): Buffer | undefined {
    return this.#hasBegun ? Buffer.concat(this.#pieces) : undefined;
  }
}

/** Whether a body begins with a list or an object, whose end `outlineOf` finds. */
export function beginsWithBracket(body: Buffer): boolean {
  return body[0] === openObject || body[0] === openList;
}

/** The first value in a body, and nothing if it holds none. */
export function firstValue(body: Buffer): Buffer | undefined {
  const values = new JsonValues(Infinity);
  return values.push(body, 1)[0] ?? values.rest();
}

/**
 * How many values a body may hold: as many as the shortest ones of them that fit into a message of 4 MiB, which is what gRPC servers
 * take by default. An empty object of two bytes takes a hundred times as much memory here.
 */
export const maxValues = 4 * 1024 * 1024;

/** What can be told of JSON before it is parsed. */
export interface Outline {
  /** How deep its lists and objects nest. */
  depth: number;
  /** How many members its objects have, repeated ones included. */
  members: number;
  /** At least as many as the values in it, and at most twice as many. */
  values: number;
  /** Whether a number has more digits in a row than JSON.parse is sure to keep. */
  hasLongNumber: boolean;
  /** Where the first list or object ends; without one that ends, the length. What is behind it is not counted. */
  end: number;
}

/** Digits that every double can hold. */
const safeDigits = 15;

/**
 * Goes over JSON once, however long its texts are and however deep it nests, up to the end of its first value. Of what is no JSON it says
 * something, too.
 */
export function outlineOf(json: Buffer): Outline {
  let { length } = json;
  let [depth, deepest, members, values, digits] = [0, 0, 0, 1, 0];
  let hasLongNumber = false;
  for (let at = 0; at < length; at++) {
    const byte = json[at] as number;
    if (byte >= 0x30 && byte <= 0x39) {
      digits += 1;
      if (digits > safeDigits) hasLongNumber = true;
      continue;
    }
    digits = 0;
    switch (byte) {
      case quote:
        for (at += 1; at < length && json[at] !== quote; at++) if (json[at] === backslash) at += 1;
        break;
      case openList:
      case openObject:
        values += 1;
        depth += 1;
        if (depth > deepest) deepest = depth;
        break;
      case closeList:
      case closeObject:
        depth -= 1;
        if (depth === 0) length = at + 1;
        break;
      case comma:
        values += 1;
        break;
      case colon:
        members += 1;
        break;
    }
  }
  return { depth: deepest, members, values, hasLongNumber, end: length };
}

/** How many members the objects in a parsed value have, on all levels. */
export function membersIn(value: unknown): number {
  let members = 0;
  const left: unknown[] = typeof value === 'object' && value !== null ? [value] : [];
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const inner: unknown[] = Array.isArray(next) ? next : Object.values(next as object);
    if (!Array.isArray(next)) members += inner.length;
    for (const each of inner) if (typeof each === 'object' && each !== null) left.push(each);
  }
  return members;
}
