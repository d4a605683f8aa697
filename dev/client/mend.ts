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
 * 10. RPCs without an HTTP rule are there, at paths where nothing is, and so are those whose body is no JSON, or that take whole
 *     HTTP requests of protocols that have clients of their own.
 * 11. Comments get lost.
 * 12. Its runtime doesn't say that it sends JSON, fails at answers without a body, throws what is no Error, drops the last
 *     line and the errors of a stream, and waits forever. It is the same for all protos: client/fetch.ts takes its place.
 * 13. To it every stream is lines of messages, also where they are server-sent events or one array.
 * 14. How long the hub may take for a call is not heeded.
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
  'google.rpc.Status': 'Record<string, unknown>',
};

const longs: ReadonlySet<ScalarType> = new Set([
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.SINT64,
  ScalarType.FIXED64,
  ScalarType.SFIXED64,
]);

/** What a function says beside the request and `initReq`. */
interface Saying {
  /** A parameter of its own, and what it hands on; with a comma each. */
  parameter?: string;
  argument?: string;
  /** A member of the request that it sets. */
  asks?: string | undefined;
  /** Milliseconds that it waits. */
  limit?: number | undefined;
}

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
/** Seconds that the client waits by default (`timeout` of client/fetch.ts). */
const usualLimit = 30;
/** Seconds that the client waits longer than the hub may take, so that it is told what was wrong. */
const grace = 5;

/** chat4all.options.v1.Events, as protobuf-es shows it when it only has the descriptor. */
interface EventsOption {
  event: string;
  id: string;
  askedBy: string;
  last: readonly string[];
}

/** What an RPC whose messages are events has of them. */
interface Events {
  members: readonly DescField[];
  id: DescField;
  /** What asks for them; without it they always come. */
  askedBy: DescField | undefined;
  /** Those whose value is the answer for who doesn't ask. */
  last: readonly DescField[];
}

/** What must not be left of what the plugin writes. */
const defects =
  /^(?:export enum|type Base|type Absent).*|@ts-nocheck|\bGoogle(?:Protobuf|ApiHttpbody|RpcStatus)\w*|\S*\.pb"|renderURLSearchParams/m;

/** Mends what the plugin has made of the files in a registry. */
export class Mender {
  readonly #http: DescExtension;
  readonly #rawBody: DescExtension | undefined;
  readonly #rules: DescExtension | undefined;
  readonly #answers: DescExtension | undefined;
  readonly #eventsOption: DescExtension | undefined;
  readonly #joinedArray: DescExtension | undefined;
  readonly #wholeHttp: DescExtension | undefined;
  readonly #timeout: DescExtension | undefined;
  /** Messages that are events, and the fields of requests that ask for such. */
  readonly #events = new Map<DescMessage, Events>();
  readonly #askEvents = new Set<DescField>();
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
    this.#eventsOption = registry.getExtension('chat4all.options.v1.events');
    this.#joinedArray = registry.getExtension('chat4all.options.v1.joined_array');
    this.#wholeHttp = registry.getExtension('chat4all.options.v1.whole_http');
    this.#timeout = registry.getExtension('chat4all.options.v1.timeout_seconds');
    for (const rpc of [...registry.files].flatMap((file) => file.services.flatMap(({ methods }) => methods))) {
      const called = this.#isCalled(rpc);
      if (called) use(rpc.input, this.#asked);
      // The body of an upload is for client/files.ts, but what it is answered is JSON.
      if (!called && !(hasOption(rpc, http) && rpc.methodKind === 'client_streaming')) continue;
      const events = this.#eventsOf(rpc);
      if (events?.askedBy !== undefined) this.#askEvents.add(events.askedBy);
      if (events !== undefined) this.#events.set(rpc.output, events);
      const answers = events === undefined ? [rpc.output] : events.members.map(({ message }) => message!);
      for (const answer of answers) {
        use(answer, this.#answered);
        use(answer, this.#isEnveloped(rpc) ? this.#enveloped : this.#plain);
      }
    }
    for (const type of this.#events.keys()) {
      if (this.#asked.has(type) || this.#answered.has(type)) throw new Error(`${type.typeName} is not only an event`);
    }
  }

  /** Whether anything of a file can be called, or is a part of what can be. */
  isNeeded(file: DescFile): boolean {
    const isUsed = (type: DescMessage | DescEnum) =>
      !(type.typeName in wellKnown) && (this.#asked.has(type) || this.#answered.has(type) || this.#isEvent(type));
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
      .replace(/^import \* as (fm|GoogleProtobuf\w+|GoogleApiHttpbody|GoogleRpcStatus) from .*\n/gm, '')
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
      .replaceAll(/^import type \* as (\w+) from .*\n/gm, (line, name: string, _, text: string) =>
        text.includes(`${name}.`) ? line : '',
      )
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
    const events = this.#events.get(type);
    if (events !== undefined) {
      const members = events.members.map(
        (field) => `${commentsOf(field, '  ')}  ${field.name}: ${this.#written(field, written, 'answered')};\n`,
      );
      const id = this.#written(events.id, written, 'answered');
      return `${commentsOf(type)}export type ${nameOf(type)} = fm.EventOf<${id}, {\n${members.join('')}}>;\n`;
    }
    const isAsked = this.#asked.has(type);
    if (!isAsked && !this.#answered.has(type)) return '';
    const line = (field: DescField, may: '' | '?') => {
      const isLeftOut = this.#enveloped.has(type) && this.#mayBeUnset(field);
      const use = isAsked ? 'asked' : this.#plain.has(type) ? 'answered' : 'enveloped';
      return `${commentsOf(field, '  ')}  ${field.name}${isLeftOut ? '?' : may}: ${this.#written(field, written, use)};\n`;
    };
    const block = (lines: string[]) => (lines.length === 0 ? 'Record<string, never>' : `{\n${lines.join('')}}`);
    const plain = block(
      type.fields
        .filter((field) => field.oneof === undefined && !this.#askEvents.has(field))
        .map((field) => line(field, isAsked ? '?' : '')),
    );
    const oneofs = type.oneofs.map(({ fields }) => ` & fm.OneOf<${block(fields.map((field) => line(field, '')))}>`);
    return `${commentsOf(type)}export type ${nameOf(type)} = ${plain}${oneofs.join('')};\n`;
  }

  /** The type of a field in JSON, of those that the plugin has written for its message. */
  #written(field: DescField, written: ReadonlyMap<string, string> | undefined, use: Use): string {
    const json = written?.get(field.name);
    if (json === undefined) throw new Error(`The plugin has not written ${field.parent.typeName}.${field.name}`);
    return this.#typeOf(field, json, use);
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
        const events = this.#eventsOf(rpc);
        const isStream = notifier !== undefined && events === undefined && !this.#isJoined(rpc);
        const [, message = answer] = /<([\w.]+)>/.exec(notifier ?? '') ?? [];
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
        const bodyKind = rpc.input.fields.find((field) => field.name === bodyField)?.fieldKind;
        const empty = { list: '[]', map: '{}', message: '{}', enum: 'null', scalar: 'null' } as const;
        /** A function that calls the RPC. */
        const calling = (name: string, call: string, answered: string, returned: string, said: Saying = {}) => {
          const req = said.asks === undefined ? 'req' : `{ ...req, ${said.asks} }`;
          const query = body === 'req' || inQuery.length === 0 ? '' : `\${fm.query(${req}, ${listed.join(', ')})}`;
          const sent = bodyKind === undefined ? body && req : `req.${bodyField} ?? ${empty[bodyKind]}`;
          const init = [
            ...(said.limit === undefined ? [] : [`timeout: ${said.limit}`]),
            '...initReq',
            `method: '${verb}'`,
            ...(sent === undefined ? [] : [`body: JSON.stringify(${sent}, fm.replacer)`]),
          ].join(', ');
          const parameter = /\breq\b/.test(`${path}${query}${init}`) ? 'req' : '_req';
          const { parameter: own = '', argument = '' } = said;
          return `  static ${name}(${parameter}: ${asked}, ${own}initReq?: fm.InitReq): ${returned} {
    return fm.${call}<${answered}>(\`${path}${query}\`, ${argument}{ ${init} });
  }
`;
        };
        const comments = commentsOf(rpc, '  ');
        if (isStream) {
          const answered = this.#answerOf(rpc, message, fields);
          const parameter = `entityNotifier?: fm.NotifyStreamEntityArrival<${answered}>, `;
          const said = { parameter, argument: 'entityNotifier, ' };
          return comments + calling(name, 'fetchStreamingRequest', answered, 'Promise<void>', said);
        }
        const once = (answered: string, asks?: string) => {
          const call = this.#isEnveloped(rpc) ? 'fetchData' : 'fetchReq';
          return comments + calling(name, call, answered, `Promise<${answered}>`, { limit: this.#limitOf(rpc), asks });
        };
        if (events === undefined) return once(this.#answerOf(rpc, message, fields));
        const argument = events.id.scalar === ScalarType.STRING ? 'String, ' : 'Number, ';
        const asEvents = (name: string, asks?: string) =>
          calling(name, 'fetchEvents', message, `AsyncGenerator<${message}, void>`, { argument, asks });
        if (events.askedBy === undefined) return comments + asEvents(name);
        const { name: flag } = events.askedBy;
        const last = events.last.map((field) => this.#written(field, fields.get(rpc.output), 'answered'));
        return `${once([...new Set(last)].join(' | '), `${flag}: false`)}  /** As \`${name}\`, with the answer as events. */
${asEvents(`${name}Events`, `${flag}: true`)}`;
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
    const use = this.#isEnveloped(rpc) ? 'enveloped' : 'answered';
    const written = (of: DescField) => this.#written(of, fields.get(rpc.output), use);
    const field = rpc.output.fields.find(({ name }) => name === responseBody);
    const answered = field === undefined ? this.#valueOf({ message: rpc.output }, message, use) : written(field);
    const pagination = rpc.output.fields.find(({ message }) => message?.typeName === paginationType);
    const isPage = use === 'enveloped' && field !== undefined && pagination !== undefined;
    return isPage ? `fm.Page<${answered}, ${written(pagination)}>` : answered;
  }

  /** Whether the answers of an RPC come in an envelope. */
  #isEnveloped(rpc: DescMethod): boolean {
    if (this.#eventsOf(rpc) !== undefined || this.#isJoined(rpc)) return false;
    return (optionOf(rpc.parent, this.#answers) as { style: number } | undefined)?.style === envelope;
  }

  #isEvent(type: DescMessage | DescEnum): boolean {
    return type.kind === 'message' && this.#events.has(type);
  }

  /** How an RPC tells events, if it does. */
  #eventsOf(rpc: DescMethod): Events | undefined {
    const option = optionOf(rpc, this.#eventsOption) as EventsOption | undefined;
    if (option === undefined) return undefined;
    const named = ({ fields, typeName }: DescMessage, name: string) => {
      const field = fields.find((candidate) => candidate.name === name);
      if (field === undefined) throw new Error(`${typeName} has no field ${name}, which is named by ${rpc.name}`);
      return field;
    };
    const members = rpc.output.fields.filter(({ oneof }) => oneof?.name === option.event);
    const last = option.last.length === 0 ? members : option.last.map((name) => named(rpc.output, name));
    return {
      // Errors are thrown.
      members: members.filter((field) => !isError(field)),
      id: named(rpc.output, option.id),
      askedBy: option.askedBy === '' ? undefined : named(rpc.input, option.askedBy),
      last: last.filter((field) => !isError(field)),
    };
  }

  /** Whether the messages of an RPC are one array. */
  #isJoined(rpc: DescMethod): boolean {
    return optionOf(rpc, this.#joinedArray) === true;
  }

  /** Milliseconds that a call may take, where that is more than usual. */
  #limitOf(rpc: DescMethod): number | undefined {
    const limit = ((optionOf(rpc, this.#timeout) as number | undefined) ?? 0) + grace;
    return limit > usualLimit ? limit * 1_000 : undefined;
  }

  /** Whether the client calls an RPC: one with an HTTP rule, whose body is JSON both ways. */
  #isCalled(rpc: DescMethod): boolean {
    const isStream = rpc.methodKind === 'client_streaming' || rpc.methodKind === 'bidi_streaming';
    const hasRawBody = optionOf(rpc, this.#rawBody) !== undefined;
    const isWhole = optionOf(rpc, this.#wholeHttp) === true;
    const hasAnyBody = [rpc.input, rpc.output].some(
      (type) => isAnyBody(type) || type.fields.some(({ message }) => message !== undefined && isAnyBody(message)),
    );
    return hasOption(rpc, this.#http) && !isStream && !hasRawBody && !hasAnyBody && !isWhole;
  }

  #isRequired(field: DescField): boolean {
    return (optionOf(field, this.#rules) as { required: boolean } | undefined)?.required === true;
  }
}

function optionOf(of: DescMethod | DescService | DescField, extension: DescExtension | undefined): unknown {
  return extension !== undefined && hasOption(of, extension) ? getOption(of, extension) : undefined;
}

/** Whether it is the error that a stream of events ends with. */
function isError({ name, message }: DescField): boolean {
  if (message?.typeName !== 'google.rpc.Status') return false;
  // client/fetch.ts knows it by that.
  if (name !== 'error') throw new Error(`An event that is an error must be called error, and not ${name}`);
  return true;
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
