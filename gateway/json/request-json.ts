import { ScalarType, type Registry } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { child, nameless, root, step, type Place, type Reading } from './reading.ts';
import { Fault, messageType, type Field, type MessageType, type ValueType } from './schema.ts';
import {
  enumFromJson,
  limited,
  scalarFromJson,
  scalarFromText,
  scalarWires,
  zeroJson,
  zeroScalar,
  type Json,
} from './scalars.ts';
import { strictBytes, strictKey, strictWellKnown } from '../dialects/grpc-gateway/text.ts';
import { maxDepth, wellKnownTypes } from './well-known.ts';

/**
 * A message on its way to a backend: the fields that are set, whatever they came from (body, query, path). A message of
 * a well-known type is held as its bytes.
 */
export type Draft = Map<Field, unknown>;

/** Translates JSON into messages. Unknown fields are ignored, unless the reading knows all; null is an unset field, every wrong field is noted. */
export class RequestJson {
  readonly #registry: Registry;
  readonly #strict: boolean;

  /**
   * @param registry knows the types that a google.protobuf.Any may hold
   * @param strict whether to read as grpc-gateway does, without the leniency of the hub's API
   */
  constructor(registry: Registry, strict: boolean) {
    this.#registry = registry;
    this.#strict = strict;
  }

  /**
   * Reads a whole message: an object into `draft`, and what has a form of its own in JSON (a wrapper, a Timestamp, …).
   *
   * @returns the bytes of a message of the second kind
   */
  whole(type: MessageType, json: Json, draft: Draft, reading: Reading): Uint8Array | undefined {
    if (!isOwnForm(type)) return this.#value({ kind: 'message', message: type }, json, reading, root, 0) as Uint8Array;
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
    // To the letter, nobody else speaks of fields.
    if (key !== field.name && !this.#strict) reading.spell(place);
    if (field.shape === 'single') {
      const value = this.#value(field.value, json, reading, place, depth);
      if (value !== undefined && value !== ignored) draft.set(field, value);
    } else if (field.shape === 'list') {
      draft.set(field, this.#list(field, json, reading, place, depth));
    } else {
      draft.set(field, this.#map(field, json, reading, place, depth));
    }
  }

  /** Reads the body that is a field, to the letter: what isn't a message is read more strictly there than within one. */
  strictBody(field: Field, json: Json, draft: Draft, reading: Reading): void {
    const fail = (description: string) => reading.fail({ field: field.name, sent: field.name }, description);
    if (json === null && !hasNull(field)) {
      if (field.shape === 'single' && field.value.kind !== 'scalar') fail('must not be null');
      return;
    }
    const isPlain = (value: Json) => {
      const { value: type } = field;
      if (type.kind === 'message') return value !== null || hasNull(field);
      if (value === null) return type.kind !== 'enum';
      if (type.kind === 'enum') return typeof value === 'number';
      const isText = type.scalar === ScalarType.STRING || type.scalar === ScalarType.BYTES;
      return isText || type.scalar === ScalarType.BOOL || typeof value !== 'string';
    };
    const values = field.shape === 'single' ? [json] : typeof json === 'object' ? Object.values(json as object) : [];
    if (!values.every(isPlain)) fail('must not be given as text, or as null');
    else this.field(field, field.shape === 'single' ? json : withZeros(field, json), draft, reading, root, nameless);
  }

  #list(field: Field, json: Json, reading: Reading, place: Place, depth: number): unknown[] {
    const single = !Array.isArray(json);
    if (single && this.#strict) {
      reading.fail(place, 'must be a list');
      return [];
    }
    const items = (single ? [json] : json).map((item, index) => {
      const here = single ? { field: `${place.field}[0]`, sent: place.sent } : step(place, `[${index}]`);
      if (single) reading.spell(here);
      return this.#item(field, item, reading, here, depth);
    });
    return this.#strict ? items.filter((item) => item !== ignored) : items;
  }

  #map(field: Field, json: Json, reading: Reading, place: Place, depth: number): Map<unknown, unknown> {
    const entries = new Map<unknown, unknown>();
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      reading.fail(place, 'must be an object');
      return entries;
    }
    for (const [text, item] of Object.entries(json)) {
      const key = this.#strict ? strictKey(field.key, text) : scalarFromText(field.key, text);
      const here = step(place, `[${field.key === ScalarType.STRING ? JSON.stringify(text) : text}]`);
      if (key instanceof Fault) reading.fail(here, `must have a key that fits: it ${key.description}`, key.rule);
      else if (this.#strict && entries.has(key)) reading.fail(here, 'must be given once', 'once');
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
    if (type.kind === 'message' && isOwnForm(type.message)) {
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
    if (type.kind === 'scalar') {
      const isText = type.scalar === ScalarType.BYTES && typeof json === 'string';
      if (this.#strict) return isText ? strictBytes(json) : scalarFromJson(type.scalar, json);
      return limited(type.limits, json, scalarFromJson(type.scalar, json));
    }
    if (type.kind === 'enum') {
      if (json === null && type.names.typeName === nullValue) return 0;
      // An unknown name counts as a field that is unknown.
      if (this.#strict && typeof json === 'string') return type.names.exact.get(json) ?? ignored;
      return enumFromJson(type.names, json);
    }
    if (type.message.typeName === any) return this.#any(json, reading, place, depth);
    const { typeName } = type.message;
    if (this.#strict) return strictWellKnown(typeName, json) ?? wellKnownTypes.get(typeName)?.fromJson(json);
    return limited(type.limits, json, wellKnownTypes.get(typeName)?.fromJson(json));
  }

  #any(json: Json, reading: Reading, place: Place, depth: number): Uint8Array | Fault {
    if (typeof json !== 'object' || json === null || Array.isArray(json)) return new Fault('must be an object');
    const { '@type': url, ...content } = json as Record<string, Json>;
    if (url === undefined && (this.#strict || Object.keys(content).length === 0)) return new Uint8Array();
    const desc = typeof url === 'string' ? this.#registry.getMessage(url.slice(url.lastIndexOf('/') + 1)) : undefined;
    if (desc === undefined) return new Fault('must name a known type in @type');
    const type = messageType(desc);
    const value = this.#value(
      { kind: 'message', message: type },
      isOwnForm(type) ? content : content['value'],
      reading,
      place,
      depth + 1,
    );
    const bytes = value instanceof Map ? writeDraft(value) : (value as Uint8Array | undefined);
    const writer = new BinaryWriter().tag(1, WireType.LengthDelimited).string(url as string);
    if (bytes !== undefined) writer.tag(2, WireType.LengthDelimited).bytes(bytes);
    return writer.finish();
  }
}

/** Stands for a value that is left out as if it hadn't been sent. */
const ignored = Symbol('ignored');

const any = 'google.protobuf.Any';
const nullValue = 'google.protobuf.NullValue';

/** Whether a message is an object with its fields in JSON. */
export function isOwnForm(type: MessageType): boolean {
  return type.typeName !== any && !wellKnownTypes.has(type.typeName);
}

/** A list or map of scalars with zeros where there is null. */
function withZeros({ value: type }: Field, json: Json): Json {
  if (type.kind === 'message' || typeof json !== 'object' || json === null) return json;
  const blank = type.kind === 'enum' ? 0 : zeroJson(type.scalar);
  if (Array.isArray(json)) return json.map((item: Json) => item ?? blank);
  return Object.fromEntries(Object.entries(json).map(([key, item]) => [key, item ?? blank]));
}

function hasNull({ value }: Field): boolean {
  if (value.kind === 'message') return wellKnownTypes.get(value.message.typeName)?.hasNull === true;
  return value.kind === 'enum' && value.names.typeName === nullValue;
}

/** What stands for a wrong item of a list. */
export function zero(type: ValueType): unknown {
  if (type.kind === 'scalar') return zeroScalar(type.scalar);
  if (type.kind === 'enum') return 0;
  return emptyMessage(type.message);
}

/** A message with nothing in it. */
export function emptyMessage(type: MessageType): unknown {
  return isOwnForm(type) ? new Map() : new Uint8Array();
}

/** A single value from a query parameter or a path; undefined if it can't be given as text. */
export function valueFromText(type: ValueType, text: string): unknown {
  if (type.kind === 'scalar') return limited(type.limits, text, scalarFromText(type.scalar, text));
  if (type.kind === 'enum') return enumFromJson(type.names, text);
  return limited(type.limits, text, wellKnownTypes.get(type.message.typeName)?.fromText(text));
}

/** Whether a single value of the type can be given as text. */
export function fitsText(type: ValueType): boolean {
  return type.kind !== 'message' || wellKnownTypes.has(type.message.typeName);
}

/** Whether a field is a single message whose fields have names of their own. */
export function isPlainMessage(field: Field): boolean {
  return field.shape === 'single' && !fitsText(field.value);
}

/** The message that holds the last of `fields`, made where it is missing. */
export function holderOf(fields: readonly Field[], draft: Draft): Draft {
  let here = draft;
  for (const field of fields.slice(0, -1)) {
    let inner = here.get(field) as Draft | undefined;
    if (!(inner instanceof Map)) here.set(field, (inner = new Map()));
    here = inner;
  }
  return here;
}

/** A writer whose buffer has grown as large as messages are: to let a new one grow costs as much as to write a message. */
let grownWriter: BinaryWriter | undefined;
/** The writer of a message with more bytes than this is not kept, nor is its buffer. */
const maxKeptBytes = 64 * 1024;

/** The bytes of a message. */
export function writeDraft(draft: Draft): Uint8Array {
  const writer = grownWriter ?? new BinaryWriter();
  // One that has thrown holds half a message: it is not used again.
  grownWriter = undefined;
  writeFields(writer, draft);
  const bytes = writer.finish();
  if (bytes.length <= maxKeptBytes) grownWriter = writer;
  return bytes;
}

function writeFields(writer: BinaryWriter, draft: Draft): void {
  for (const [field, value] of draft) {
    if (field.shape === 'single') writeValue(writer, field.value, field.number, value, field.delimited);
    else if (field.shape === 'map') writeMap(writer, field, value as Map<unknown, unknown>);
    else writeList(writer, field, value as unknown[]);
  }
}

function writeList(writer: BinaryWriter, field: Field, items: unknown[]): void {
  if (field.packed && items.length > 0 && field.value.kind !== 'message') {
    const { write } = scalarWires[field.value.kind === 'enum' ? ScalarType.INT32 : field.value.scalar];
    writer.tag(field.number, WireType.LengthDelimited).fork();
    for (const item of items) write(writer, item as never);
    writer.join();
  } else {
    for (const item of items) writeValue(writer, field.value, field.number, item, field.delimited);
  }
}

function writeMap(writer: BinaryWriter, field: Field, entries: Map<unknown, unknown>): void {
  for (const [key, item] of entries) {
    writer.tag(field.number, WireType.LengthDelimited).fork();
    writeValue(writer, { kind: 'scalar', scalar: field.key }, 1, key, false);
    writeValue(writer, field.value, 2, item, false);
    writer.join();
  }
}

function writeValue(writer: BinaryWriter, type: ValueType, number: number, value: unknown, delimited: boolean): void {
  if (type.kind !== 'message') {
    const { wire, write } = scalarWires[type.kind === 'enum' ? ScalarType.INT32 : type.scalar];
    write(writer.tag(number, wire), value as never);
  } else if (delimited) {
    writer.tag(number, WireType.StartGroup);
    if (value instanceof Uint8Array) writer.raw(value);
    else writeFields(writer, value as Draft);
    writer.tag(number, WireType.EndGroup);
  } else if (value instanceof Uint8Array) {
    writer.tag(number, WireType.LengthDelimited).bytes(value);
  } else {
    writer.tag(number, WireType.LengthDelimited).fork();
    writeFields(writer, value as Draft);
    writer.join();
  }
}
