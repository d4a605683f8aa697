import { ScalarType } from '@bufbuild/protobuf';
import {
  FLOAT32_MAX,
  INT32_MAX,
  INT32_MIN,
  UINT32_MAX,
  WireType,
  type BinaryReader,
  type BinaryWriter,
} from '@bufbuild/protobuf/wire';
import type { Limits } from './number-limits.ts';
import { Fault, type EnumNames } from './schema.ts';

/** A value of JSON as it is answered. 64-bit numbers that a double can't hold are raw JSON. */
export type Json = unknown;

/** A scalar or enum value on its way into a request: enums as numbers, 64-bit numbers as bigint. */
export type Scalar = number | bigint | boolean | string | Uint8Array;

type Rule =
  | { type: 'integer'; min: number; max: number }
  | { type: 'long'; min: bigint; max: bigint }
  | { type: 'real'; max: number }
  | { type: 'bool' | 'string' | 'bytes' };

const int32: Rule = { type: 'integer', min: INT32_MIN, max: INT32_MAX };
const uint32: Rule = { type: 'integer', min: 0, max: UINT32_MAX };
const int64: Rule = { type: 'long', min: -(2n ** 63n), max: 2n ** 63n - 1n };
const uint64: Rule = { type: 'long', min: 0n, max: 2n ** 64n - 1n };

const rules: Record<ScalarType, Rule> = {
  [ScalarType.INT32]: int32,
  [ScalarType.SINT32]: int32,
  [ScalarType.SFIXED32]: int32,
  [ScalarType.UINT32]: uint32,
  [ScalarType.FIXED32]: uint32,
  [ScalarType.INT64]: int64,
  [ScalarType.SINT64]: int64,
  [ScalarType.SFIXED64]: int64,
  [ScalarType.UINT64]: uint64,
  [ScalarType.FIXED64]: uint64,
  [ScalarType.FLOAT]: { type: 'real', max: FLOAT32_MAX },
  [ScalarType.DOUBLE]: { type: 'real', max: Number.MAX_VALUE },
  [ScalarType.BOOL]: { type: 'bool' },
  [ScalarType.STRING]: { type: 'string' },
  [ScalarType.BYTES]: { type: 'bytes' },
};

/** A scalar from JSON, where a number too long for a double is a bigint. */
export function scalarFromJson(scalar: ScalarType, json: Json): Scalar | Fault {
  const rule = rules[scalar];
  switch (rule.type) {
    case 'string':
      if (typeof json !== 'string') return new Fault('must be a string');
      return json.isWellFormed() ? json : new Fault('must be valid Unicode, without lone surrogates', 'unicode');
    case 'bool':
      return typeof json === 'boolean' ? json : new Fault('must be true or false');
    case 'bytes':
      return typeof json === 'string' ? bytesFromText(json) : new Fault('must be base64 text');
    case 'real':
      return realFrom(json, rule.max);
    case 'integer':
      return integerFrom(json, rule.min, rule.max);
    case 'long':
      return longFrom(json, rule.min, rule.max);
  }
}

/** A scalar from a query parameter or a path. */
export function scalarFromText(scalar: ScalarType, text: string): Scalar | Fault {
  return rules[scalar].type === 'bool' ? boolFromText(text) : scalarFromJson(scalar, text);
}

/**
 * What a field takes that has limits of its own in its proto: what isn't right is told with those, rather than with the limits of the type.
 * And where a number of 32 bits only has to be at least something, JSON's larger numbers count as the largest one that it can be: as
 * far as there is anything behind it (`offset`), that is the same.
 *
 * @param value what the JSON or the text is by the type alone
 */
export function limited<Value>(limits: Limits | undefined, json: Json, value: Value | Fault): Value | number | Fault {
  if (limits === undefined || !(value instanceof Fault) || value.rule !== 'type') return value;
  const { least, most } = limits;
  const given = wholeNumberIn(json);
  if (limits.isOf32 && most === undefined && given !== undefined && given > BigInt(INT32_MAX)) return INT32_MAX;
  if (least === undefined) return new Fault(`must be a whole number of at most ${most}`);
  return new Fault(
    most === undefined
      ? `must be a whole number of at least ${least}`
      : `must be a whole number from ${least} to ${most}`,
  );
}

/** An enum value by short or full name in any case, or by number. */
export function enumFromJson(names: EnumNames, json: Json): number | Fault {
  if (typeof json === 'string') {
    const number = names.byName.get(json.toUpperCase());
    if (number !== undefined) return number;
    if (!/^-?\d+$/.test(json)) return unknownName(names);
  }
  const number = integerFrom(json, INT32_MIN, INT32_MAX);
  return number instanceof Fault ? unknownName(names) : number;
}

/** The most names of an enum that are listed. */
const maxChoices = 20;

function unknownName(names: EnumNames): Fault {
  const more = names.choices.length > maxChoices ? ', …' : '';
  return new Fault(`must be one of ${names.choices.slice(0, maxChoices).join(', ')}${more}`, 'enum');
}

function boolFromText(text: string): boolean | Fault {
  if (/^(true|t|1)$/i.test(text)) return true;
  if (/^(false|f|0)$/i.test(text)) return false;
  return new Fault('must be true or false');
}

const decimal = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

function realFrom(json: Json, max: number): number | Fault {
  if (typeof json === 'string') {
    if (json === 'NaN') return Number.NaN;
    if (json === 'Infinity') return Number.POSITIVE_INFINITY;
    if (json === '-Infinity') return Number.NEGATIVE_INFINITY;
    if (!decimal.test(json)) return new Fault('must be a number');
  } else if (typeof json !== 'number' && typeof json !== 'bigint') {
    return new Fault('must be a number');
  }
  const value = Number(json);
  // JSON.parse makes Infinity of 1e999.
  const nearest = max === FLOAT32_MAX ? Math.fround(value) : value;
  return Math.abs(nearest) <= max ? value : new Fault(`must be a number from ${-max} to ${max}`);
}

function integerFrom(json: Json, min: number, max: number): number | Fault {
  const value = typeof json === 'number' ? json : wholeNumber(json);
  if (value !== undefined && Number.isInteger(value) && value >= min && value <= max) return value;
  return notWithin(value !== undefined && Number.isInteger(value) ? value : undefined, min, max);
}

function wholeNumber(json: Json): number | undefined {
  if (typeof json === 'bigint') return Number(json);
  return typeof json === 'string' && decimal.test(json) ? Number(json) : undefined;
}

function longFrom(json: Json, min: bigint, max: bigint): bigint | Fault {
  const value = wholeNumberIn(json);
  if (value !== undefined && value >= min && value <= max) return value;
  return notWithin(value, min, max);
}

/** Names the limit that a number breaks; the range of the type would not help a client that sent a text. */
function notWithin(value: number | bigint | undefined, min: number | bigint, max: number | bigint): Fault {
  if (value === undefined) return new Fault('must be a whole number');
  if (value > max) return new Fault(`must be at most ${max}`);
  return new Fault(min < 0 ? 'is too small' : `must be at least ${min}`);
}

/** The whole number that JSON or a text is; undefined if it is none. */
export function wholeNumberIn(json: Json): bigint | undefined {
  if (typeof json === 'bigint') return json;
  if (typeof json === 'number') return Number.isInteger(json) ? BigInt(json) : undefined;
  // No 64-bit number needs more digits; a longer text would only cost time.
  if (typeof json !== 'string' || json.length > 40 || !decimal.test(json)) return undefined;
  if (/^-?\d+$/.test(json)) return BigInt(json);
  const value = Number(json);
  return Number.isInteger(value) ? BigInt(value) : undefined;
}

function bytesFromText(text: string): Uint8Array | Fault {
  const bare = text.replace(/={1,2}$/, '');
  if (!/^[A-Za-z0-9+/_-]*$/.test(bare) || bare.length % 4 === 1) return new Fault('must be base64 text', 'format');
  // Buffer takes both alphabets, and does without padding.
  return Buffer.from(bare, 'base64');
}

/** The zero of a scalar, as it is written. */
export function zeroScalar(scalar: ScalarType): Scalar {
  switch (rules[scalar].type) {
    case 'string':
      return '';
    case 'bool':
      return false;
    case 'bytes':
      return new Uint8Array();
    case 'long':
      return 0n;
    default:
      return 0;
  }
}

/** The zero of a scalar, as it is answered. */
export function zeroJson(scalar: ScalarType): Json {
  switch (rules[scalar].type) {
    case 'string':
    case 'bytes':
      return '';
    case 'bool':
      return false;
    default:
      return 0;
  }
}

const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };

function longJson(value: bigint | string): Json {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : rawJSON(String(value));
}

function realJson(value: number): Json {
  return Number.isFinite(value) ? value : String(value);
}

/** The shortest decimal that is read back as the same 32-bit float. */
function floatJson(value: number): Json {
  const isExact = Number.isInteger(value) && Math.abs(value) < 2 ** 24;
  if (!Number.isFinite(value) || isExact) return realJson(value);
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return Number(value.toPrecision(9));
}

/** How a scalar is laid out on the wire, and how it is written and read. */
export interface ScalarWire {
  wire: WireType;
  write(writer: BinaryWriter, value: never): void;
  read(reader: BinaryReader): Json;
}

/** The wire form of each scalar. */
export const scalarWires: Record<ScalarType, ScalarWire> = {
  [ScalarType.DOUBLE]: {
    wire: WireType.Bit64,
    write: (writer, value) => writer.double(value),
    read: (reader) => realJson(reader.double()),
  },
  [ScalarType.FLOAT]: {
    wire: WireType.Bit32,
    write: (writer, value) => writer.float(value),
    read: (reader) => floatJson(reader.float()),
  },
  [ScalarType.INT64]: {
    wire: WireType.Varint,
    write: (writer, value) => writer.int64(value),
    read: (reader) => longJson(reader.int64()),
  },
  [ScalarType.UINT64]: {
    wire: WireType.Varint,
    write: (writer, value) => writer.uint64(value),
    read: (reader) => longJson(reader.uint64()),
  },
  [ScalarType.INT32]: {
    wire: WireType.Varint,
    write: (writer, value) => writer.int32(value),
    read: (reader) => reader.int32(),
  },
  [ScalarType.FIXED64]: {
    wire: WireType.Bit64,
    write: (writer, value) => writer.fixed64(value),
    read: (reader) => longJson(reader.fixed64()),
  },
  [ScalarType.FIXED32]: {
    wire: WireType.Bit32,
    write: (writer, value) => writer.fixed32(value),
    read: (reader) => reader.fixed32(),
  },
  [ScalarType.BOOL]: {
    wire: WireType.Varint,
    write: (writer, value) => writer.bool(value),
    read: (reader) => reader.bool(),
  },
  [ScalarType.STRING]: {
    wire: WireType.LengthDelimited,
    write: (writer, value) => writer.string(value),
    read: (reader) => reader.string(),
  },
  [ScalarType.BYTES]: {
    wire: WireType.LengthDelimited,
    write: (writer, value) => writer.bytes(value),
    read: (reader) => Buffer.from(reader.bytes()).toString('base64'),
  },
  [ScalarType.UINT32]: {
    wire: WireType.Varint,
    write: (writer, value) => writer.uint32(value),
    read: (reader) => reader.uint32(),
  },
  [ScalarType.SFIXED32]: {
    wire: WireType.Bit32,
    write: (writer, value) => writer.sfixed32(value),
    read: (reader) => reader.sfixed32(),
  },
  [ScalarType.SFIXED64]: {
    wire: WireType.Bit64,
    write: (writer, value) => writer.sfixed64(value),
    read: (reader) => longJson(reader.sfixed64()),
  },
  [ScalarType.SINT32]: {
    wire: WireType.Varint,
    write: (writer, value) => writer.sint32(value),
    read: (reader) => reader.sint32(),
  },
  [ScalarType.SINT64]: {
    wire: WireType.Varint,
    write: (writer, value) => writer.sint64(value),
    read: (reader) => longJson(reader.sint64()),
  },
};
