import { isUtf8 } from 'node:buffer';
import { fromBinary, ScalarType, toBinary, type DescField, type DescMessage } from '@bufbuild/protobuf';
import { WireType } from '@bufbuild/protobuf/wire';

/**
 * Two decoders read the requests of the mesh: protovalidate's (protobuf-es), and that of the handlers (ts-proto). They agree about what
 * encoders write, and differ about what else the wire format allows: a submessage in several parts, which the one merges and the other
 * replaces, and a field with the wire type of another, which the one takes for an unknown field and the other misreads. So what was
 * validated would not be what is used. Here such bytes are brought into the form about which both agree, and bytes that are no message
 * are refused, those included that one of the two reads over (text that isn't UTF-8, the end of a group that never began).
 */

/** As deep as submessages and groups may nest: what protobuf's own decoders take. */
const deepest = 100;

/** What a decoder has to know of a field. */
interface Shape {
  /** The wire types that it may have, as a set of bits. */
  wires: number;
  /** What it holds where it has a length: `varints` and the bytes of a fixed number where numbers are packed. */
  holds: Shapes | 'text' | 'bytes' | 'varints' | 4 | 8;
  /** Whether several of it are one: a submessage that isn't in a list. */
  merges: boolean;
}

/** What a decoder has to know of a message. */
interface Shapes {
  fields: ReadonlyMap<number, Shape>;
  /**
   * The field that must be there, or that one of them must be: a google.protobuf.Value of no kind is an error by its own definition, and
   * decoders read it as nothing at all or as a value.
   */
  needs: number | 'any' | undefined;
}

/**
 * The same message in bytes that every decoder reads alike: the given ones, if that is so already.
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
  // Before its fields: it may be in itself.
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
      // Numbers may come packed or not, whatever the proto says.
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

/** Goes once over encoded messages. */
class Scan {
  /** Whether a field has the wire type of another. */
  hasMisfits = false;
  /** Whether a submessage comes in several parts. */
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

  /** Reads how long what follows is. */
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

  /** Most texts are: ids and names, for which a view of them would cost more than to look at each byte. */
  #isShortAscii(end: number): boolean {
    if (end - this.#at > 128) return false;
    for (let at = this.#at; at < end; at += 1) if ((this.#bytes[at] as number) > 0x7f) return false;
    return true;
  }

  /** Of a longer one, the lowest 32 bits. */
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

/** The message without the fields that have the wire type of another, at every depth: unknown fields, which nobody reads. */
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
