import { ScalarType, type Registry } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { Any } from '#gen/google/protobuf/any.ts';
import { messageType, type Field, type MessageType, type ValueType } from './schema.ts';
import { scalarWires, zeroJson, type Json } from './scalars.ts';
import { wellKnownTypes, wrappedScalars } from './well-known.ts';

type JsonObject = Record<string, Json>;

/** The form of JSON in answers, where proto3 JSON leaves a choice or an API makes one of its own. */
export interface JsonForm {
  /** What names fields have: those of the proto, or those of proto3 JSON. */
  fieldNames: 'name' | 'jsonName';
  enumNames: 'short' | 'proto';
  /** What 64-bit numbers are. */
  longs: 'number' | 'text';
  /** What becomes of a field without a value. */
  unset: 'null' | 'left out';
  /** The same for one that is `optional` in proto3. */
  unsetOptional: 'null' | 'left out';
}

/**
 * Translates messages into JSON. Every field is there: with its zero, an empty list or map, and where it is unset with null; or it
 * isn't there then, and nothing is null but in JSON of any form (google.protobuf.Struct and the like).
 */
export class ResponseJson {
  readonly #registry: Registry;
  readonly #templates = new WeakMap<MessageType, { unset: JsonObject; lists: Field[]; maps: Field[] }>();

  readonly #name: 'name' | 'jsonName';
  readonly #enumNames: 'shown' | 'full';
  readonly #longsAreText: boolean;
  /** Whether an unset `optional` is left out. */
  readonly #leavesOut: boolean;
  /** What a field has that is unset, or an enum that stands for nothing: JSON.stringify leaves out what is undefined. */
  readonly #nothing: null | undefined;

  /** @param registry knows the types that a google.protobuf.Any may hold */
  constructor(registry: Registry, { fieldNames, enumNames, longs, unset, unsetOptional }: JsonForm) {
    this.#registry = registry;
    this.#name = fieldNames;
    this.#enumNames = enumNames === 'proto' ? 'full' : 'shown';
    this.#longsAreText = longs === 'text';
    this.#leavesOut = unsetOptional === 'left out';
    this.#nothing = unset === 'left out' ? undefined : null;
  }

  /** @throws Error if the bytes are no such message */
  message(type: MessageType, bytes: Uint8Array): Json {
    const wellKnown = wellKnownTypes.get(type.typeName);
    if (wellKnown !== undefined) {
      const json = wellKnown.toJson(bytes);
      return this.#longsAreText && isLong(wrappedScalars.get(type.typeName)) ? JSON.stringify(json) : json;
    }
    if (type.typeName === 'google.protobuf.Any') {
      const { typeUrl, value } = Any.decode(bytes);
      return typeUrl === '' ? {} : this.any(typeUrl, value);
    }
    return this.#fields(new BinaryReader(bytes), type, bytes.length, this.#empty(type));
  }

  /** One field of a message. */
  field(type: MessageType, field: Field, bytes: Uint8Array): Json {
    return (this.message(type, bytes) as JsonObject)[field[this.#name]];
  }

  /** What a google.protobuf.Any holds. */
  any(url: string, content: Uint8Array): Json {
    const desc = this.#registry.getMessage(url.slice(url.lastIndexOf('/') + 1));
    // A type that nobody described can still be passed on.
    if (desc === undefined) return { '@type': url, value: Buffer.from(content).toString('base64') };
    const json = this.message(messageType(desc), content);
    const special = wellKnownTypes.has(desc.typeName) || desc.typeName === 'google.protobuf.Any';
    return special ? { '@type': url, value: json } : { '@type': url, ...(json as JsonObject) };
  }

  /** An object with every field of the type unset. */
  #empty(type: MessageType): JsonObject {
    let template = this.#templates.get(type);
    if (template === undefined) {
      const unset: JsonObject = {};
      for (const field of type.fields) {
        const isOut = field.siblings !== undefined || (this.#leavesOut && field.optional);
        // What is undefined isn't printed, but keeps its place among the others.
        if (!isOut) unset[field[this.#name]] = this.#unset(field);
      }
      const shaped = (shape: Field['shape']) => type.fields.filter((field) => field.shape === shape);
      template = { unset, lists: shaped('list'), maps: shaped('map') };
      this.#templates.set(type, template);
    }
    const json = { ...template.unset };
    for (const field of template.lists) json[field[this.#name]] = [];
    for (const field of template.maps) json[field[this.#name]] = Object.create(null);
    return json;
  }

  /** Reads fields into `json` up to `end`, or up to the end of group `group`. */
  #fields(reader: BinaryReader, type: MessageType, end: number, json: JsonObject, group?: number): JsonObject {
    while (reader.pos < end) {
      const [number, wire] = reader.tag();
      if (wire === WireType.EndGroup && number === group) return json;
      const field = type.byNumber.get(number);
      // A field in another form than its type has is as good as an unknown one.
      if (field === undefined || !hasForm(field, wire)) reader.skip(wire, number);
      else if (field.shape === 'single') this.#single(reader, field, json);
      else if (field.shape === 'list') this.#list(reader, field, wire, json[field[this.#name]] as Json[]);
      else this.#entry(reader, field, json[field[this.#name]] as JsonObject);
    }
    return json;
  }

  #single(reader: BinaryReader, field: Field, json: JsonObject): void {
    if (field.siblings !== undefined) for (const sibling of field.siblings) delete json[sibling[this.#name]];
    // A message that comes in two parts is one message.
    const name = field[this.#name];
    const before = field.value.kind === 'message' ? json[name] : undefined;
    json[name] = this.#value(reader, field.value, field.delimited ? field.number : undefined, before);
  }

  #list(reader: BinaryReader, field: Field, wire: WireType, items: Json[]): void {
    const { value: type } = field;
    if (type.kind === 'enum' && this.#nothing === undefined) return this.#enums(reader, field, wire, items);
    const packed = wire === WireType.LengthDelimited && isNumeric(type);
    if (!packed) {
      items.push(this.#value(reader, type, field.delimited ? field.number : undefined));
      return;
    }
    const length = reader.uint32();
    const end = reader.pos + length;
    while (reader.pos < end) items.push(this.#value(reader, type, undefined));
  }

  /** Those of a list that stand for something. */
  #enums(reader: BinaryReader, { value: type }: Field, wire: WireType, items: Json[]): void {
    const end = wire === WireType.LengthDelimited ? reader.uint32() + reader.pos : reader.pos + 1;
    while (reader.pos < end) {
      const value = this.#value(reader, type, undefined);
      if (value !== undefined) items.push(value);
    }
  }

  #entry(reader: BinaryReader, field: Field, entries: JsonObject): void {
    const length = reader.uint32();
    const end = reader.pos + length;
    let key = zeroJson(field.key);
    let value: Json;
    let found = false;
    while (reader.pos < end) {
      const [number, wire] = reader.tag();
      if (number === 1) key = scalarWires[field.key].read(reader);
      else if (number === 2) {
        value = this.#value(reader, field.value, undefined);
        found = true;
      } else reader.skip(wire, number);
    }
    const name = typeof key === 'string' ? key : JSON.stringify(key);
    entries[name] = found ? value : this.#zero(field.value);
  }

  #value(reader: BinaryReader, type: ValueType, group: number | undefined, before?: Json): Json {
    if (type.kind === 'scalar') {
      const value = scalarWires[type.scalar].read(reader);
      return this.#longsAreText && isLong(type.scalar) ? JSON.stringify(value) : value;
    }
    if (type.kind === 'enum') {
      const number = reader.int32();
      const name = type.names[this.#enumNames].get(number);
      if (name !== undefined) return name ?? this.#nothing;
      return type.names.typeName === 'google.protobuf.NullValue' ? this.#nothing : number;
    }
    const { message } = type;
    if (group !== undefined) return this.#fields(reader, message, reader.len, this.#empty(message), group);
    if (wellKnownTypes.has(message.typeName) || message.typeName === 'google.protobuf.Any') {
      return this.message(message, reader.bytes());
    }
    const length = reader.uint32();
    return this.#fields(reader, message, reader.pos + length, (before as JsonObject | null) ?? this.#empty(message));
  }

  #zero(type: ValueType): Json {
    if (type.kind === 'scalar') return this.#longsAreText && isLong(type.scalar) ? '0' : zeroJson(type.scalar);
    if (type.kind === 'enum') return type.names[this.#enumNames].get(0) ?? this.#nothing;
    return this.message(type.message, new Uint8Array());
  }

  #unset(field: Field): Json {
    if (field.shape !== 'single' || !field.implicit || field.value.kind === 'message') return this.#nothing;
    return this.#zero(field.value);
  }
}

function isLong(scalar: ScalarType | undefined): boolean {
  return scalar !== undefined && longs.has(scalar);
}

const longs = new Set([
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.SINT64,
  ScalarType.FIXED64,
  ScalarType.SFIXED64,
]);

/** Whether the values of a field are written so. */
function hasForm({ shape, value, delimited }: Field, wire: WireType): boolean {
  if (delimited) return wire === WireType.StartGroup;
  if (shape === 'map' || value.kind === 'message') return wire === WireType.LengthDelimited;
  const own = value.kind === 'enum' ? WireType.Varint : scalarWires[value.scalar].wire;
  return wire === own || (shape === 'list' && wire === WireType.LengthDelimited);
}

function isNumeric(type: ValueType): boolean {
  if (type.kind === 'message') return false;
  return type.kind === 'enum' || (type.scalar !== ScalarType.STRING && type.scalar !== ScalarType.BYTES);
}
