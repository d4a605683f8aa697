import type { IncomingHttpHeaders } from 'node:http2';
import { decodeHuffman } from './huffman.ts';

/** Header compression of HTTP/2 (RFC 7541). */

/** A header block can't be decoded (COMPRESSION_ERROR). Nothing after it on its connection can be decoded, either. */
export class HpackError extends Error {}

/** RFC 7541, appendix A. */
const staticTable =
  `:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204
:status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|accept-language
accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|content-encoding
content-language|content-length|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match
if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate
proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|strict-transport-security|transfer-encoding|user-agent
vary|via|www-authenticate`
    .split(/[|\n]/)
    .map((entry): Entry => {
      const [, name, value = ''] = /^(\S+)(?: (.*))?$/.exec(entry)!;
      return { name: name as string, value, isValid: true };
    });
/** By name, the first of its entries, counted from 1. */
const staticNames = new Map(staticTable.map(({ name }, index) => [name, index + 1] as const).reverse());

interface Entry {
  name: string;
  value: string;
  /** Undefined until it has been checked. */
  isValid: boolean | undefined;
}

/** The default size of the dynamic table, and what each entry counts beside its text (RFC 7541, 4.1). */
export const defaultTableSize = 4_096;
const entryOverhead = 32;
/** Far above any integer that is sent. */
const maxInteger = 2 ** 24;
/** The size of a header list, as HTTP/2 counts it (RFC 9113, 6.5.2): a small block that repeats one entry decodes into a large list. */
export const maxHeaderListBytes = 256 * 1024;

/** Dynamic table size update to 0, at the beginning of a header block. */
export const noTable = 0x20;
/** Connection-specific fields, which HTTP/2 forbids (RFC 9113, 8.2.2). */
const ofConnection = new Set(['connection', 'proxy-connection', 'keep-alive', 'transfer-encoding', 'upgrade']);

/** What HTTP/2 allows in names and values of fields (RFC 9113, 8.2.1), and HTTP/1.1, where they go on (RFC 9110, 5.1 and 5.5). */
const namePattern = /^(:[a-z]+|[a-z0-9!#$%&'*+.^_`|~-]+)$/;
const valuePattern = /^[\t -~\x80-\xff]*$/;

/** Decodes the header blocks of a connection, in their order. */
export class HpackDecoder {
  /** The oldest first. */
  readonly #entries: Entry[] = [];
  #size = 0;
  #limit = defaultTableSize;
  #block: Buffer = Buffer.alloc(0);
  #at = 0;
  /** Whether the block has had a field: size updates are only allowed before the first one (RFC 7541, 4.2). */
  #hasField = false;

  /** Bytes that its table takes, as HPACK counts them. */
  get size(): number {
    return this.#size;
  }

  /**
   * The fields of a header block. Values of one name are joined as Node joins them, but none is dropped.
   *
   * @returns undefined if they break the rules of HTTP, or are too many; the blocks behind them can be decoded all the same
   * @throws HpackError
   */
  decode(block: Buffer): IncomingHttpHeaders | undefined {
    this.#block = block;
    this.#at = 0;
    this.#hasField = false;
    const fields: IncomingHttpHeaders = Object.create(null);
    let size = 0;
    let isWrong = false;
    let isHead = true;
    while (this.#at < block.length) {
      const entry = this.#field();
      if (entry === undefined) continue;
      this.#hasField = true;
      size += sizeOf(entry);
      isWrong ||= size > maxHeaderListBytes || !(entry.isValid ??= isValid(entry));
      // Pseudo-fields come before all others, each once (RFC 9113, 8.3).
      const isPseudo = entry.name.startsWith(':');
      isWrong ||= isPseudo && (!isHead || fields[entry.name] !== undefined);
      isHead = isPseudo;
      if (!isWrong) addField(fields, entry);
    }
    return isWrong ? undefined : fields;
  }

  /** The next field; undefined for a size update of the table. */
  #field(): Entry | undefined {
    const first = this.#block[this.#at] as number;
    if (first >= 0x80) return this.#entry(this.#integer(0x7f));
    if (first < 0x20) return this.#literal(0x0f);
    if (first < 0x40) {
      if (this.#hasField) throw new HpackError('A table size update in the middle of a header block');
      this.#resize(this.#integer(0x1f));
      return undefined;
    }
    const entry = this.#literal(0x3f);
    this.#add(entry);
    return entry;
  }

  #entry(index: number): Entry {
    const entry =
      index <= staticTable.length
        ? staticTable[index - 1]
        : this.#entries[this.#entries.length - (index - staticTable.length)];
    if (entry === undefined) throw new HpackError(`There is no entry ${index}`);
    return entry;
  }

  #literal(prefix: number): Entry {
    const index = this.#integer(prefix);
    const name = index === 0 ? this.#string() : this.#entry(index).name;
    return { name, value: this.#string(), isValid: undefined };
  }

  #add(entry: Entry): void {
    this.#entries.push(entry);
    this.#size += sizeOf(entry);
    this.#evict();
  }

  #resize(limit: number): void {
    if (limit > defaultTableSize) throw new HpackError(`A table of ${limit} bytes is larger than was announced`);
    this.#limit = limit;
    this.#evict();
  }

  #evict(): void {
    while (this.#size > this.#limit) this.#size -= sizeOf(this.#entries.shift() as Entry);
  }

  /** @param prefix the bits of the first byte that belong to it */
  #integer(prefix: number): number {
    let value = this.#byte() & prefix;
    if (value < prefix) return value;
    for (let shift = 0, byte = 0x80; byte >= 0x80; shift += 7) {
      byte = this.#byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (value > maxInteger || shift > 28) throw new HpackError('An integer is too large');
    }
    return value;
  }

  #string(): string {
    const isHuffman = (this.#block[this.#at] as number) >= 0x80;
    const length = this.#integer(0x7f);
    const start = this.#at;
    const stop = start + length;
    if (stop > this.#block.length) throw new HpackError('A string is longer than its header block');
    this.#at = stop;
    if (!isHuffman) return this.#block.toString('latin1', start, stop);
    const text = decodeHuffman(this.#block, start, stop);
    if (text === undefined) throw new HpackError('The Huffman code of a string is malformed');
    return text;
  }

  #byte(): number {
    const byte = this.#block[this.#at++];
    if (byte === undefined) throw new HpackError('A header block ends in the middle of a field');
    return byte;
  }
}

function sizeOf({ name, value }: Entry): number {
  return name.length + value.length + entryOverhead;
}

function isValid({ name, value }: Entry): boolean {
  return namePattern.test(name) && valuePattern.test(value) && !ofConnection.has(name);
}

function addField(fields: IncomingHttpHeaders, { name, value }: Entry): void {
  const before = fields[name];
  if (name === 'set-cookie') fields[name] = [...((before as string[] | undefined) ?? []), value];
  else if (before === undefined) fields[name] = value;
  else fields[name] = `${String(before)}${name === 'cookie' ? '; ' : ', '}${value}`;
}

/** The most bytes that a field takes beside its text: the type of its representation and two lengths. */
const fieldOverhead = 9;

/** The most bytes that a field takes. */
export function maxFieldBytes(name: string, value: string): number {
  return name.length + value.length + fieldOverhead;
}

/**
 * Writes a field that does not enter the dynamic table of the server: so a header block is the same whatever was sent before it.
 *
 * @param name in lower case
 * @param value of ASCII
 * @returns where it ends
 */
export function writeField(buffer: Buffer, at: number, name: string, value: string): number {
  const index = staticNames.get(name);
  let end = at;
  if (index === undefined) {
    buffer[end++] = 0;
    end = writeString(buffer, end, name);
  } else {
    end = writeInteger(buffer, end, 0, 0x0f, index);
  }
  return writeString(buffer, end, value);
}

/** Writes a field that is in the static table as it is. @returns where it ends */
export function writeStatic(buffer: Buffer, at: number, name: string, value: string): number {
  const index = staticTable.findIndex((entry) => entry.name === name && entry.value === value) + 1;
  if (index === 0) return writeField(buffer, at, name, value);
  return writeInteger(buffer, at, 0x80, 0x7f, index);
}

function writeString(buffer: Buffer, at: number, text: string): number {
  const end = writeInteger(buffer, at, 0, 0x7f, text.length);
  return end + buffer.write(text, end, 'latin1');
}

function writeInteger(buffer: Buffer, at: number, pattern: number, prefix: number, value: number): number {
  let end = at;
  if (value < prefix) {
    buffer[end++] = pattern | value;
    return end;
  }
  buffer[end++] = pattern | prefix;
  let rest = value - prefix;
  for (; rest >= 0x80; rest >>>= 7) buffer[end++] = (rest & 0x7f) | 0x80;
  buffer[end++] = rest;
  return end;
}
