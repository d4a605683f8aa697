import {
  fromBinary,
  fromJson,
  ScalarType,
  toBinary,
  toJson,
  type DescMessage,
  type JsonValue,
} from '@bufbuild/protobuf';
import { ListValueSchema, StructSchema, ValueSchema } from '@bufbuild/protobuf/wkt';
import { BinaryReader } from '@bufbuild/protobuf/wire';
// As fast as a loop by hand, and twice as fast as protobuf-es: answers are full of times.
import { Duration } from '#gen/google/protobuf/duration.ts';
import { FieldMask } from '#gen/google/protobuf/field_mask.ts';
import { Timestamp } from '#gen/google/protobuf/timestamp.ts';
import { Fault, type Field, type MessageType, type ValueType } from './schema.ts';
import { scalarFromJson, scalarFromText, scalarWires, zeroJson, type Json, type Scalar } from './scalars.ts';
import { encode, written } from '#lib/encode.ts';

/** The JSON form of a message type for which proto3 JSON has a form of its own. */
export interface WellKnownType {
  /** From JSON to the message's bytes. */
  fromJson(json: Json): Uint8Array | Fault;
  /** From a query parameter or a path to the message's bytes. */
  fromText(text: string): Uint8Array | Fault;
  toJson(bytes: Uint8Array): Json;
  /** Whether null is a value of it rather than the absence of one. */
  hasNull?: boolean;
}

/** How deep JSON may nest. */
export const maxDepth = 100;

/** The scalars in the wrapper messages, by the full names of those. */
export const wrappedScalars: ReadonlyMap<string, ScalarType> = new Map([
  ['google.protobuf.DoubleValue', ScalarType.DOUBLE],
  ['google.protobuf.FloatValue', ScalarType.FLOAT],
  ['google.protobuf.Int64Value', ScalarType.INT64],
  ['google.protobuf.UInt64Value', ScalarType.UINT64],
  ['google.protobuf.Int32Value', ScalarType.INT32],
  ['google.protobuf.UInt32Value', ScalarType.UINT32],
  ['google.protobuf.BoolValue', ScalarType.BOOL],
  ['google.protobuf.StringValue', ScalarType.STRING],
  ['google.protobuf.BytesValue', ScalarType.BYTES],
]);

/** The bytes of the wrapper message of a scalar. */
export function wrapped(scalar: ScalarType, value: Scalar | Fault): Uint8Array | Fault {
  if (value instanceof Fault) return value;
  const { wire, write } = scalarWires[scalar];
  return written((writer) => write(writer.tag(1, wire), value as never));
}

function wrapper(scalar: ScalarType): WellKnownType {
  return {
    fromJson: (json) => wrapped(scalar, scalarFromJson(scalar, json)),
    fromText: (text) => wrapped(scalar, scalarFromText(scalar, text)),
    // One loop for all nine, which gives the JSON of the scalar at once.
    toJson: (bytes) => {
      const reader = new BinaryReader(bytes);
      let value = zeroJson(scalar);
      while (reader.pos < reader.len) {
        const [number, type] = reader.tag();
        if (number === 1) value = scalarWires[scalar].read(reader);
        else reader.skip(type, number);
      }
      return value;
    },
  };
}

/** A fraction of a second with 0, 3, 6 or 9 digits, as many as it needs. */
function fraction(nanos: number): string {
  if (nanos === 0) return '';
  const digits = String(nanos).padStart(9, '0');
  return `.${digits.endsWith('000000') ? digits.slice(0, 3) : digits.endsWith('000') ? digits.slice(0, 6) : digits}`;
}

const rfc3339 = /^(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))$/;

const earliest = Date.parse('0001-01-01T00:00:00Z');
const latest = Date.parse('9999-12-31T23:59:59Z');

function timestampFromText(text: string): Uint8Array | Fault {
  const fault = new Fault('must be an RFC 3339 time', 'format');
  const match = rfc3339.exec(text);
  if (match === null) return fault;
  const [, year, month, day, hour, minute, second, digits = '', sign, zoneHour = '0', zoneMinute = '0'] = match;
  const local = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  // Date.parse takes 24:00:00, and makes 1 March of 30 February.
  if (Number.isNaN(local) || new Date(local).getUTCDate() !== Number(day) || hour === '24') return fault;
  if (Number(zoneHour) > 23 || Number(zoneMinute) > 59) return fault;
  const offset = (Number(zoneHour) * 60 + Number(zoneMinute)) * (sign === '-' ? -60_000 : 60_000);
  const utc = local - offset;
  if (utc < earliest || utc > latest) return fault;
  return encode(Timestamp, { seconds: BigInt(utc / 1000), nanos: Number(digits.padEnd(9, '0')) });
}

const timestamp: WellKnownType = {
  fromJson: (json) => (typeof json === 'string' ? timestampFromText(json) : new Fault('must be an RFC 3339 time')),
  fromText: timestampFromText,
  toJson: (bytes) => {
    const { seconds, nanos } = Timestamp.decode(bytes);
    // Some write the milliseconds before 1970 as less than nothing, which they may not be.
    const whole = Number(seconds) + Math.floor(nanos / 1e9);
    return `${new Date(whole * 1000).toISOString().slice(0, 19)}${fraction(nanos - Math.floor(nanos / 1e9) * 1e9)}Z`;
  },
};

const maxDurationSeconds = 315_576_000_000n;

function durationFromText(text: string): Uint8Array | Fault {
  const match = /^(-?)(\d{1,12})(?:\.(\d{1,9}))?s$/.exec(text);
  const seconds = match === null ? undefined : BigInt(match[2] as string);
  if (match === null || seconds === undefined || seconds > maxDurationSeconds) {
    return new Fault('must be a number of seconds such as 1.5s', 'format');
  }
  const nanos = Number((match[3] ?? '').padEnd(9, '0'));
  const negative = match[1] === '-';
  return encode(Duration, {
    seconds: negative ? -seconds : seconds,
    nanos: negative && nanos !== 0 ? -nanos : nanos,
  });
}

const durationType: WellKnownType = {
  fromJson: (json) =>
    typeof json === 'string' ? durationFromText(json) : new Fault('must be a number of seconds such as 1.5s'),
  fromText: durationFromText,
  toJson: (bytes) => {
    const { seconds, nanos } = Duration.decode(bytes);
    const sign = seconds < 0n || nanos < 0 ? '-' : '';
    return `${sign}${seconds < 0n ? -seconds : seconds}${fraction(Math.abs(nanos))}s`;
  },
};

/** Characters of a field mask: as many as fit into a message of 4 MiB, which is what gRPC servers take by default. */
export const maxMaskLength = 4 * 1024 * 1024;

/** Names of fields with commas between them; what they are isn't looked at. */
export function namesInMask(text: string): string[] | Fault {
  if (text.length > maxMaskLength)
    return new Fault(`must not have more than ${maxMaskLength} characters`, 'max_length');
  return text === '' ? [] : text.split(',');
}

function fieldMaskFromText(text: string): Uint8Array | Fault {
  const names = namesInMask(text);
  if (names instanceof Fault) return names;
  if (names.some((path) => !/^[A-Za-z_][\w.]*$/.test(path))) {
    return new Fault('must be names of fields with commas between them', 'format');
  }
  return fieldMaskOf(names.map((path) => path.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)));
}

/** The bytes of a google.protobuf.FieldMask. */
export function fieldMaskOf(paths: string[]): Uint8Array {
  return encode(FieldMask, { paths });
}

const fieldMask: WellKnownType = {
  fromJson: (json) =>
    typeof json === 'string'
      ? fieldMaskFromText(json)
      : new Fault('must be a string: names of fields with commas between them'),
  fromText: fieldMaskFromText,
  toJson: (bytes) =>
    FieldMask.decode(bytes)
      .paths.map((path) => path.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()))
      .join(','),
};

function dynamic(desc: DescMessage, description: string, hasNull: boolean): WellKnownType {
  const fault = new Fault(description);
  const fromValue = (json: Json) => {
    if (!isOrdinary(json, 0)) return new Fault('must be valid Unicode and not nested too deeply', 'depth');
    try {
      return toBinary(desc, fromJson(desc, json as JsonValue));
    } catch {
      return fault;
    }
  };
  return {
    fromJson: (json) => fromValue(withoutBigints(json)),
    fromText: (text) => {
      try {
        return fromValue(JSON.parse(text));
      } catch {
        return fault;
      }
    },
    toJson: (bytes) => toJson(desc, fromBinary(desc, bytes)),
    hasNull,
  };
}

/** Whether JSON nests no deeper than it may, and has no lone surrogate. */
function isOrdinary(json: Json, depth: number): boolean {
  if (typeof json === 'string') return json.isWellFormed();
  // JSON.parse makes Infinity of 1e999.
  if (typeof json === 'number') return Number.isFinite(json);
  if (typeof json !== 'object' || json === null) return true;
  if (depth >= maxDepth) return false;
  for (const [key, value] of Object.entries(json)) {
    if (!key.isWellFormed() || !isOrdinary(value, depth + 1)) return false;
  }
  return true;
}

/** Long numbers as doubles: a dynamic value knows no other number. */
function withoutBigints(json: Json, depth = 0): Json {
  if (typeof json === 'bigint') return Number(json);
  if (typeof json !== 'object' || json === null || depth > maxDepth) return json;
  if (Array.isArray(json)) return json.map((item) => withoutBigints(item, depth + 1));
  return Object.fromEntries(Object.entries(json).map(([key, value]) => [key, withoutBigints(value, depth + 1)]));
}

/** The well-known types by full name. `google.protobuf.Any` isn't among them: its form depends on what it holds. */
export const wellKnownTypes: ReadonlyMap<string, WellKnownType> = new Map<string, WellKnownType>([
  ['google.protobuf.Timestamp', timestamp],
  ['google.protobuf.Duration', durationType],
  ['google.protobuf.FieldMask', fieldMask],
  ['google.protobuf.Struct', dynamic(StructSchema, 'must be an object', false)],
  ['google.protobuf.ListValue', dynamic(ListValueSchema, 'must be a list', false)],
  ['google.protobuf.Value', dynamic(ValueSchema, 'must be JSON', true)],
  ...[...wrappedScalars].map(([name, scalar]) => [name, wrapper(scalar)] as const),
]);

const any = 'google.protobuf.Any';

/** Whether a message is an object with its fields in JSON. */
export function isObjectInJson(type: MessageType): boolean {
  return type.typeName !== any && !wellKnownTypes.has(type.typeName);
}

/** Whether a single value of the type can be given as text. */
export function fitsText(type: ValueType): boolean {
  return type.kind !== 'message' || wellKnownTypes.has(type.message.typeName);
}

/** Whether a field is a single message whose fields have names of their own. */
export function isPlainMessage(field: Field): boolean {
  return field.shape === 'single' && !fitsText(field.value);
}
