import { ScalarType, type Registry } from '@bufbuild/protobuf';
import { Any } from '#gen/google/protobuf/any.ts';
import { writeDraft, zero, type Draft } from './draft.ts';
import { child, root, step, type Place, type Reading } from './reading.ts';
import type { Json, Scalar } from './scalars.ts';
import { Fault, messageType, type EnumNames, type Field, type MessageType, type ValueType } from './schema.ts';
import { isObjectInJson, maxDepth, wellKnownTypes } from './well-known.ts';
import { encode } from '#lib/encode.ts';

/** How a dialect reads JSON: where proto3 JSON leaves a choice, and where the dialect is more lenient or stricter. */
export interface JsonReader {
  scalar(type: Extract<ValueType, { kind: 'scalar' }>, json: Json): Scalar | Fault;
  /** @returns `ignored` for a value that counts as not sent */
  enumValue(names: EnumNames, json: Json): number | Fault | typeof ignored;
  /** @returns the bytes of a message with a JSON form of its own */
  wellKnown(type: Extract<ValueType, { kind: 'message' }>, json: Json): Uint8Array | Fault | undefined;
  mapKey(scalar: ScalarType, text: string): Scalar | Fault;
  /** Whether JSON that is not a list counts as a list with that one item. */
  takesSingleItem: boolean;
  /** Whether a map may have a key in two spellings (`1` and `1.0`), of which the last counts. */
  takesRepeatedKey: boolean;
  /** Whether a google.protobuf.Any that has members but no `@type` counts as empty. */
  takesUntypedAny: boolean;
  /** Whether a backend may report wrong fields, which then have to be named as the client spelled them. */
  keepsSpellings: boolean;
}

/** Stands for a value that is left out as if it hadn't been sent. */
export const ignored = Symbol('ignored');

/** Translates JSON into messages. Unknown fields are ignored, unless the reading knows all; null is an unset field, every wrong field is noted. */
export class RequestJson {
  readonly #registry: Registry;
  readonly #reader: JsonReader;

  /** @param registry knows the types that a google.protobuf.Any may hold */
  constructor(registry: Registry, reader: JsonReader) {
    this.#registry = registry;
    this.#reader = reader;
  }

  /**
   * Reads a whole message: an object into `draft`, and what has a form of its own in JSON (a wrapper, a Timestamp, …).
   *
   * @returns the bytes of a message of the second kind
   */
  whole(type: MessageType, json: Json, draft: Draft, reading: Reading): Uint8Array | undefined {
    if (!isObjectInJson(type))
      return this.#value({ kind: 'message', message: type }, json, reading, root, 0) as Uint8Array;
    this.message(type, json, draft, reading, root);
    return undefined;
  }

  /** Reads an object into `draft`. */
  message(type: MessageType, json: Json, draft: Draft, reading: Reading, place: Place, depth = 0): void {
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      reading.fail(place, 'must be an object');
      return;
    }
    if (depth >= maxDepth) {
      reading.fail(place, 'must not be nested so deeply', 'depth');
      return;
    }
    const given = new Set<Field>();
    for (const key of Object.keys(json)) {
      const field = type.byName.get(key);
      if (field === undefined) {
        if (reading.knowsAll) reading.failUnknown(place, key);
        continue;
      }
      const value = (json as Record<string, Json>)[key];
      if (given.has(field)) {
        reading.fail(child(place, field.name, key), 'must be given once, not in two spellings', 'once');
        continue;
      }
      given.add(field);
      if (value === null && !hasNull(field)) continue;
      const rival = field.siblings?.find((sibling) => draft.has(sibling));
      if (rival !== undefined) {
        reading.fail(child(place, field.name, key), `must not be given together with ${rival.name}`, 'conflict');
        continue;
      }
      this.field(field, value, draft, reading, place, key, depth);
    }
  }

  /** Reads the value of one field, which the client called `key`, into `draft`. */
  field(field: Field, json: Json, draft: Draft, reading: Reading, parent: Place, key: string, depth = 0): void {
    const place = child(parent, field.name, key);
    if (key !== field.name && this.#reader.keepsSpellings) reading.spell(place);
    if (field.shape === 'single') {
      const value = this.#value(field.value, json, reading, place, depth);
      if (value !== undefined && value !== ignored) draft.set(field, value);
    } else if (field.shape === 'list') {
      draft.set(field, this.#list(field, json, reading, place, depth));
    } else {
      draft.set(field, this.#map(field, json, reading, place, depth));
    }
  }

  #list(field: Field, json: Json, reading: Reading, place: Place, depth: number): unknown[] {
    const single = !Array.isArray(json);
    if (single && !this.#reader.takesSingleItem) {
      reading.fail(place, 'must be a list');
      return [];
    }
    const items = (single ? [json] : json).map((item, index) => {
      const here = single ? { field: `${place.field}[0]`, sent: place.sent } : step(place, `[${index}]`);
      if (single) reading.spell(here);
      return this.#item(field, item, reading, here, depth);
    });
    return items.includes(ignored) ? items.filter((item) => item !== ignored) : items;
  }

  #map(field: Field, json: Json, reading: Reading, place: Place, depth: number): Map<unknown, unknown> {
    const entries = new Map<unknown, unknown>();
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      reading.fail(place, 'must be an object');
      return entries;
    }
    for (const [text, item] of Object.entries(json)) {
      const key = this.#reader.mapKey(field.key, text);
      const here = step(place, `[${field.key === ScalarType.STRING ? JSON.stringify(text) : text}]`);
      if (key instanceof Fault) reading.fail(here, `must have a key that fits: it ${key.description}`, key.rule);
      else if (!this.#reader.takesRepeatedKey && entries.has(key)) reading.fail(here, 'must be given once', 'once');
      else {
        const value = this.#item(field, item, reading, here, depth);
        if (value !== ignored) entries.set(key, value);
      }
    }
    return entries;
  }

  /** An item of a list or map. A wrong one leaves a zero behind, so that the others keep their places. */
  #item(field: Field, json: Json, reading: Reading, place: Place, depth: number): unknown {
    if (json === null && !hasNull(field)) {
      reading.fail(place, 'must not be null');
      return zero(field.value);
    }
    return this.#value(field.value, json, reading, place, depth) ?? zero(field.value);
  }

  #value(type: ValueType, json: Json, reading: Reading, place: Place, depth: number): unknown {
    if (type.kind === 'message' && isObjectInJson(type.message)) {
      const draft: Draft = new Map();
      this.message(type.message, json, draft, reading, place, depth + 1);
      return draft;
    }
    const value = this.#convert(type, json, reading, place, depth);
    if (!(value instanceof Fault)) return value;
    reading.fail(place, value.description, value.rule);
    return undefined;
  }

  #convert(type: ValueType, json: Json, reading: Reading, place: Place, depth: number): unknown {
    if (type.kind === 'scalar') return this.#reader.scalar(type, json);
    if (type.kind === 'enum') {
      if (json === null && type.names.typeName === nullValue) return 0;
      return this.#reader.enumValue(type.names, json);
    }
    if (type.message.typeName === any) return this.#any(json, reading, place, depth);
    return this.#reader.wellKnown(type, json);
  }

  #any(json: Json, reading: Reading, place: Place, depth: number): Uint8Array | Fault {
    if (typeof json !== 'object' || json === null || Array.isArray(json)) return new Fault('must be an object');
    const { '@type': url, ...content } = json as Record<string, Json>;
    if (url === undefined && (this.#reader.takesUntypedAny || Object.keys(content).length === 0)) {
      return new Uint8Array();
    }
    const desc = typeof url === 'string' ? this.#registry.getMessage(url.slice(url.lastIndexOf('/') + 1)) : undefined;
    if (desc === undefined) return new Fault('must name a known type in @type');
    const type = messageType(desc);
    const value = this.#value(
      { kind: 'message', message: type },
      isObjectInJson(type) ? content : content['value'],
      reading,
      place,
      depth + 1,
    );
    const bytes = value instanceof Map ? writeDraft(value) : (value as Uint8Array | undefined);
    return encode(Any, { typeUrl: url as string, value: Buffer.from(bytes ?? []) });
  }
}

const any = 'google.protobuf.Any';
const nullValue = 'google.protobuf.NullValue';

/** Whether null is a value of a field, rather than the absence of one. */
export function hasNull({ value }: Field): boolean {
  if (value.kind === 'message') return wellKnownTypes.get(value.message.typeName)?.hasNull === true;
  return value.kind === 'enum' && value.names.typeName === nullValue;
}
