const maxArgumentBytes = 256 * 1024;
/** The maximum nesting of objects and lists: protobuf's parsers stop at 100 levels. */
export const maxJsonDepth = 64;

/** Reads what a model wrote as the arguments of a tool. Nothing at all is no arguments. */
export function argumentsOf(written: string): { arguments: Record<string, unknown> } | { problem: string } {
  if (Buffer.byteLength(written) > maxArgumentBytes)
    return { problem: `its arguments have more than ${maxArgumentBytes} bytes` };
  if (written.trim() === '') return { arguments: {} };
  let value: unknown;
  try {
    value = JSON.parse(written);
  } catch {
    return { problem: 'its arguments are not valid JSON' };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { problem: 'its arguments are not a JSON object' };
  if (!isShallow(value, maxJsonDepth))
    return { problem: `its arguments are nested more than ${maxJsonDepth} levels deep` };
  return { arguments: storable(value) as Record<string, unknown> };
}

/** Whether a JSON value has no more levels than that. */
export function isShallow(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return true;
  return levels > 0 && Object.values(value).every((member) => isShallow(member, levels - 1));
}

/** A text that PostgreSQL accepts: without NUL, and well-formed. */
export function storableText(text: string): string {
  return text.replaceAll('\0', '\u{FFFD}').toWellFormed();
}

/** JSON whose texts PostgreSQL accepts. */
export function storable(value: unknown): unknown {
  if (typeof value === 'string') return storableText(value);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(storable);
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [storableText(key), storable(member)]));
}
