import { ScalarType, type DescEnum, type DescField, type DescMessage } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { limitsOf, type Limits } from './number-limits.ts';

/** A value that isn't usable. */
export class Fault {
  readonly description: string;
  readonly rule: string;

  /**
   * @param description a short sentence without a subject: `must be a string`
   * @param rule what isn't met, for programs, as in FieldViolation
   */
  constructor(description: string, rule = 'type') {
    this.description = description;
    this.rule = rule;
  }
}

/** The type of a single value: of a field, of a list's items or of a map's values. */
export type ValueType =
  | { kind: 'scalar'; scalar: ScalarType; limits?: Limits | undefined }
  | { kind: 'enum'; names: EnumNames }
  | { kind: 'message'; message: MessageType; limits?: Limits | undefined };

/** A field of a message, with what a translation from or to JSON needs to know about it. */
export interface Field {
  /** Its name in the proto, and that of proto3 JSON. */
  name: string;
  jsonName: string;
  number: number;
  shape: 'single' | 'list' | 'map';
  value: ValueType;
  /** Type of a map's keys. */
  key: ScalarType;
  /** Whether a list of numbers is written packed. */
  packed: boolean;
  /** Whether a message is written as a group (editions: DELIMITED). */
  delimited: boolean;
  /** Whether an unset value can't be told from its zero. */
  implicit: boolean;
  /** Whether it is `optional` in proto3. */
  optional: boolean;
  /** The other members of its oneof; undefined outside of one. */
  siblings: readonly Field[] | undefined;
}

/** A message type: its fields by every name that JSON may use, and by number. */
export interface MessageType {
  typeName: string;
  fields: readonly Field[];
  byName: ReadonlyMap<string, Field>;
  byNumber: ReadonlyMap<number, Field>;
}

/** The values of an enum: short lower-case names in answers, any spelling in requests. */
export interface EnumNames {
  typeName: string;
  /** What answers show: `private` for CONVERSATION_TYPE_PRIVATE, null for a zero called UNSPECIFIED. */
  shown: ReadonlyMap<number, string | null>;
  /** The names in the proto. */
  full: ReadonlyMap<number, string | null>;
  exact: ReadonlyMap<string, number>;
  /** Number by short and by full name, both in upper case. */
  byName: ReadonlyMap<string, number>;
  /** The short names that a client may choose from. */
  choices: readonly string[];
}

const messageTypes = new WeakMap<DescMessage, MessageType>();
const enums = new WeakMap<DescEnum, EnumNames>();

/** The table of a message type, made once. */
export function messageType(desc: DescMessage): MessageType {
  const known = messageTypes.get(desc);
  if (known !== undefined) return known;
  const fields: Field[] = [];
  const byName = new Map<string, Field>();
  const byNumber = new Map<number, Field>();
  const type: MessageType = { typeName: desc.typeName, fields, byName, byNumber };
  // Registered before its fields are looked at, since a message may contain itself.
  messageTypes.set(desc, type);
  for (const field of desc.fields) fields.push(describeField(field));
  for (const [index, field] of desc.fields.entries()) {
    const own = fields[index] as Field;
    byNumber.set(own.number, own);
    byName.set(field.jsonName, own);
    if (field.oneof !== undefined) {
      own.siblings = field.oneof.fields
        .filter((other) => other !== field)
        .map((other) => fields[desc.fields.indexOf(other)] as Field);
    }
  }
  // Last, so that one field's proto name beats another's JSON name.
  for (const field of fields) byName.set(field.name, field);
  return type;
}

/** The fields on the way down a path of names in either spelling; undefined if there is none such. */
export function fieldsAt(type: MessageType, path: readonly string[]): Field[] | undefined {
  const fields: Field[] = [];
  let here: MessageType | undefined = type;
  for (const name of path) {
    const field: Field | undefined = here?.byName.get(name);
    if (field === undefined) return undefined;
    fields.push(field);
    here = field.shape === 'single' && field.value.kind === 'message' ? field.value.message : undefined;
  }
  return fields;
}

function describeField(field: DescField): Field {
  const common = {
    name: field.name,
    jsonName: field.jsonName,
    number: field.number,
    key: ScalarType.STRING,
    packed: false,
    delimited: false,
    implicit: field.presence === FeatureSet_FieldPresence.IMPLICIT,
    optional: field.proto.proto3Optional,
    siblings: undefined,
  };
  switch (field.fieldKind) {
    case 'list':
      return {
        ...common,
        shape: 'list',
        value: describeValue(field),
        packed: field.packed,
        delimited: field.listKind === 'message' && field.delimitedEncoding,
      };
    case 'map':
      return { ...common, shape: 'map', value: describeValue(field), key: field.mapKey };
    case 'message':
      return { ...common, shape: 'single', value: describeValue(field), delimited: field.delimitedEncoding };
    default:
      return { ...common, shape: 'single', value: describeValue(field) };
  }
}

function describeValue(field: DescField): ValueType {
  const limits = limitsOf(field);
  if (field.message !== undefined) return { kind: 'message', message: messageType(field.message), limits };
  if (field.enum !== undefined) return { kind: 'enum', names: enumNames(field.enum) };
  return { kind: 'scalar', scalar: field.scalar as ScalarType, limits };
}

function enumNames(desc: DescEnum): EnumNames {
  const known = enums.get(desc);
  if (known !== undefined) return known;
  const shown = new Map<number, string | null>();
  const full = new Map<number, string | null>();
  const exact = new Map(desc.values.map((value) => [value.name, value.number]));
  const byName = new Map<string, number>();
  const choices: string[] = [];
  const prefix = desc.sharedPrefix?.length ?? 0;
  for (const value of desc.values) {
    const short = value.name.slice(prefix);
    const unspecified = value.number === 0 && /(^|_)UNSPECIFIED$/.test(value.name);
    if (!shown.has(value.number)) shown.set(value.number, unspecified ? null : short.toLowerCase());
    if (!full.has(value.number)) full.set(value.number, value.name);
    byName.set(short.toUpperCase(), value.number);
    if (!unspecified) choices.push(short.toLowerCase());
  }
  for (const value of desc.values) byName.set(value.name.toUpperCase(), value.number);
  if (desc.typeName === 'google.protobuf.NullValue') for (const names of [shown, full]) names.set(0, null);
  const names = { typeName: desc.typeName, shown, full, exact, byName, choices };
  enums.set(desc, names);
  return names;
}
