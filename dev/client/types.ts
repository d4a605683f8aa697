import { ScalarType, type DescEnum, type DescField, type DescFile, type DescMessage } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { commentsOf } from './comments.ts';
import type { Events, Rpc, Rpcs } from './rpcs.ts';

/*
 * The types that protoc-gen-grpc-gateway-ts v1.1.2 writes, mended. Which types there are, what they are called and where they are
 * imported from is the plugin's; what is wrong with them is put right from the descriptors. Nobody maintains the plugin any more, and
 * these are the defects of its types (those of its functions: services.ts):
 *
 *  1. Its files switch off the type checker, import without file extensions and hold enums: types can't just be stripped.
 *  2. Well-known types are messages to it, imported from files that it doesn't write. In JSON they are strings, numbers, ….
 *  3. Enums have the values of their protos, 64-bit integers are strings, and bytes stay bytes. The hub answers short
 *     lower-case names, numbers, and base64.
 *  4. It doesn't know `optional`: each such field becomes a oneof of its own.
 *  5. Any field may be missing anywhere, though each is there in an answer, if only as null, and some a request can't do without.
 *  6. Comments get lost.
 *  7. Events are messages to it, whose types don't say which data belongs to which type.
 */

/** How well-known types look in JSON. */
const wellKnown: Readonly<Record<string, string>> = {
  'google.protobuf.Any': 'wire.Any',
  'google.protobuf.BoolValue': 'boolean',
  'google.protobuf.BytesValue': 'string',
  'google.protobuf.DoubleValue': 'number',
  'google.protobuf.Duration': 'string',
  'google.protobuf.Empty': 'Record<string, never>',
  'google.protobuf.FieldMask': 'string',
  'google.protobuf.FloatValue': 'number',
  'google.protobuf.Int32Value': 'number',
  'google.protobuf.Int64Value': 'number',
  'google.protobuf.ListValue': 'unknown[]',
  'google.protobuf.NullValue': 'null',
  'google.protobuf.StringValue': 'string',
  'google.protobuf.Struct': 'Record<string, unknown>',
  'google.protobuf.Timestamp': 'string',
  'google.protobuf.UInt32Value': 'number',
  'google.protobuf.UInt64Value': 'number',
  'google.protobuf.Value': 'unknown',
  'google.rpc.Status': 'Record<string, unknown>',
};

const longs: ReadonlySet<ScalarType> = new Set([
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.SINT64,
  ScalarType.FIXED64,
  ScalarType.SFIXED64,
]);

type Type = DescMessage | DescEnum;

/** How a type is used: in a request, in an answer, or in one that comes in an envelope. */
type Use = 'asked' | 'answered' | 'enveloped';

/** What the plugin has made of a file, as far as it is of use. */
export interface Written {
  /** Of each message by its name there: the type of each field by its name. */
  messages: ReadonlyMap<string, ReadonlyMap<string, string>>;
  enums: ReadonlySet<string>;
  /** The files of the API that it imports: the path, without `.pb`, by the name that it has there. */
  imports: ReadonlyMap<string, string>;
}

/** Reads what the plugin has written. */
export function readWritten(text: string): Written {
  // What has no service ends without a newline.
  const all = (pattern: RegExp) => [...`${text}\n`.matchAll(pattern)];
  const fieldsIn = (body: string, oneofs: string) => [
    ...[...body.matchAll(/^ {2}(\w+)\?: (.+)$/gm)].map(([, name, type]) => [name!, type!] as const),
    ...[...oneofs.matchAll(/[{;] (\w+): ([^;]+?)(?=; \w+: | \}>)/g)].map(([, name, type]) => [name!, type!] as const),
  ];
  return {
    messages: new Map(
      all(
        /^(?:export type (?<plain>\w+)|type Base(?<base>\w+)) = \{\n(?<body>[^]*?)^\}\n(?:\nexport type \w+ = Base\w+\n(?<oneofs>(?: {2}& OneOf<.*>\n)+))?/gm,
      ).map(({ groups }) => {
        const { plain, base, body, oneofs } = groups as Record<string, string | undefined>;
        return [(plain ?? base)!, new Map(fieldsIn(body!, oneofs ?? ''))];
      }),
    ),
    enums: new Set(all(/^export enum (\w+) \{/gm).map(([, name]) => name!)),
    imports: new Map(
      all(/^import \* as (\w+) from "(.*)\.pb"$/gm)
        .filter(([, name]) => !/^(?:fm|Google\w+)$/.test(name!))
        .map(([, name, path]) => [name!, path!]),
    ),
  };
}

/** Writes the types of the API as they are in JSON. */
export class Types {
  readonly #rpcs: Rpcs;
  /** Messages that are events. */
  readonly #events = new Map<DescMessage, Events>();
  /** Fields that say how something is asked, which the functions of the client do. */
  readonly #askEvents = new Set<DescField>();
  /** Fields that are a part of the path in some request: without them there is no path. */
  readonly #inPaths = new Set<DescField>();
  readonly #used: Readonly<Record<Use, Set<Type>>> = { asked: new Set(), answered: new Set(), enveloped: new Set() };

  constructor(rpcs: Rpcs) {
    this.#rpcs = rpcs;
    for (const { desc, events, isEnveloped, kind, path } of rpcs.all()) {
      if (kind !== 'bytes') use(desc.input, this.#used.asked);
      // What is uploaded is bytes, but what that is answered is JSON.
      else if (desc.methodKind !== 'client_streaming') continue;
      for (const name of variablesOf(path)) {
        const field = desc.input.fields.find((candidate) => candidate.name === name);
        if (field !== undefined) this.#inPaths.add(field);
      }
      if (events?.askedBy !== undefined) this.#askEvents.add(events.askedBy);
      if (events !== undefined) this.#events.set(desc.output, events);
      const answers = events === undefined ? [desc.output] : events.members.map(({ message }) => message!);
      for (const answer of answers) use(answer, this.#used[isEnveloped ? 'enveloped' : 'answered']);
    }
    for (const type of this.#events.keys()) {
      if (Object.values(this.#used).some((types) => types.has(type))) {
        throw new Error(`${type.typeName} is not only an event`);
      }
    }
  }

  /** The types of a file that are used, in the order of the proto. */
  in(file: DescFile): Type[] {
    const isUsed = (type: Type) =>
      Object.values(this.#used).some((types) => types.has(type)) || (type.kind === 'message' && this.#events.has(type));
    return [...typesIn(file)].filter((type) => !(type.typeName in wellKnown) && isUsed(type));
  }

  /** A type, as TypeScript. @throws Error if the plugin has not written it */
  declaration(type: Type, written: Written): string {
    const name = nameOf(type);
    const isThere = type.kind === 'enum' ? written.enums.has(name) : written.messages.has(name);
    if (!isThere) throw new Error(`The plugin has written no ${type.kind} ${name} for ${type.typeName}`);
    if (type.kind === 'enum') return enumeration(type);
    const events = this.#events.get(type);
    return events === undefined ? this.#message(type, written) : this.#event(type, events, written);
  }

  #event(type: DescMessage, { members, id }: Events, written: Written): string {
    const lines = members.map((field) => `${commentsOf(field, '  ')}  ${field.name}: ${this.of(field, written)};\n`);
    const of = `wire.EventOf<${this.of(id, written)}, {\n${lines.join('')}}>`;
    return `${commentsOf(type)}export type ${nameOf(type)} = ${of};\n`;
  }

  #message(type: DescMessage, written: Written): string {
    const isAsked = this.#used.asked.has(type);
    const used = isAsked ? 'asked' : this.#used.answered.has(type) ? 'answered' : 'enveloped';
    const line = (field: DescField, may: '' | '?') => {
      const isLeftOut = this.#used.enveloped.has(type) && this.#mayBeUnset(field);
      return `${commentsOf(field, '  ')}  ${field.name}${isLeftOut ? '?' : may}: ${this.of(field, written, used)};\n`;
    };
    const block = (lines: string[]) => (lines.length === 0 ? 'Record<string, never>' : `{\n${lines.join('')}}`);
    const plain = type.fields
      .filter((field) => field.oneof === undefined && !this.#askEvents.has(field))
      .map((field) => line(field, isAsked && !this.isNeeded(field) ? '?' : ''));
    const oneofs = type.oneofs.map(({ fields }) => ` & wire.OneOf<${block(fields.map((field) => line(field, '')))}>`);
    return `${commentsOf(type)}export type ${nameOf(type)} = ${block(plain)}${oneofs.join('')};\n`;
  }

  /** Whether a request can't do without the field. */
  isNeeded(field: DescField): boolean {
    return this.#rpcs.isRequired(field) || this.#inPaths.has(field);
  }

  /** The type of a field: what the plugin has written, but for what has a form of its own in JSON. */
  of(field: DescField, written: Written, used: Use = 'answered'): string {
    const plain = written.messages.get(nameOf(field.parent))?.get(field.name);
    if (plain === undefined) throw new Error(`The plugin has not written ${field.parent.typeName}.${field.name}`);
    if (field.fieldKind === 'list') {
      const item = this.value(field, plain.replace(/\[\]$/, ''), used);
      return /^[\w.<>]+$/.test(item) ? `${item}[]` : `(${item})[]`;
    }
    if (field.fieldKind === 'map') {
      return `Record<string, ${this.value(field, plain.replace(/^\{\[key: \w+\]: (.*)\}$/, '$1'), used)}>`;
    }
    const value = this.value(field, plain, used);
    // In an envelope it is left out then.
    return used !== 'enveloped' && this.#mayBeUnset(field) && value !== 'unknown' ? `${value} | null` : value;
  }

  /** The type of what a field, or a whole answer, holds, whose name there is `plain`. */
  value(of: Partial<Pick<DescField, 'message' | 'enum' | 'scalar'>>, plain: string, used: Use): string {
    const { message, scalar } = of;
    const special = wellKnown[(message ?? of.enum)?.typeName ?? ''];
    if (special !== undefined) return special;
    // A request may leave out fields of it; an answer doesn't.
    if (message !== undefined) {
      return used === 'answered' && this.#used.asked.has(message) ? `wire.Answered<${plain}>` : plain;
    }
    if (scalar !== undefined && longs.has(scalar)) return 'number';
    if (scalar === ScalarType.BYTES) return used === 'asked' ? 'string | Uint8Array' : 'string';
    return plain;
  }

  #mayBeUnset(field: DescField): boolean {
    const mayBe = field.presence === FeatureSet_FieldPresence.EXPLICIT && !this.#rpcs.isRequired(field);
    return mayBe && field.oneof === undefined;
  }
}

function enumeration(type: DescEnum): string {
  const name = nameOf(type);
  const prefix = type.sharedPrefix?.length ?? 0;
  // The zero that is called UNSPECIFIED says that nothing is said: one leaves the field out.
  const members = type.values
    .filter((value) => value.number !== 0 || !/(^|_)UNSPECIFIED$/.test(value.name))
    .map((value) => `${commentsOf(value, '  ')}  ${value.name}: '${value.name.slice(prefix).toLowerCase()}',\n`);
  return (
    `${commentsOf(type)}export const ${name} = {\n${members.join('')}} as const;\n` +
    `export type ${name} = (typeof ${name})[keyof typeof ${name}];\n`
  );
}

/** The fields that are parts of a path. */
export function variablesOf(path: string): string[] {
  return [...path.matchAll(/\{([^}=]+)/g)].map(([, field]) => field!);
}

/** The maps among these fields, and in the messages that they are, by their paths. */
export function* mapsIn(
  fields: readonly DescField[],
  prefix = '',
  above: readonly DescMessage[] = [],
): Generator<string> {
  for (const field of fields) {
    const name = prefix + field.name;
    if (field.fieldKind === 'map') yield name;
    if (field.fieldKind !== 'message' || field.message.typeName in wellKnown || above.includes(field.message)) continue;
    yield* mapsIn(field.message.fields, `${name}.`, [...above, field.message]);
  }
}

/** Notes that a message is used, with all that is in it. */
function use(type: DescMessage, used: Set<Type>): void {
  if (used.has(type)) return;
  used.add(type);
  for (const { message, enum: choices } of type.fields) {
    if (message !== undefined && !(message.typeName in wellKnown)) use(message, used);
    if (choices !== undefined) used.add(choices);
  }
}

function* typesIn(parent: DescFile | DescMessage): Generator<Type> {
  yield* parent.kind === 'file' ? parent.enums : parent.nestedEnums;
  for (const message of parent.kind === 'file' ? parent.messages : parent.nestedMessages) {
    yield message;
    yield* typesIn(message);
  }
}

/** What the plugin calls a type: what is in a message has its name in front. */
export function nameOf(type: Type): string {
  return type.parent === undefined ? type.name : nameOf(type.parent) + type.name;
}

/** What an RPC answers, as TypeScript: its message, or one field of that, or what its events end with. */
export function answerOf({ desc, responseBody, isEnveloped, events }: Rpc, types: Types, written: Written): string {
  const used = isEnveloped ? 'enveloped' : 'answered';
  if (events !== undefined) return [...new Set(events.last.map((field) => types.of(field, written)))].join(' | ');
  const answered =
    responseBody === undefined
      ? types.value({ message: desc.output }, typeName(desc.output, desc.parent.file, written), used)
      : types.of(responseBody, written, used);
  const pagination = desc.output.fields.find(({ message }) => message?.typeName === paginationType);
  const isPage = isEnveloped && responseBody !== undefined && pagination !== undefined;
  return isPage ? `wire.Page<${answered}, ${types.of(pagination, written, used)}>` : answered;
}

/** What becomes a member of the list beside it, where answers come in an envelope. */
const paginationType = 'chat4all.paging.v1.Pagination';

/** What a message is called in a file: with the name of the import in front, if it is another's. */
export function typeName(type: DescMessage, file: DescFile, { imports }: Written): string {
  if (type.file === file) return nameOf(type);
  const found = [...imports].find(([, path]) => type.file.name.endsWith(path.replace(/^(?:\.\.?\/)+/, '')));
  // A well-known type has no name: it is put in its place.
  return found === undefined ? nameOf(type) : `${found[0]}.${nameOf(type)}`;
}
