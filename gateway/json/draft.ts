import { ScalarType } from '@bufbuild/protobuf';
import { WireType, type BinaryWriter } from '@bufbuild/protobuf/wire';
import { written } from '#lib/encode.ts';
import { scalarWires, zeroScalar } from './scalars.ts';
import type { Field, MessageType, ValueType } from './schema.ts';
import { isObjectInJson } from './well-known.ts';

/**
 * A message on its way to a backend: the fields that are set, whatever they came from (body, query, path). A message of
 * a well-known type is held as its bytes.
 */
export type Draft = Map<Field, unknown>;

/** What stands for a wrong item of a list. */
export function zero(type: ValueType): unknown {
  if (type.kind === 'scalar') return zeroScalar(type.scalar);
  if (type.kind === 'enum') return 0;
  return emptyMessage(type.message);
}

/** A message with nothing in it. */
export function emptyMessage(type: MessageType): unknown {
  return isObjectInJson(type) ? new Map() : new Uint8Array();
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

/** The bytes of a message. */
export function writeDraft(draft: Draft): Uint8Array {
  return written((writer) => writeFields(writer, draft));
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
