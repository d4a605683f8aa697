import { ScalarType, type DescEnum, type DescField, type DescFile, type DescMessage } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { commentsOf } from './comments.ts';
import type { Events, Rpc, Rpcs } from './rpcs.ts';

/*
 * Corrects the types in the output of protoc-gen-grpc-gateway-ts v1.1.2. The plugin decides which types there are, their names and their
 * imports; what is wrong with them is corrected from the descriptors. The plugin is not maintained any more. The defects of its
 * types (those of its functions are in services.ts):
 *
 *  1. Its files switch off the type checker, import without file extensions and contain enums, so Node can't just strip the types.
 *  2. It treats well-known types as messages, and imports them from files that it doesn't write. In JSON they are strings, numbers, ….
 *  3. Enum values are the names of the proto, 64-bit integers are strings, and bytes stay bytes. The hub has short lower-case
 *     names, numbers, and base64.
 *  4. It doesn't know `optional`: each such field becomes a oneof of its own.
 *  5. Every field is optional everywhere. In responses each field is present, if only as null, and in requests some are required.
 *  6. It drops comments.
 *  7. Events are plain messages, whose types don't say which data belongs to which type of event.
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

/** Where a type is used: in requests, in responses, or in responses that come in an envelope. */
type Use = 'request' | 'response' | 'enveloped';

/** What is used of the plugin's output for a proto file. */
export interface Written {
  /** The types of fields, by the names of message and field in the output. */
  messages: ReadonlyMap<string, ReadonlyMap<string, string>>;
  enums: ReadonlySet<string>;
  /** The paths of imported files of the API, without `.pb`, by the names that they are imported as. */
  imports: ReadonlyMap<string, string>;
}

/** Parses the plugin's output for a proto file. */
export function readWritten(text: string): Written {
  // A file without a service ends without a newline.
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

/** Writes the types of the API as JSON has them. */
export class Types {
  readonly #rpcs: Rpcs;
  /** Messages that are events. */
  readonly #events = new Map<DescMessage, Events>();
  /** Fields of requests that ask for events: the client's methods set them, and their callers can't. */
  readonly #askEvents = new Set<DescField>();
  /** Fields that are part of the path of their RPC, which needs them. */
  readonly #inPaths = new Set<DescField>();
  readonly #used: Readonly<Record<Use, Set<Type>>> = { request: new Set(), response: new Set(), enveloped: new Set() };

  constructor(rpcs: Rpcs) {
    this.#rpcs = rpcs;
    for (const { desc, events, isEnveloped, kind, path } of rpcs.all()) {
      if (kind !== 'bytes') addUsed(desc.input, this.#used.request);
      // The request of an upload is bytes, but its response is JSON.
      else if (desc.methodKind !== 'client_streaming') continue;
      for (const name of variablesOf(path)) {
        const field = desc.input.fields.find((candidate) => candidate.name === name);
        if (field !== undefined) this.#inPaths.add(field);
      }
      if (events?.askedBy !== undefined) this.#askEvents.add(events.askedBy);
      if (events !== undefined) this.#events.set(desc.output, events);
      const answers = events === undefined ? [desc.output] : events.members.map(({ message }) => message!);
      for (const answer of answers) addUsed(answer, this.#used[isEnveloped ? 'enveloped' : 'response']);
    }
    for (const type of this.#events.keys()) {
      if (Object.values(this.#used).some((types) => types.has(type))) {
        throw new Error(`${type.typeName} is an event of one RPC, and used otherwise by another`);
      }
    }
  }

  /** The types of a file that are used, in the order of the proto. */
  in(file: DescFile): Type[] {
    const isUsed = (type: Type) =>
      Object.values(this.#used).some((types) => types.has(type)) || (type.kind === 'message' && this.#events.has(type));
    return [...typesIn(file)].filter((type) => !(type.typeName in wellKnown) && isUsed(type));
  }

  /** The declaration of a type in TypeScript. @throws Error if the plugin's output lacks it */
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
    const isInRequests = this.#used.request.has(type);
    const use = isInRequests ? 'request' : this.#used.response.has(type) ? 'response' : 'enveloped';
    const line = (field: DescField, may: '' | '?') => {
      const isLeftOut = this.#used.enveloped.has(type) && this.#mayBeUnset(field);
      return `${commentsOf(field, '  ')}  ${field.name}${isLeftOut ? '?' : may}: ${this.of(field, written, use)};\n`;
    };
    const block = (lines: string[]) => (lines.length === 0 ? 'Record<string, never>' : `{\n${lines.join('')}}`);
    const plain = type.fields
      .filter((field) => field.oneof === undefined && !this.#askEvents.has(field))
      .map((field) => line(field, isInRequests && !this.isNeeded(field) ? '?' : ''));
    const oneofs = type.oneofs.map(({ fields }) => ` & wire.OneOf<${block(fields.map((field) => line(field, '')))}>`);
    return `${commentsOf(type)}export type ${nameOf(type)} = ${block(plain)}${oneofs.join('')};\n`;
  }

  /** Whether a request without this field is always refused. */
  isNeeded(field: DescField): boolean {
    return this.#rpcs.isRequired(field) || this.#inPaths.has(field);
  }

  /** The type of a field: the plugin's, unless JSON has another form for it. */
  of(field: DescField, written: Written, use: Use = 'response'): string {
    const plain = written.messages.get(nameOf(field.parent))?.get(field.name);
    if (plain === undefined) throw new Error(`The plugin has not written ${field.parent.typeName}.${field.name}`);
    if (field.fieldKind === 'list') {
      const item = this.value(field, plain.replace(/\[\]$/, ''), use);
      return /^[\w.<>]+$/.test(item) ? `${item}[]` : `(${item})[]`;
    }
    if (field.fieldKind === 'map') {
      return `Record<string, ${this.value(field, plain.replace(/^\{\[key: \w+\]: (.*)\}$/, '$1'), use)}>`;
    }
    const value = this.value(field, plain, use);
    // In an envelope an unset field is left out.
    return use !== 'enveloped' && this.#mayBeUnset(field) && value !== 'unknown' ? `${value} | null` : value;
  }

  /** The type of a value: one item of a field, or a whole response. @param plain its type in the plugin's output */
  value(of: Partial<Pick<DescField, 'message' | 'enum' | 'scalar'>>, plain: string, use: Use): string {
    const { message, scalar } = of;
    const special = wellKnown[(message ?? of.enum)?.typeName ?? ''];
    if (special !== undefined) return special;
    // Its fields are optional in requests only.
    if (message !== undefined) {
      return use === 'response' && this.#used.request.has(message) ? `wire.Answered<${plain}>` : plain;
    }
    if (scalar !== undefined && longs.has(scalar)) return 'number';
    if (scalar === ScalarType.BYTES) return use === 'request' ? 'string | Uint8Array' : 'string';
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
  // UNSPECIFIED stands for a field that is not set: leave the field out instead.
  const members = type.values
    .filter((value) => value.number !== 0 || !/(^|_)UNSPECIFIED$/.test(value.name))
    .map((value) => `${commentsOf(value, '  ')}  ${value.name}: '${value.name.slice(prefix).toLowerCase()}',\n`);
  return (
    `${commentsOf(type)}export const ${name} = {\n${members.join('')}} as const;\n` +
    `export type ${name} = (typeof ${name})[keyof typeof ${name}];\n`
  );
}

/** The fields in a path template. */
export function variablesOf(path: string): string[] {
  return [...path.matchAll(/\{([^}=]+)/g)].map(([, field]) => field!);
}

/** The paths of the map fields among these fields and in their messages. */
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

/** Adds a message and all types in it. */
function addUsed(type: DescMessage, used: Set<Type>): void {
  if (used.has(type)) return;
  used.add(type);
  for (const { message, enum: choices } of type.fields) {
    if (message !== undefined && !(message.typeName in wellKnown)) addUsed(message, used);
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

/** The plugin's name of a type: a nested type begins with the name of the message around it. */
export function nameOf(type: Type): string {
  return type.parent === undefined ? type.name : nameOf(type.parent) + type.name;
}

/** The TypeScript type of an RPC's response: its message, one field of it, or the last event. */
export function responseType({ desc, responseBody, isEnveloped, events }: Rpc, types: Types, written: Written): string {
  const use = isEnveloped ? 'enveloped' : 'response';
  if (events !== undefined) return [...new Set(events.last.map((field) => types.of(field, written)))].join(' | ');
  const response =
    responseBody === undefined
      ? types.value({ message: desc.output }, typeName(desc.output, desc.parent.file, written), use)
      : types.of(responseBody, written, use);
  const pagination = desc.output.fields.find(({ message }) => message?.typeName === paginationType);
  const isPage = isEnveloped && responseBody !== undefined && pagination !== undefined;
  return isPage ? `wire.Page<${response}, ${types.of(pagination, written, use)}>` : response;
}

/** In an envelope this is not part of the data: the client makes it a member of the list (`wire.Page`). */
const paginationType = 'chat4all.paging.v1.Pagination';

/** The name of a message in a file, with the import's name in front if it is declared in another file. */
export function typeName(type: DescMessage, file: DescFile, { imports }: Written): string {
  if (type.file === file) return nameOf(type);
  const found = [...imports].find(([, path]) => type.file.name.endsWith(path.replace(/^(?:\.\.?\/)+/, '')));
  // A well-known type is replaced by its JSON type.
  return found === undefined ? nameOf(type) : `${found[0]}.${nameOf(type)}`;
}
