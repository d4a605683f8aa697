import { globSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { create, fromBinary, ScalarType, toBinary, type DescField, type DescMessage } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, StructSchema, TimestampSchema } from '@bufbuild/protobuf/wkt';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import test from 'ava';
import fc from 'fast-check';
import { canonical } from './canonical.ts';
import type { MethodDefinition } from './methods.ts';
import { method } from './schema.ts';

const root = path.join(import.meta.dirname, '../..');
const bytes = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex');
const read = (hex: string) => Buffer.from(canonical(FileDescriptorProtoSchema, bytes(hex))).toString('hex');

for (const [what, hex] of [
  ['a text that is not UTF-8', '0a 03 61 ff fe'],
  ['the same in a list', '1a 01 ff'],
  ['the same in a submessage', '22 03 0a 01 c3'],
  ['the end of a group that never began', '0c'],
  ['a tag of field 0', '00 01'],
  ['a tag of field 0 with a length', '02 00'],
  ['a wire type that there is not', '0e'],
  ['a tag that is too long', '8a 80 80 80 80 00 00'],
  ['a number that is too long', '50 ff ff ff ff ff ff ff ff ff ff 01'],
  ['a number that breaks off', '50 80'],
  ['a length that breaks off', '0a'],
  ['a text that breaks off', '0a 05 61'],
  ['a field that is longer than its submessage', '22 02 0a 05 61 61 61 61 61'],
  ['a fixed number that breaks off', 'f9 3f 00 00'],
  ['a group that does not end', 'fb 3f 08 01'],
  ['a group that ends as another', 'fb 3f 08 01 f4 3f'],
  ['packed numbers that break off', '52 01 80'],
] as const) {
  test(`canonical: ${what} is refused`, (t) => {
    t.throws(() => read(hex));
  });
}

test('canonical: submessages are refused beyond a depth of 100', (t) => {
  const nested = (depth: number): Buffer => {
    let inner = Buffer.alloc(0);
    // DescriptorProto.nested_type
    for (let level = 1; level < depth; level += 1) inner = Buffer.from(lengthDelimited(3, inner));
    return Buffer.from(lengthDelimited(4, inner));
  };
  t.notThrows(() => canonical(FileDescriptorProtoSchema, nested(99)));
  t.throws(() => canonical(FileDescriptorProtoSchema, nested(100)));
  t.notThrows(() => fromBinary(FileDescriptorProtoSchema, nested(99)));
});

test('canonical: what every decoder reads alike stays the very same bytes', (t) => {
  // A name, a dependency, an unknown field of each wire type, options.
  const given = bytes('0a 01 61 1a 02 c3 a9 f8 3f 01 fd 3f 00000000 f9 3f 0000000000000000 fa 3f 01 61 42 02 0a 00');
  t.is(canonical(FileDescriptorProtoSchema, given), given);
});

for (const [what, given, expected] of [
  ['a number where a text belongs', '08 01 0a 01 61', '0a 01 61'],
  ['a text where a number belongs', '52 01 01 0a 01 61', '52 01 01 0a 01 61'],
  ['a number where a list of texts belongs', '18 01 1a 01 61', '1a 01 61'],
  ['a fixed number where a submessage belongs', '41 00 00 00 00 00 00 00 00', ''],
  ['a group where a text belongs', '0b 08 01 0c 0a 01 61', '0a 01 61'],
  ['the same in a submessage', '42 05 08 01 0a 01 61', '42 03 0a 01 61'],
] as const) {
  test(`canonical: ${what} is an unknown field`, (t) => {
    t.is(read(given), bytes(expected).toString('hex'));
  });
}

test('canonical: a submessage in two parts is merged, the later value of a field wins, and lists grow', (t) => {
  // FileOptions: java_package a, java_outer_classname b; then java_package c.
  t.is(
    read('42 06 0a 01 61 42 01 62 42 03 0a 01 63'),
    toHex(create(FileDescriptorProtoSchema, { options: { javaPackage: 'c', javaOuterClassname: 'b' } })),
  );
  // Elements of a list are not parts of one: message_type.
  const two = '22 03 0a 01 61 22 03 0a 01 62';
  t.is(read(two), bytes(two).toString('hex'));
});

test('canonical: the value of an entry of a map in two parts is merged, and of a oneof the last member counts', (t) => {
  // Struct.fields["a"]: Value with a list of [null], then one of [null]; then the number 0.
  const list = '32 04 0a 02 08 00';
  const entry = (value: string) => `0a ${length(`0a 01 61 ${value}`)}`;
  const parts = entry(`12 06 ${list} 12 06 ${list}`);
  const merged = fromBinary(StructSchema, canonical(StructSchema, bytes(parts)));
  t.deepEqual(
    merged.fields['a']?.kind.case === 'listValue' ? merged.fields['a'].kind.value.values.length : undefined,
    2,
  );
  const replaced = entry(`12 06 ${list} 12 09 11 0000000000000000`);
  const last = fromBinary(StructSchema, canonical(StructSchema, bytes(replaced)));
  t.is(last.fields['a']?.kind.case, 'numberValue');
});

function length(hex: string): string {
  return `${bytes(hex).length.toString(16).padStart(2, '0')} ${hex}`;
}

function toHex(message: Parameters<typeof toBinary<typeof FileDescriptorProtoSchema>>[1]): string {
  return Buffer.from(toBinary(FileDescriptorProtoSchema, message)).toString('hex');
}

test('canonical: of whatever bytes it takes, both decoders make the same request, for every RPC', async (t) => {
  const rpcs = await requestsOfAll();
  t.true(rpcs.length > 60, String(rpcs.length));
  let taken = 0;
  const tape = fc.uint8Array({ minLength: 1, maxLength: 200 });
  const property = fc.property(fc.nat(), tape, fc.option(fc.tuple(fc.nat(), fc.nat(255))), (which, decisions, flip) => {
    const { description, definition } = rpcs[which % rpcs.length] as (typeof rpcs)[number];
    const encoded = Buffer.from(oddMessage(description.input, new Tape(decisions), 0));
    if (flip !== null && encoded.length > 0) encoded[flip[0] % encoded.length] = flip[1];
    let read;
    try {
      read = canonical(description.input, encoded) as Buffer;
    } catch {
      return;
    }
    taken += 1;
    if (canonical(description.input, read) !== read) throw new Error('not canonical yet');
    const validated = fromBinary(description.input, read);
    // Times that no Date holds are refused before a handler sees them.
    if (hasStrangeTime(description.input, validated)) return;
    const used = definition.requestSerialize(definition.requestDeserialize(read));
    const asUsed = toBinary(description.input, fromBinary(description.input, used));
    const asValidated = toBinary(description.input, validated, { writeUnknownFields: false });
    if (!Buffer.from(asUsed).equals(asValidated)) {
      throw new Error(`${definition.path}: ${Buffer.from(asUsed).toString('hex')} of ${encoded.toString('hex')}`);
    }
  });
  fc.assert(property, { numRuns: 5_000, includeErrorInReport: true });
  t.true(taken > 1_000, String(taken));
});

/** The RPCs of all services. */
async function requestsOfAll() {
  const files = globSync('gen/chat4all/*/v1/*.ts', { cwd: root });
  const modules = await Promise.all(
    files.map(async (file) => (await import(pathToFileURL(path.join(root, file)).href)) as Record<string, unknown>),
  );
  const services = modules.flatMap((module) =>
    Object.entries(module).flatMap(([name, value]) =>
      name.endsWith('ServiceService') ? [value as Record<string, MethodDefinition<unknown, unknown>>] : [],
    ),
  );
  return services
    .flatMap((service) => Object.values(service))
    .map((definition) => ({ definition, description: method(definition.path) }));
}

/** Numbers that decide how a message is made: a failure shrinks to few of them. */
class Tape {
  readonly #decisions: Uint8Array;
  #at = 0;

  constructor(decisions: Uint8Array) {
    this.#decisions = decisions;
  }

  get isOver(): boolean {
    return this.#at >= this.#decisions.length;
  }

  next(most: number): number {
    return (this.#decisions[this.#at++] ?? 0) % most;
  }
}

/** A message as no encoder writes it: fields several times, in parts, with wrong wire types, unknown ones between. */
function oddMessage(message: DescMessage, tape: Tape, depth: number): Uint8Array {
  const writer = new BinaryWriter();
  for (let count = tape.next(6); count > 0 && !tape.isOver; count -= 1) {
    const field = message.fields[tape.next(message.fields.length + 1)];
    const kind = tape.next(12);
    if (field === undefined || kind === 0) oddField(writer, field?.number ?? 1_000, tape);
    else fieldOf(writer, field, tape, depth);
  }
  return writer.finish();
}

function oddField(writer: BinaryWriter, number: number, tape: Tape): void {
  const wire = tape.next(4);
  if (wire === 0) writer.tag(number, WireType.Varint).uint32(tape.next(256));
  else if (wire === 1) writer.tag(number, WireType.Bit64).fixed64(tape.next(256));
  else if (wire === 2) writer.tag(number, WireType.LengthDelimited).bytes(Uint8Array.of(tape.next(256)));
  else writer.tag(number, WireType.StartGroup).tag(1, WireType.Varint).uint32(1).tag(number, WireType.EndGroup);
}

function fieldOf(writer: BinaryWriter, field: DescField, tape: Tape, depth: number): void {
  const { number } = field;
  const delimited = (bytes: Uint8Array) => writer.tag(number, WireType.LengthDelimited).bytes(bytes);
  if (field.fieldKind === 'message' || (field.fieldKind === 'list' && field.listKind === 'message')) {
    delimited(depth > 5 ? new Uint8Array() : oddMessage(field.message as DescMessage, tape, depth + 1));
  } else if (field.fieldKind === 'map') {
    const entry = new BinaryWriter();
    for (let count = tape.next(4); count > 0; count -= 1) {
      if (tape.next(2) === 0) scalarOf(entry, 1, field.mapKey, tape);
      else if (field.mapKind === 'message') {
        entry.tag(2, WireType.LengthDelimited).bytes(oddMessage(field.message, tape, depth + 1));
      } else scalarOf(entry, 2, field.mapKind === 'enum' ? ScalarType.INT32 : field.scalar, tape);
    }
    delimited(entry.finish());
  } else {
    const type =
      (field.fieldKind === 'list' ? field.listKind : field.fieldKind) === 'enum' ? ScalarType.INT32 : field.scalar;
    scalarOf(writer, number, type as ScalarType, tape);
  }
}

function scalarOf(writer: BinaryWriter, number: number, type: ScalarType, tape: Tape): void {
  const value = tape.next(256);
  if (type === ScalarType.STRING) writer.tag(number, WireType.LengthDelimited).string('é'.repeat(value % 3));
  else if (type === ScalarType.BYTES) writer.tag(number, WireType.LengthDelimited).bytes(Uint8Array.of(value));
  else if (type === ScalarType.DOUBLE) writer.tag(number, WireType.Bit64).double(value / 8);
  else if (type === ScalarType.FLOAT) writer.tag(number, WireType.Bit32).float(value / 8);
  else if (type === ScalarType.FIXED64 || type === ScalarType.SFIXED64)
    writer.tag(number, WireType.Bit64).fixed64(value);
  else if (type === ScalarType.FIXED32 || type === ScalarType.SFIXED32)
    writer.tag(number, WireType.Bit32).fixed32(value);
  else writer.tag(number, WireType.Varint).int64(value < 128 ? value : value - 256);
}

/** Whether a Timestamp in a message isn't a time of whole milliseconds that a Date holds. */
function hasStrangeTime(message: DescMessage, value: unknown): boolean {
  if (message.typeName === TimestampSchema.typeName) {
    const { seconds, nanos } = value as { seconds: bigint; nanos: number };
    return nanos % 1_000_000 !== 0 || nanos < 0 || seconds < 0n || seconds > 253_402_300_799n;
  }
  return message.fields.some((field) => {
    const inner = (value as Record<string, unknown>)[field.localName];
    if (field.message === undefined || field.fieldKind === 'map' || field.oneof !== undefined) return false;
    return [inner ?? []].flat().some((each) => hasStrangeTime(field.message!, each));
  });
}

function lengthDelimited(number: number, content: Uint8Array): Uint8Array {
  return new BinaryWriter().tag(number, WireType.LengthDelimited).bytes(content).finish();
}
