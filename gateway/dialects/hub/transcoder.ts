import type { Registry } from '@bufbuild/protobuf';
import { acceptsEvents } from '../../http/media-type.ts';
import type { Draft } from '../../json/draft.ts';
import { nameless, root, type Place, type Reading } from '../../json/reading.ts';
import type { JsonForm } from '../../json/response-json.ts';
import { Fault, type Field } from '../../json/schema.ts';
import { isPlainMessage, maxDepth } from '../../json/well-known.ts';
import type { Binding } from '../../rules/bindings.ts';
import { bindVariable, joined, Transcoder, type RequestParts } from '../transcoder.ts';
import { hubJsonReader } from './json.ts';
import { QueryReader } from './query.ts';
import { valueFromText } from './text.ts';

/** Transcodes as the hub's API has it. */
export class HubTranscoder extends Transcoder {
  constructor(registry: Registry, form: JsonForm) {
    super(registry, hubJsonReader, form);
  }

  override request(
    binding: Binding,
    { values, query, json, headers = {} }: RequestParts,
    reading: Reading,
  ): Uint8Array {
    const draft: Draft = new Map();
    const { body } = binding;
    let whole: Uint8Array | undefined;
    if (json !== undefined && body !== 'none') {
      if (body === 'all') whole = this.requests.whole(binding.input, json.value, draft, reading);
      else if (json.value !== null) this.requests.field(body, json.value, draft, reading, root, nameless);
    }
    if (query !== '' && body !== 'all') new QueryReader(binding, draft, reading).read(query);
    if (json !== undefined) fillMask(binding, json.value, draft);
    for (const { header, field } of binding.requestHeaders) {
      const text = headers[header];
      const isGiven = binding.rawBody === undefined && draft.has(field);
      if (text !== undefined && !isGiven) {
        setField(field, String(text), { field: field.name, sent: header }, draft, reading);
      }
    }
    for (const [index, fields] of binding.variables.entries()) {
      const value = valueFromText((fields.at(-1) as Field).value, values[index] as string);
      bindVariable(fields, value, draft, reading);
    }
    const askedBy = binding.events?.askedBy;
    if (askedBy !== undefined) {
      if (acceptsEvents(headers.accept)) draft.set(askedBy, true);
      reading.asksForEvents = draft.get(askedBy) === true;
    }
    if (reading.knowsAll && json !== undefined) failBound(binding, json.value, reading);
    return joined(whole, draft);
  }

  protected override responseBody({ output }: Binding, field: Field, bytes: Uint8Array): string {
    return JSON.stringify(this.responses.field(output, field, bytes) ?? null);
  }
}

/** Sets a field of the message itself from a header. */
function setField(field: Field, text: string, place: Place, draft: Draft, reading: Reading): void {
  reading.spell(place);
  const value = valueFromText(field.value, text);
  if (value instanceof Fault) reading.fail(place, value.description, value.rule);
  else draft.set(field, value);
}

/** Notes which members of the body the path gives already. */
function failBound({ body, variables }: Binding, json: unknown, reading: Reading): void {
  for (const fields of variables) {
    const within = body === 'all' ? fields : fields[0] === body ? fields.slice(1) : [];
    const keys: string[] = [];
    let here = json;
    for (const { name, jsonName } of within) {
      const holder = typeof here === 'object' && here !== null ? (here as Record<string, unknown>) : {};
      const key = [name, jsonName].find((each) => Object.hasOwn(holder, each));
      if (key === undefined) break;
      keys.push(key);
      here = holder[key];
    }
    if (keys.length === 0 || keys.length < within.length) continue;
    const field = fields.map(({ name }) => name).join('.');
    reading.fail({ field, sent: keys.join('.') }, 'is given by the path', 'unknown');
  }
}

function fillMask({ body, updateMask }: Binding, json: unknown, draft: Draft): void {
  if (updateMask === undefined || typeof body !== 'object' || (draft.get(updateMask) as Uint8Array)?.length > 0) return;
  const paths = namesIn(body, json, 0);
  if (paths.length > 0) draft.set(updateMask, valueFromText(updateMask.value, paths.join(',')));
}

/** The paths of all fields that a JSON object names, down to those that are no messages or have nothing in them. */
function namesIn(field: Field, json: unknown, depth: number): string[] {
  if (field.value.kind !== 'message' || depth > maxDepth) return [];
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return [];
  const { byName } = field.value.message;
  return Object.entries(json).flatMap(([key, value]) => {
    const named = byName.get(key);
    if (named === undefined) return [];
    const inner = isPlainMessage(named) ? namesIn(named, value, depth + 1) : [];
    return inner.length === 0 ? [named.name] : inner.map((path) => `${named.name}.${path}`);
  });
}
