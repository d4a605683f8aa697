import { isUtf8 } from 'node:buffer';
import { fromBinary, ScalarType, toBinary, type DescField, type DescMessage } from '@bufbuild/protobuf';
import { WireType } from '@bufbuild/protobuf/wire';

/**
 * Two decoders read each request: that of protovalidate (protobuf-es) and that of the handlers (ts-proto). They agree on what encoders
 * write, but not on everything that the wire format allows: a submessage in several parts is merged by one and replaced by the other; a
 * field with the wrong wire type is unknown to one and misread by the other. So the request that is used could differ from the one that was
 * validated. This module rewrites such bytes into the form on which both agree, and rejects bytes that are no valid message, including
 * those that only one of the two rejects (text that isn't UTF-8, a stray end of a group).
 */

/** The maximum nesting depth of submessages and groups, as in protobuf's own decoders. */
const deepest = 100;

/** What the scan needs to know about a field. */
interface Shape {
  /** The allowed wire types, as a bit set. */
  wires: number;
  /** The content of a length-delimited value: for packed numbers `varints`, or the size of a fixed-size number. */
  holds: Shapes | 'text' | 'bytes' | 'varints' | 4 | 8;
  /** Whether several occurrences are merged: a submessage that isn't repeated. */
  merges: boolean;
}

/** What the scan needs to know about a message. */
interface Shapes {
  fields: ReadonlyMap<number, Shape>;
  /**
   * The field that must be present, or `any` if one must: a google.protobuf.Value without a kind is an error by its definition, but
   * decoders read it in different ways.
   */
  needs: number | 'any' | undefined;
}

/**
 * The same message in bytes that every decoder reads alike; usually the given ones.
 *
 * @throws Error if they are no message of that type
 */
export function canonical(message: DescMessage, encoded: Uint8Array): Uint8Array {
  const scan = new Scan(encoded);
  scan.message(shapesOf(message), encoded.length, 0);
  if (!scan.hasMisfits && !scan.hasParts) return encoded;
  const fitting = scan.hasMisfits ? withoutMisfits(shapesOf(message), encoded) : encoded;
  if (!scan.hasParts) return fitting;
  return toBinary(message, fromBinary(message, fitting, { readUnknownFields: false }));
}

const shapes = new WeakMap<DescMessage, Shapes>();

function shapesOf(message: DescMessage): Shapes {
  const known = shapes.get(message);
  if (known !== undefined) return known;
  const fields = new Map<number, Shape>();
  const made: Shapes = { fields, needs: message.typeName === valueType ? 'any' : undefined };
  // Before its fields, since a message may contain itself.
  shapes.set(message, made);
  for (const field of message.fields) fields.set(field.number, shapeOf(field));
  return made;
}

function shapeOf(field: DescField): Shape {
  switch (field.fieldKind) {
    case 'scalar':
      return scalar(field.scalar);
    case 'enum':
      return scalar(ScalarType.INT32);
    case 'message':
      if (field.delimitedEncoding) throw new Error(`${String(field)} is a group, which no request may have`);
      return submessage(shapesOf(field.message), true);
    case 'map': {
      const value =
        field.mapKind === 'message'
          ? submessage(shapesOf(field.message), true)
          : scalar(field.mapKind === 'enum' ? ScalarType.INT32 : field.scalar);
      const fields = new Map([
        [1, scalar(field.mapKey)],
        [2, value],
      ]);
      return submessage({ fields, needs: field.message?.typeName === valueType ? 2 : undefined }, false);
    }
    case 'list': {
      if (field.listKind === 'message') return submessage(shapesOf(field.message), false);
      const item = scalar(field.listKind === 'enum' ? ScalarType.INT32 : field.scalar);
      // Decoders accept repeated numbers packed and unpacked, whatever the proto says.
      return { ...item, wires: item.wires | bit(WireType.LengthDelimited) };
    }
  }
}

const valueType = 'google.protobuf.Value';

const bit = (wire: WireType) => 1 << wire;

function submessage(holds: Shapes, merges: boolean): Shape {
  return { wires: bit(WireType.LengthDelimited), holds, merges };
}

function scalar(type: ScalarType): Shape {
  switch (type) {
    case ScalarType.STRING:
      return { wires: bit(WireType.LengthDelimited), holds: 'text', merges: false };
    case ScalarType.BYTES:
      return { wires: bit(WireType.LengthDelimited), holds: 'bytes', merges: false };
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
    case ScalarType.DOUBLE:
      return { wires: bit(WireType.Bit64), holds: 8, merges: false };
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
    case ScalarType.FLOAT:
      return { wires: bit(WireType.Bit32), holds: 4, merges: false };
    default:
      return { wires: bit(WireType.Varint), holds: 'varints', merges: false };
  }
}

/** Scans encoded messages once. */
class Scan {
  /** Whether some field has a wrong wire type. */
  hasMisfits = false;
  /** Whether some submessage comes in several parts. */
  hasParts = false;
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  message({ fields, needs }: Shapes, end: number, depth: number): void {
    if (depth >= deepest) throw new Error('The message is nested too deeply');
    let seen: Set<Shape> | undefined;
    let isComplete = needs === undefined;
    while (this.#at < end) {
      const tag = this.tag(end);
      const [number, wire] = [tag >>> 3, tag & 7];
      const field = fields.get(number);
      const fits = field !== undefined && (field.wires & bit(wire)) !== 0;
      if (field !== undefined && !fits) this.hasMisfits = true;
      if (fits && (needs === 'any' || needs === number)) isComplete = true;
      if (!fits || wire !== WireType.LengthDelimited) {
        this.skip(wire, number, end, depth);
        continue;
      }
      const length = this.length(end);
      if (field.merges) {
        if (seen?.has(field)) this.hasParts = true;
        (seen ??= new Set()).add(field);
      }
      this.#content(field.holds, this.#at + length, depth + 1);
    }
    if (!isComplete) throw new Error('A Value is of no kind');
  }

  #content(holds: Shape['holds'], end: number, depth: number): void {
    switch (holds) {
      case 'text':
        if (!this.#isShortAscii(end) && !isUtf8(this.#bytes.subarray(this.#at, end))) {
          throw new Error('A text is not UTF-8');
        }
        break;
      case 'varints':
        while (this.#at < end) this.#varint(end);
        return;
      case 'bytes':
        break;
      case 4:
      case 8:
        if ((end - this.#at) % holds !== 0) throw new Error('Packed numbers have an odd length');
        break;
      default:
        return this.message(holds, end, depth);
    }
    this.#at = end;
  }

  get at(): number {
    return this.#at;
  }

  tag(end: number): number {
    const start = this.#at;
    const tag = this.#varint(end);
    const isLong = this.#at - start > 5 || (this.#at - start === 5 && (this.#bytes[this.#at - 1] as number) > 0x0f);
    if (isLong || tag >>> 3 === 0 || (tag & 7) > 5) throw new Error('A tag is none');
    return tag;
  }

  /** Reads the length prefix of a value. */
  length(end: number): number {
    const start = this.#at;
    const length = this.#varint(end);
    if (this.#at - start > 5 || length > end - this.#at) throw new Error('A field is longer than its message');
    return length;
  }

  skip(wire: WireType, number: number, end: number, depth: number): void {
    switch (wire) {
      case WireType.Varint:
        this.#varint(end);
        return;
      case WireType.Bit64:
        return this.#pass(8, end);
      case WireType.Bit32:
        return this.#pass(4, end);
      case WireType.LengthDelimited:
        return this.#pass(this.length(end), end);
      case WireType.StartGroup:
        if (depth >= deepest) throw new Error('The message is nested too deeply');
        for (;;) {
          const tag = this.tag(end);
          if ((tag & 7) === WireType.EndGroup) {
            if (tag >>> 3 === number) return;
            throw new Error('A group ends as another');
          }
          this.skip(tag & 7, tag >>> 3, end, depth + 1);
        }
      default:
        throw new Error('A group ends that never began');
    }
  }

  #pass(length: number, end: number): void {
    if (length > end - this.#at) throw new Error('A field is longer than its message');
    this.#at += length;
  }

  /** A fast path for ids and names: to check each byte costs less than to create a view for the UTF-8 decoder. */
  #isShortAscii(end: number): boolean {
    if (end - this.#at > 128) return false;
    for (let at = this.#at; at < end; at += 1) if ((this.#bytes[at] as number) > 0x7f) return false;
    return true;
  }

  /** Longer numbers are cut to their lowest 32 bits. */
  #varint(end: number): number {
    let value = 0;
    for (let read = 0; read < 10; read += 1) {
      if (this.#at >= end) throw new Error('A number breaks off');
      const byte = this.#bytes[this.#at++] as number;
      if (read < 5) value |= (byte & 0x7f) << (7 * read);
      if (byte < 0x80) return value >>> 0;
    }
    throw new Error('A number is too long');
  }
}

/** The message without fields of a wrong wire type, at every depth: by the wire format they are unknown fields. */
function withoutMisfits(shapes: Shapes, encoded: Uint8Array): Uint8Array {
  const scan = new Scan(encoded);
  const kept: Uint8Array[] = [];
  while (scan.at < encoded.length) {
    const start = scan.at;
    const tag = scan.tag(encoded.length);
    const field = shapes.fields.get(tag >>> 3);
    const afterTag = scan.at;
    scan.skip(tag & 7, tag >>> 3, encoded.length, 0);
    if (field === undefined || (field.wires & bit(tag & 7)) === 0) continue;
    if (typeof field.holds !== 'object') {
      kept.push(encoded.subarray(start, scan.at));
    } else {
      const length = new Scan(encoded.subarray(afterTag, scan.at));
      const size = length.length(scan.at - afterTag);
      const inner = withoutMisfits(field.holds, encoded.subarray(scan.at - size, scan.at));
      kept.push(encoded.subarray(start, afterTag), varint(inner.length), inner);
    }
  }
  return Buffer.concat(kept);
}

/** A number as it is encoded in a message. */
export function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  bytes.push(value);
  return Uint8Array.from(bytes);
}
