import {
  getOption,
  hasOption,
  ScalarType,
  type DescEnum,
  type DescExtension,
  type DescField,
  type DescFile,
  type DescMessage,
  type DescMethod,
  type DescService,
  type FileRegistry,
} from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { commentsOf } from './comments.ts';

/*
 * What protoc-gen-grpc-gateway-ts v1.1.2 makes, mended. Nobody maintains it any more, and these are its defects:
 *
 *  1. Its files switch off the type checker, import without file extensions and hold enums: types can't just be stripped.
 *  2. Well-known types are messages to it, imported from files that it doesn't write. In JSON they are strings, numbers, ….
 *  3. Enums have the values of their protos, 64-bit integers are strings, and bytes stay bytes. The hub answers short
 *     lower-case names, numbers, and base64.
 *  4. It doesn't know `optional`: each such field becomes a oneof of its own.
 *  5. Any field may be missing anywhere, though each is there in an answer, if only as null.
 *  6. Values in paths are not encoded, and a variable with a pattern, `{name=a/*}`, or of a nested field, `{a.b}`, is always
 *     "undefined".
 *  7. What is neither in the path nor in the body gets lost unless the method is GET, and zeros get lost always, though 0
 *     isn't the same as nothing for a field with presence.
 *  8. A field that is the body and isn't set makes a request without a body.
 *  9. `response_body` is not heeded, and it knows no envelopes.
 * 10. RPCs without an HTTP rule are there, at paths where nothing is, and so are those whose body is no JSON.
 * 11. Comments get lost.
 * 12. Its runtime doesn't say that it sends JSON, fails at answers without a body, throws what is no Error, drops the last
 *     line and the errors of a stream, and waits forever. It is the same for all protos: client/fetch.ts takes its place.
 */

/** How well-known types look in JSON. */
const wellKnown: Readonly<Record<string, string>> = {
  'google.protobuf.Any': 'fm.Any',
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
};

const longs: ReadonlySet<ScalarType> = new Set([
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.SINT64,
  ScalarType.FIXED64,
  ScalarType.SFIXED64,
]);

/** How a type is used: in a request, in an answer, or in one that comes in an envelope. */
type Use = 'asked' | 'answered' | 'enveloped';

/** A statement of the plugin's: an enum, a message in two forms, or a service. */
const statements = {
  enum: /^export enum (\w+) \{\n[^]*?\n\}\n/gm,
  plain: /^export type (\w+) = \{\n([^]*?)^\}\n/gm,
  withOneofs: /^type Base(\w+) = \{\n([^]*?)^\}\n\nexport type \1 = Base\1\n((?: {2}& OneOf<.*>\n)+)/gm,
  service: /^export class (\w+) \{([^]*?)^\}/gm,
};

const fieldLine = /^ {2}(\w+)\?: (.+)$/gm;

const rpcStatement =
  /^ {2}static (\w+)\(req: ([\w.]+), (entityNotifier\?: .*, )?initReq\?: fm\.InitReq\): Promise<(.*)> \{\n {4}return fm\.\w+<.*>\(`(.*)`, (?:entityNotifier, )?\{\.\.\.initReq, method: "(\w+)"(?:, body: JSON\.stringify\((req(?:\["(\w+)"\])?), fm\.replacer\))?\}\)\n {2}\}\n/gm;

/** What becomes a member of the list beside it, where answers come in an envelope. */
const paginationType = 'chat4all.paging.v1.Pagination';
/** chat4all.options.v1.ANSWER_STYLE_ENVELOPE. */
const envelope = 1;

/** What must not be left of what the plugin writes. */
const defects =
  /^(?:export enum|type Base|type Absent).*|@ts-nocheck|\bGoogle(?:Protobuf|ApiHttpbody)\w*|\S*\.pb"|renderURLSearchParams/m;

/** Mends what the plugin has made of the files in a registry. */
export class Mender {
  readonly #http: DescExtension;
  readonly #rawBody: DescExtension | undefined;
  readonly #rules: DescExtension | undefined;
  readonly #answers: DescExtension | undefined;
  /** Messages and enums that are asked with, and those that are answered, over REST. */
  readonly #asked = new Set<DescMessage | DescEnum>();
  readonly #answered = new Set<DescMessage | DescEnum>();
  /** Those of the latter that are answered as they are, and those that are answered in an envelope. */
  readonly #plain = new Set<DescMessage | DescEnum>();
  readonly #enveloped = new Set<DescMessage | DescEnum>();

  constructor(registry: FileRegistry) {
    const http = registry.getExtension('google.api.http');
    if (http === undefined) throw new Error('The protos have no google.api.http');
    this.#http = http;
    this.#rawBody = registry.getExtension('chat4all.options.v1.raw_body');
    this.#rules = registry.getExtension('buf.validate.field');
    this.#answers = registry.getExtension('chat4all.options.v1.answers');
    for (const rpc of [...registry.files].flatMap((file) => file.services.flatMap(({ methods }) => methods))) {
      const called = this.#isCalled(rpc);
      if (called) use(rpc.input, this.#asked);
      // The body of an upload is for client/files.ts, but what it is answered is JSON.
      if (!called && !(hasOption(rpc, http) && rpc.methodKind === 'client_streaming')) continue;
      use(rpc.output, this.#answered);
      use(rpc.output, this.#isEnveloped(rpc.parent) ? this.#enveloped : this.#plain);
    }
  }

  /** Whether anything of a file can be called, or is a part of what can be. */
  isNeeded(file: DescFile): boolean {
    const isUsed = (type: DescMessage | DescEnum) =>
      !(type.typeName in wellKnown) && (this.#asked.has(type) || this.#answered.has(type));
    return (
      file.services.some(({ methods }) => methods.some((rpc) => this.#isCalled(rpc))) || [...typesIn(file)].some(isUsed)
    );
  }

  /**
   * @param written what the plugin has made of `file`
   * @param runtime how client/fetch.ts is imported there
   * @throws Error if that isn't what this version of the plugin writes
   */
  mend(written: string, file: DescFile, runtime: string): string {
    const types = new Map([...typesIn(file)].map((type) => [nameOf(type), type]));
    const typeNamed = <Kind extends 'enum' | 'message'>(kind: Kind, name: string) => {
      const type = types.get(name);
      if (type?.kind !== kind)
        throw new Error(`${file.name} has no ${kind} for the ${name} that the plugin has written`);
      return type as Extract<DescMessage | DescEnum, { kind: Kind }>;
    };
    const fields = new Map<DescMessage, Map<string, string>>();
    const message = (name: string, text: string) => {
      const type = typeNamed('message', name);
      fields.set(type, new Map([...text.matchAll(fieldLine)].map(([, field, json]) => [field!, json!])));
      return `message ${name};\n`;
    };
    // What has no service ends without a newline.
    const body = `${written}\n`
      .replace(/^[^]*?DO NOT MODIFY\n\*\/\n/, '')
      .replace(/^import \* as (fm|GoogleProtobuf\w+|GoogleApiHttpbody) from .*\n/gm, '')
      .replace(/^import \* as (\w+) from "(.*)\.pb"$/gm, "import type * as $1 from '$2.pb.ts';")
      .replace(/^type Absent<[^]*?: never\);\n/m, '')
      .replace(statements.enum, (_, name: string) => this.#enum(typeNamed('enum', name)))
      .replace(statements.withOneofs, (_, name: string, plain: string, oneofs: string) =>
        message(
          name,
          plain +
            oneofs.replaceAll(/^ {2}& OneOf<\{ (.*) \}>$/gm, (_, group: string) =>
              group
                .split('; ')
                .map((each) => `  ${each.replace(':', '?:')}`)
                .join('\n'),
            ),
        ),
      )
      .replace(statements.plain, (_, name: string, text: string) => message(name, text))
      .replace(/^message (\w+);\n/gm, (_, name: string) => {
        const type = typeNamed('message', name);
        return this.#message(type, fields.get(type)!);
      })
      .replace(statements.service, (_, name: string, rpcs: string) => {
        const service = file.services.find((candidate) => candidate.name === name);
        if (service === undefined) throw new Error(`${file.name} has no service ${name}`);
        return this.#service(service, rpcs, fields);
      })
      .replaceAll(/\n{3,}/g, '\n\n')
      .trim();
    const head = '// Made by protoc-gen-grpc-gateway-ts and dev/client/mend.ts: `npm run generate`.';
    const imports = /\bfm\./.test(body) ? `import * as fm from '${runtime}';\n` : '';
    const mended = `${head}\n${imports}\n${body}\n`;
    const left = defects.exec(mended);
    if (left !== null) throw new Error(`${file.name}: the plugin has written what can't be mended: ${left[0]}`);
    return mended;
  }

  #enum(type: DescEnum): string {
    if (!this.#asked.has(type) && !this.#answered.has(type)) return '';
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

  #message(type: DescMessage, written: ReadonlyMap<string, string>): string {
    const isAsked = this.#asked.has(type);
    if (!isAsked && !this.#answered.has(type)) return '';
    const line = (field: DescField, may: '' | '?') => {
      const json = written.get(field.name);
      if (json === undefined) throw new Error(`The plugin has not written ${field.parent.typeName}.${field.name}`);
      const isLeftOut = this.#enveloped.has(type) && this.#mayBeUnset(field);
      const use = isAsked ? 'asked' : this.#plain.has(type) ? 'answered' : 'enveloped';
      return `${commentsOf(field, '  ')}  ${field.name}${isLeftOut ? '?' : may}: ${this.#typeOf(field, json, use)};\n`;
    };
    const block = (lines: string[]) => (lines.length === 0 ? 'Record<string, never>' : `{\n${lines.join('')}}`);
    const plain = block(
      type.fields.filter(({ oneof }) => oneof === undefined).map((field) => line(field, isAsked ? '?' : '')),
    );
    const oneofs = type.oneofs.map(({ fields }) => ` & fm.OneOf<${block(fields.map((field) => line(field, '')))}>`);
    return `${commentsOf(type)}export type ${nameOf(type)} = ${plain}${oneofs.join('')};\n`;
  }

  /** The type of a field in JSON. What the plugin has written for it is right but for what has a form of its own there. */
  #typeOf(field: DescField, written: string, use: Use): string {
    if (field.fieldKind === 'list') {
      const item = this.#valueOf(field, written.replace(/\[\]$/, ''), use);
      return /^[\w.<>]+$/.test(item) ? `${item}[]` : `(${item})[]`;
    }
    if (field.fieldKind === 'map') {
      return `Record<string, ${this.#valueOf(field, written.replace(/^\{\[key: \w+\]: (.*)\}$/, '$1'), use)}>`;
    }
    const value = this.#valueOf(field, written, use);
    // In an envelope it is left out then.
    return use !== 'enveloped' && this.#mayBeUnset(field) && value !== 'unknown' ? `${value} | null` : value;
  }

  #mayBeUnset(field: DescField): boolean {
    const mayBe = field.presence === FeatureSet_FieldPresence.EXPLICIT && !this.#isRequired(field);
    return mayBe && field.oneof === undefined;
  }

  #valueOf(field: Partial<Pick<DescField, 'message' | 'enum' | 'scalar'>>, written: string, use: Use): string {
    const { message, scalar } = field;
    const special = wellKnown[(message ?? field.enum)?.typeName ?? ''];
    if (special !== undefined) return special;
    // Who asks may leave out fields of it; who answers doesn't.
    if (message !== undefined)
      return use === 'answered' && this.#asked.has(message) ? `fm.Answered<${written}>` : written;
    if (scalar !== undefined && longs.has(scalar)) return 'number';
    if (scalar === ScalarType.BYTES) return use === 'asked' ? 'string | Uint8Array' : 'string';
    return written;
  }

  #service(
    service: DescService,
    written: string,
    fields: ReadonlyMap<DescMessage, ReadonlyMap<string, string>>,
  ): string {
    const rpcs = written.replace(
      rpcStatement,
      (
        _,
        name: string,
        asked: string,
        notifier: string | undefined,
        answer: string,
        url: string,
        verb: string,
        body?: string,
        bodyField?: string,
      ) => {
        const rpc = service.methods.find((candidate) => candidate.name === name);
        if (rpc === undefined) throw new Error(`${service.typeName} has no RPC ${name}`);
        if (!this.#isCalled(rpc)) return '';
        const isStream = notifier !== undefined;
        const [, message = answer] = /<([\w.]+)>/.exec(notifier ?? '') ?? [];
        const answered = this.#answerOf(rpc, message, fields);
        const variables: string[] = [];
        const path = url
          .replace(/\?.*$/, '')
          .replaceAll(/\$\{req\["([^"=]+)(?:=([^"]*))?"\]\}/g, (_, field: string, pattern?: string) => {
            variables.push(field);
            return `\${fm.pathValue(req, '${field}'${pattern === undefined ? '' : `, '${pattern}'`})}`;
          });
        const elsewhere = [...variables, ...(bodyField === undefined ? [] : [bodyField])].map((field) => `'${field}'`);
        const inQuery = rpc.input.fields.filter((field) => !elsewhere.includes(`'${field.name}'`));
        const maps = [...mapsIn(inQuery)].map((field) => `'${field}'`);
        const listed = [elsewhere, ...(maps.length === 0 ? [] : [maps])].map((names) => `[${names.join(', ')}]`);
        const query = body === 'req' || inQuery.length === 0 ? '' : `\${fm.query(req, ${listed.join(', ')})}`;
        const bodyKind = rpc.input.fields.find((field) => field.name === bodyField)?.fieldKind;
        const empty = { list: '[]', map: '{}', message: '{}', enum: 'null', scalar: 'null' } as const;
        const sent = bodyKind === undefined ? body : `req.${bodyField} ?? ${empty[bodyKind]}`;
        const init = [
          `method: '${verb}'`,
          ...(sent === undefined ? [] : [`body: JSON.stringify(${sent}, fm.replacer)`]),
        ];
        const parameter = /\breq\b/.test(`${path}${query}${init.join()}`) ? 'req' : '_req';
        const call = isStream ? 'fetchStreamingRequest' : this.#isEnveloped(service) ? 'fetchData' : 'fetchReq';
        const arrival = isStream ? `entityNotifier?: fm.NotifyStreamEntityArrival<${answered}>, ` : '';
        return `${commentsOf(rpc, '  ')}  static ${name}(${parameter}: ${asked}, ${arrival}initReq?: fm.InitReq): Promise<${isStream ? 'void' : answered}> {
    return fm.${call}<${answered}>(\`${path}${query}\`, ${isStream ? 'entityNotifier, ' : ''}{ ...initReq, ${init.join(', ')} });
  }
`;
      },
    );
    const callable = rpcs.trim() !== '';
    if (/^ {2}static \w+\((?![^]*fm\.\w+<)/m.test(rpcs))
      throw new Error(`${service.typeName} has an RPC in a form that is not known`);
    return callable
      ? `${commentsOf(service)}export class ${service.name} {\n${rpcs.trim().replace(/^/, '  ')}\n}\n`
      : '';
  }

  /** What an RPC answers: its message, or one field of that. */
  #answerOf(rpc: DescMethod, message: string, fields: ReadonlyMap<DescMessage, ReadonlyMap<string, string>>): string {
    const { responseBody } = getOption(rpc, this.#http) as unknown as { responseBody: string };
    const use = this.#isEnveloped(rpc.parent) ? 'enveloped' : 'answered';
    const written = (of: DescField) => this.#typeOf(of, fields.get(rpc.output)!.get(of.name)!, use);
    const field = rpc.output.fields.find(({ name }) => name === responseBody);
    const answered = field === undefined ? this.#valueOf({ message: rpc.output }, message, use) : written(field);
    const pagination = rpc.output.fields.find(({ message }) => message?.typeName === paginationType);
    const isPage = use === 'enveloped' && field !== undefined && pagination !== undefined;
    return isPage ? `fm.Page<${answered}, ${written(pagination)}>` : answered;
  }

  /** Whether the answers of a service come in an envelope. */
  #isEnveloped(service: DescService): boolean {
    if (this.#answers === undefined || !hasOption(service, this.#answers)) return false;
    return (getOption(service, this.#answers) as unknown as { style: number }).style === envelope;
  }

  /** Whether the client calls an RPC: one with an HTTP rule, whose body is JSON both ways. */
  #isCalled(rpc: DescMethod): boolean {
    const isStream = rpc.methodKind === 'client_streaming' || rpc.methodKind === 'bidi_streaming';
    const hasRawBody = this.#rawBody !== undefined && hasOption(rpc, this.#rawBody);
    const hasAnyBody = [rpc.input, rpc.output].some(
      (type) => isAnyBody(type) || type.fields.some(({ message }) => message !== undefined && isAnyBody(message)),
    );
    return hasOption(rpc, this.#http) && !isStream && !hasRawBody && !hasAnyBody;
  }

  #isRequired(field: DescField): boolean {
    if (this.#rules === undefined || !hasOption(field, this.#rules)) return false;
    return (getOption(field, this.#rules) as unknown as { required: boolean }).required;
  }
}

/** Whether it travels as it is, and not as JSON. */
function isAnyBody({ typeName }: DescMessage): boolean {
  return typeName === 'google.api.HttpBody';
}

/** Notes that a message is used, with all that is in it. */
function use(type: DescMessage, used: Set<DescMessage | DescEnum>): void {
  if (used.has(type)) return;
  used.add(type);
  for (const { message, enum: choices } of type.fields) {
    if (message !== undefined && !(message.typeName in wellKnown)) use(message, used);
    if (choices !== undefined) used.add(choices);
  }
}

/** The maps among these fields, and in the messages that they are, by their paths. */
function* mapsIn(fields: readonly DescField[], prefix = '', above: readonly DescMessage[] = []): Generator<string> {
  for (const field of fields) {
    const name = prefix + field.name;
    if (field.fieldKind === 'map') yield name;
    if (field.fieldKind !== 'message' || field.message.typeName in wellKnown || above.includes(field.message)) continue;
    yield* mapsIn(field.message.fields, `${name}.`, [...above, field.message]);
  }
}

function* typesIn(parent: DescFile | DescMessage): Generator<DescMessage | DescEnum> {
  yield* parent.kind === 'file' ? parent.enums : parent.nestedEnums;
  for (const message of parent.kind === 'file' ? parent.messages : parent.nestedMessages) {
    yield message;
    yield* typesIn(message);
  }
}

/** What the plugin calls a type: what is in a message has its name in front. */
function nameOf(type: DescMessage | DescEnum): string {
  return type.parent === undefined ? type.name : nameOf(type.parent) + type.name;
}
