import { isUtf8 } from 'node:buffer';
import { Problem } from '../http/problem.ts';
import { maxValues, outlineOf } from '../json/json-values.ts';
import { isObjectInJson } from '../json/well-known.ts';
import type { Binding } from '../rules/bindings.ts';

/** How deep JSON may nest: as deep as Go's encoding/json lets it. What is made of it has limits of its own. */
const maxDepth = 10_000;

/**
 * Parses the JSON of a body. Whole numbers that a double can't hold are bigints.
 *
 * @param isAll whether the body may hold nothing behind its first list or object; if not, what is there is ignored
 * @returns the value, and how many members its objects have in the text, repeated ones included
 * @throws Problem 400 `MALFORMED_JSON` if it is not JSON, 413 if it holds too many values
 */
export function parseJson(body: Buffer, isAll = true): { value: unknown; members: number } {
  const { depth, members, values, hasLongNumber, end } = outlineOf(body);
  const json = isAll ? body : body.subarray(0, end);
  if (!isUtf8(json)) throw new Problem(400, 'MALFORMED_JSON', 'The body is not valid UTF-8');
  if (depth > maxDepth) throw new Problem(400, 'MALFORMED_JSON', nestedTooDeeply);
  if (values > maxValues) {
    throw new Problem(413, 'PAYLOAD_TOO_LARGE', `The body must not hold more than ${maxValues} values`);
  }
  return { value: parsed(json.toString(), hasLongNumber), members };
}

/** @throws Problem 400 if JSON that stands for a whole message is no object, though the message has no other form */
export function requireObject(json: unknown, { body, input }: Binding): void {
  if (body !== 'all' || !isObjectInJson(input)) return;
  if (typeof json === 'object' && json !== null && !Array.isArray(json)) return;
  throw new Problem(400, 'MALFORMED_JSON', 'The body must be a JSON object');
}

const nestedTooDeeply = 'The body is nested too deeply';

function parsed(text: string, hasLongNumber: boolean): unknown {
  try {
    return hasLongNumber ? JSON.parse(text, keepLongNumbers) : JSON.parse(text);
  } catch (error) {
    // With a reviver JSON.parse is recursive: deep JSON overflows the stack.
    if (error instanceof RangeError) throw new Problem(400, 'MALFORMED_JSON', nestedTooDeeply);
    throw new Problem(400, 'MALFORMED_JSON', `The body is not valid JSON${place(error)}`);
  }
}

function keepLongNumbers(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== 'number' || Number.isSafeInteger(value)) return value;
  const { source = '' } = context ?? {};
  // No field holds a longer one.
  return /^-?\d{1,40}$/.test(source) ? BigInt(source) : value;
}

/** Where the JSON breaks off; never a part of it, since it may hold a password. */
function place(error: unknown): string {
  const [, at] = /at position (\d+)/.exec(String(error)) ?? [];
  return at === undefined ? '' : ` at position ${at}`;
}
