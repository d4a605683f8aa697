import type { Binding } from '../../rules/bindings.ts';
import { maxValues } from '../../json/json-values.ts';
import { Problem } from '../../http/problem.ts';
import { type Reading } from '../../json/reading.ts';
import { holderOf, type Draft } from '../../json/draft.ts';
import { Fault, type Field, type MessageType } from '../../json/schema.ts';
import { valueFromText, scalarFromText } from './text.ts';
import { isPlainMessage, maxDepth } from '../../json/well-known.ts';

/**
 * Reads a query string as grpc-gateway does: every field that is neither in the path nor in the body may be in it, what is no
 * field is ignored, and whatever else isn't exactly right is refused.
 */
export function readQuery(binding: Binding, query: string, draft: Draft, reading: Reading): void {
  const seen = new Set<string>();
  for (const [key, values] of parametersOf(query, reading)) {
    const bracket = key.endsWith(']') ? key.lastIndexOf('[') : -1;
    const [base, entry] = bracket === -1 ? [key, undefined] : [key.slice(0, bracket), key.slice(bracket + 1, -1)];
    const fail = (description: string) => reading.fail({ field: base, sent: key }, description);
    const names = base.split('.', maxDepth + 1);
    if (names.length > maxDepth) {
      fail('must not be nested so deeply');
      continue;
    }
    const { fields, rest } = walk(binding.input, names);
    const path = rest.length === 0 ? fields.map(({ name }) => name) : names;
    if (isElsewhere(binding, path)) continue;
    const name = path.join('.') + (entry === undefined ? '' : `[${entry}]`);
    if (seen.has(name)) {
      fail('must be given once, not in two spellings');
      continue;
    }
    seen.add(name);
    if (rest.length > 0) {
      // What a field that is no message can't hold is wrong; what a message doesn't have is ignored.
      const last = fields.at(-1);
      if (last !== undefined && !isMessage(last)) fail(`is no path: ${last.name} is no message`);
      else if (last !== undefined && isPlainMessage(last)) reach(fields, draft);
      continue;
    }
    const fault = set(fields, entry, values, draft);
    if (fault !== undefined) fail(fault);
  }
}

/** Parameters of a form, which counts as query: as many values as JSON may hold. */
const maxParameters = maxValues;

/** The parameters in the order of their first value. @throws Problem 413 if there are too many */
function parametersOf(query: string, reading: Reading): Map<string, string[]> {
  const parameters = new Map<string, string[]>();
  let count = 0;
  for (let from = 0, to: number; from < query.length; from = to + 1) {
    to = query.indexOf('&', from);
    if (to === -1) to = query.length;
    if (to === from) continue;
    count += 1;
    if (count > maxParameters) {
      throw new Problem(413, 'PAYLOAD_TOO_LARGE', `There must not be more than ${maxParameters} parameters`);
    }
    const pair = query.slice(from, to);
    const equals = pair.indexOf('=');
    try {
      if (pair.includes(';')) throw new URIError('a semicolon');
      const [key, value] = (equals === -1 ? [pair, ''] : [pair.slice(0, equals), pair.slice(equals + 1)]).map((text) =>
        decodeURIComponent(text.replaceAll('+', ' ')),
      ) as [string, string];
      const known = parameters.get(key);
      if (known === undefined) parameters.set(key, [value]);
      else known.push(value);
    } catch {
      reading.fail({ field: '', sent: pair }, 'must be percent-encoded UTF-8');
    }
  }
  return parameters;
}

/** The fields on the way down, as far as there are such, and the names that are left. */
function walk(type: MessageType, names: readonly string[]): { fields: Field[]; rest: readonly string[] } {
  const fields: Field[] = [];
  let here: MessageType | undefined = type;
  for (const [index, name] of names.entries()) {
    const field: Field | undefined = here?.byName.get(name);
    if (field === undefined) return { fields, rest: names.slice(index) };
    fields.push(field);
    here = isMessage(field) && field.value.kind === 'message' ? field.value.message : undefined;
  }
  return { fields, rest: [] };
}

function isMessage(field: Field): boolean {
  return field.shape === 'single' && field.value.kind === 'message';
}

/** Whether a field is in the path or the body, lies in one that is, or holds one that is. */
function isElsewhere({ bodyPath, variables }: Binding, path: readonly string[]): boolean {
  const others = [...variables, ...(bodyPath.length > 0 ? [bodyPath] : [])].map((fields) =>
    fields.map(({ name }) => name),
  );
  return others.some((other) => {
    const common = Math.min(other.length, path.length);
    return other.slice(0, common).every((name, index) => name === path[index]);
  });
}

/** Makes the messages on the way down: they are there even if the last name leads nowhere. */
function reach(fields: readonly Field[], draft: Draft): void {
  const holder = holderOf(fields, draft);
  const last = fields.at(-1) as Field;
  if (!holder.has(last)) holder.set(last, new Map());
}

/** Sets a field. @returns what is wrong */
function set(
  fields: readonly Field[],
  entry: string | undefined,
  values: readonly string[],
  draft: Draft,
): string | undefined {
  const field = fields.at(-1) as Field;
  let here: Draft | undefined = draft;
  for (const each of fields) {
    const isTaken = here !== undefined && each.siblings?.some((sibling) => here?.has(sibling));
    if (isTaken === true) return 'must not be given together with another of its oneof';
    const inner = here?.get(each);
    here = inner instanceof Map && each.shape === 'single' ? (inner as Draft) : undefined;
  }
  if (entry !== undefined && field.shape !== 'map') return 'is no map';
  if (field.shape === 'map') {
    if (entry === undefined || values.length !== 1) return 'must be given once for each key, as name[key]=value';
    const key = scalarFromText(field.key, entry);
    const value = valueFromText(field.value, values[0] as string);
    if (key instanceof Fault) return `must have a key that fits: it ${key.description}`;
    if (value instanceof Fault) return value.description;
    const holder = holderOf(fields, draft);
    const entries = (holder.get(field) ?? new Map()) as Map<unknown, unknown>;
    entries.set(key, value);
    holder.set(field, entries);
    return undefined;
  }
  if (field.shape === 'single' && values.length > 1) return 'must be given once';
  const read = values.map((text) => valueFromText(field.value, text));
  const fault = read.find((value) => value instanceof Fault);
  if (fault instanceof Fault) return fault.description;
  const holder = holderOf(fields, draft);
  if (field.shape === 'single') holder.set(field, read[0]);
  else holder.set(field, [...((holder.get(field) ?? []) as unknown[]), ...read]);
  return undefined;
}
