const [quote, backslash, comma, colon] = [0x22, 0x5c, 0x2c, 0x3a];
const [openList, closeList, openObject, closeObject] = [0x5b, 0x5d, 0x7b, 0x7d];

function isSpace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

/** The values in a body are too long. */
export class ValueTooLong extends Error {}

/**
 * Cuts a stream of JSON values apart, whatever is between them: lines, spaces, or nothing. It only looks for their ends;
 * whether they are JSON is seen when they are parsed.
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

  /** The values that end in the next bytes. @throws ValueTooLong */
  push(chunk: Buffer): Buffer[] {
    const values: Buffer[] = [];
    let from = 0;
    const finish = (to: number) => {
      values.push(Buffer.concat([...this.#pieces, chunk.subarray(from, to)]));
      this.#pieces = [];
      this.#size = 0;
      this.#hasBegun = false;
      from = to;
    };
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] as number;
      if (this.#inText) {
        if (this.#isEscaped) this.#isEscaped = false;
        else if (byte === backslash) this.#isEscaped = true;
        else if (byte === quote) {
          this.#inText = false;
          if (this.#depth === 0) finish(at + 1);
        }
        continue;
      }
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

  /** What is left at the end of the stream: a value that only its end could end, or the beginning of one. */
  rest(): Buffer | undefined {
    return this.#hasBegun ? Buffer.concat(this.#pieces) : undefined;
  }
}

/** The first value in a body, and nothing if it holds none. */
export function firstValue(body: Buffer): Buffer | undefined {
  const values = new JsonValues(Infinity);
  return values.push(body)[0] ?? values.rest();
}

/** Whether a member of an object is there twice: JSON.parse keeps the last one only. */
export function repeatsMember(text: string, value: unknown): boolean {
  const members = membersIn(value);
  // Mostly no string has a colon, so that they are as many; else the strings don't count.
  return colonsIn(text) !== members && colonsIn(text.replace(/"(?:[^"\\]|\\.)*"/gs, '')) !== members;
}

function colonsIn(text: string): number {
  let colons = 0;
  for (let at = text.indexOf(':'); at !== -1; at = text.indexOf(':', at + 1)) colons += 1;
  return colons;
}

function membersIn(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  let members = 0;
  for (const inner of Object.values(value)) members += membersIn(inner);
  return Array.isArray(value) ? members : members + Object.keys(value).length;
}
