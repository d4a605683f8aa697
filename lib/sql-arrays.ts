/**
 * Arrays as parameters of statements, for pg. By itself pg quotes every item, and writes bytes as hexadecimal digits, which PostgreSQL has to
 * read again: a tenth of what PostgreSQL does for a message.
 *
 * Arrays of bytes go in PostgreSQL's binary format of arrays, the others as text in which only what needs it is quoted (PostgreSQL, 8.15.6).
 */

/** The values of a statement, with arrays as pg passes them on unchanged. */
export function withArrays(values: readonly unknown[]): unknown[] {
  return values.map((value) => (Array.isArray(value) ? arrayParameter(value) : value));
}

/** @returns the array itself if it holds something else than texts, numbers, times and bytes: pg knows what to do with it */
function arrayParameter(items: readonly unknown[]): unknown {
  if (items.find((item) => item !== null && item !== undefined) instanceof Uint8Array) return ofBytes(items);
  let text = '{';
  for (const item of items) {
    const shown = textOf(item);
    if (shown === undefined) return items;
    text += text.length === 1 ? shown : `,${shown}`;
  }
  return `${text}}`;
}

/** Texts that can't be taken for the syntax of arrays. */
const plain = /^[\w.:@/+-]+$/;

function textOf(item: unknown): string | undefined {
  if (typeof item === 'string') {
    if (plain.test(item) && !/^null$/i.test(item)) return item;
    return `"${item.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
  }
  if (item === null || item === undefined) return 'NULL';
  if (typeof item === 'number' || typeof item === 'bigint' || typeof item === 'boolean') return String(item);
  // For times before 1970 and after the year 9999 pg has forms of its own.
  if (item instanceof Date && item.getTime() >= 0 && item.getUTCFullYear() <= 9999) return item.toISOString();
  return undefined;
}

/** The object identifier of the type bytea. */
const bytea = 17;
const headBytes = 20;

/** The binary format: how many dimensions, whether there are nulls, the type, the length, the first index; then each item behind its length. */
function ofBytes(items: readonly unknown[]): Buffer | readonly unknown[] {
  let size = headBytes;
  let hasNull = false;
  for (const item of items) {
    if (item instanceof Uint8Array) size += 4 + item.length;
    else if (item === null || item === undefined) [hasNull, size] = [true, size + 4];
    else return items;
  }
  const buffer = Buffer.allocUnsafe(size);
  buffer.writeInt32BE(1, 0);
  buffer.writeInt32BE(hasNull ? 1 : 0, 4);
  buffer.writeInt32BE(bytea, 8);
  buffer.writeInt32BE(items.length, 12);
  buffer.writeInt32BE(1, 16);
  let at = headBytes;
  for (const item of items as readonly (Uint8Array | null | undefined)[]) {
    at = buffer.writeInt32BE(item?.length ?? -1, at);
    if (item === null || item === undefined) continue;
    buffer.set(item, at);
    at += item.length;
  }
  return buffer;
}
