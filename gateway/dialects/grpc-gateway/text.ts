import { ScalarType } from '@bufbuild/protobuf';
import { Duration } from '#gen/google/protobuf/duration.ts';
import { scalarFromJson, type Scalar } from '../../json/scalars.ts';
import { Fault, type EnumNames, type ValueType } from '../../json/schema.ts';
import { fieldMaskOf, namesInMask, wellKnownTypes, wrapped, wrappedScalars } from '../../json/well-known.ts';
import { encode } from '#lib/encode.ts';

/** Values from paths, queries and JSON to the letter, as grpc-gateway's runtime reads them: by the rules of Go's strconv and time. */

const integer = /^[+-]?\d{1,40}$/;
const real = /^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$/;
const bool = /^(?:(1|t|T|TRUE|true|True)|0|f|F|FALSE|false|False)$/;
const unsigned = new Set([ScalarType.UINT32, ScalarType.FIXED32, ScalarType.UINT64, ScalarType.FIXED64]);

/** A scalar from a query parameter or a path. */
export function scalarFromText(scalar: ScalarType, text: string): Scalar | Fault {
  switch (scalar) {
    case ScalarType.STRING:
      return scalarFromJson(scalar, text);
    case ScalarType.BYTES:
      return bytesFromText(text);
    case ScalarType.BOOL: {
      const match = bool.exec(text);
      return match === null ? new Fault('must be true or false') : match[1] !== undefined;
    }
    case ScalarType.FLOAT:
    case ScalarType.DOUBLE:
      if (/^(NaN|-?Infinity)$/.test(text)) return scalarFromJson(scalar, text);
      return real.test(text) ? scalarFromJson(scalar, Number(text)) : new Fault('must be a number');
    default:
      if (!integer.test(text) || (unsigned.has(scalar) && /^[+-]/.test(text)))
        return new Fault('must be a whole number');
      return scalarFromJson(scalar, BigInt(text.replace('+', '')));
  }
}

/** The key of a map in JSON. */
export function mapKeyFromText(scalar: ScalarType, text: string): Scalar | Fault {
  if (scalar !== ScalarType.BOOL) return scalarFromText(scalar, text);
  return text === 'true' || text === 'false' ? text === 'true' : new Fault('must be true or false');
}

/** Bytes from base64 of either alphabet, padded fully or not at all. */
export function bytesFromText(text: string): Uint8Array | Fault {
  const bare = text.replace(/[\r\n]/g, '');
  const alphabet = /[-_]/.test(text) ? /^[A-Za-z0-9_-]*(={0,2})$/ : /^[A-Za-z0-9+/]*(={0,2})$/;
  const match = alphabet.exec(bare);
  const isPadded = text.length % 4 === 0;
  if (match === null || (isPadded ? bare.length % 4 !== 0 : match[1] !== '' || bare.length % 4 === 1)) {
    return new Fault('must be base64 text');
  }
  return Buffer.from(bare, 'base64');
}

/** An enum value by its name or by the number of one that exists. */
export function enumFromText(names: EnumNames, text: string): number | Fault {
  const number = names.exact.get(text);
  if (number !== undefined) return number;
  const given = integer.test(text) ? Number(text) : Number.NaN;
  return names.full.has(given)
    ? given
    : new Fault(`must be one of ${[...names.exact.keys()].slice(0, 20).join(', ')}`, 'enum');
}

/** A single value from a query parameter or a path. */
export function valueFromText(type: ValueType, text: string): unknown {
  if (type.kind === 'scalar') return scalarFromText(type.scalar, text);
  if (type.kind === 'enum') return enumFromText(type.names, text);
  const { typeName } = type.message;
  const scalar = wrappedScalars.get(typeName);
  if (scalar !== undefined) return wrapped(scalar, scalarFromText(scalar, text));
  switch (typeName) {
    case 'google.protobuf.Timestamp':
      return timestampFromText(text);
    case 'google.protobuf.Duration':
      return goDuration(text);
    case 'google.protobuf.FieldMask': {
      const names = namesInMask(text);
      return names instanceof Fault ? names : fieldMaskOf(names);
    }
    case 'google.protobuf.Value':
    case 'google.protobuf.Struct':
      return wellKnownTypes.get(typeName)?.fromText(text);
    case 'google.protobuf.Empty':
      return text === '' || text === '{}' ? new Uint8Array() : new Fault('must be empty');
    default:
      return new Fault('must be given by its fields, each a parameter of its own');
  }
}

/** A value of a well-known type from JSON, where that is stricter than what the hub takes; undefined for all others. */
export function wellKnownFromJson(typeName: string, json: unknown): Uint8Array | Fault | undefined {
  if (typeof json !== 'string') return undefined;
  switch (typeName) {
    case 'google.protobuf.Timestamp':
      return timestampFromText(json);
    case 'google.protobuf.Duration': {
      const match = /^([+-]?)(0|[1-9]\d*)?(?:\.(\d*))?s$/.exec(json);
      if (match === null || `${match[2] ?? ''}${match[3] ?? ''}` === '')
        return new Fault('must be a number of seconds such as 1.5s');
      const [, sign, whole, digits] = match;
      const text = `${sign === '-' ? '-' : ''}${whole || '0'}${digits ? `.${digits}` : ''}s`;
      return wellKnownTypes.get(typeName)?.fromJson(text);
    }
    case 'google.protobuf.FieldMask': {
      const names = namesInMask(json.trim());
      if (names instanceof Fault) return names;
      if (names.some((name) => !/^[A-Za-z][A-Za-z0-9.]*$/.test(name) || /\.(?![A-Za-z])/.test(name))) {
        return new Fault('must be names of fields with commas between them');
      }
      return fieldMaskOf(names.map((name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)));
    }
    case 'google.protobuf.BytesValue':
      return wrapped(ScalarType.BYTES, bytesFromText(json));
    default:
      return undefined;
  }
}

function timestampFromText(text: string): Uint8Array | Fault | undefined {
  const time = wellKnownTypes.get('google.protobuf.Timestamp');
  return /[a-z]/.test(text) ? new Fault('must be an RFC 3339 time') : time?.fromText(text.replace(',', '.'));
}

/** In nanoseconds. */
const units: Record<string, bigint> = {
  ns: 1n,
  us: 1_000n,
  µs: 1_000n,
  μs: 1_000n,
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
};
const second = 1_000_000_000n;
/** Characters of a length of time: more would only cost time. */
const maxDurationLength = 1_000;

/** A length of time as Go writes it, such as 1h30m or 1.5s. */
function goDuration(text: string): Uint8Array | Fault {
  const fault = new Fault('must be a length of time such as 1.5s or 1h30m');
  if (text.length > maxDurationLength) return fault;
  const match = /^([+-]?)((?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|0)$/.exec(text);
  if (match === null) return fault;
  let nanos = 0n;
  for (const [, whole, fraction = '', unit] of (match[2] as string).matchAll(/(\d*)(?:\.(\d*))?([a-zµμ]+)/g)) {
    const scale = units[unit as string] as bigint;
    const digits = fraction.slice(0, 18);
    nanos += BigInt(whole || '0') * scale + (BigInt(digits || '0') * scale) / 10n ** BigInt(digits.length);
  }
  if (nanos >= 2n ** 63n) return fault;
  if (match[1] === '-') nanos = -nanos;
  return encode(Duration, { seconds: nanos / second, nanos: Number(nanos % second) });
}
