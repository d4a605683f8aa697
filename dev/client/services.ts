import { ScalarType, type DescService } from '@bufbuild/protobuf';
import { commentsOf } from './comments.ts';
import type { Rpc, Rpcs } from './rpcs.ts';
import { answerOf, mapsIn, typeName, variablesOf, type Types, type Written } from './types.ts';

/*
 * The methods of the client, written from the descriptors. The functions that protoc-gen-grpc-gateway-ts writes are not used: it
 * doesn't encode what is in a path, loses what is neither in the path nor in the body unless the method is GET, knows no
 * `response_body`, no envelope and no server-sent events, writes functions for what can't be called over REST, and knows nothing of
 * timeouts, repetitions and errors.
 */

/** Writes the class of a service, and the types of its errors' codes. */
export function serviceClass(service: DescService, rpcs: Rpcs, types: Types, written: Written): string {
  const called = rpcs.of(service).filter(({ kind }) => kind !== 'bytes');
  const methods = called.flatMap((rpc) => methodsOf(rpc, types, written)).join('\n');
  return `${commentsOf(service)}export class ${service.name} {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

${methods}}
`;
}

/** The type of the codes that an RPC may be refused with. */
export function codesOf(rpc: Rpc): string {
  const common = rpc.isEnveloped ? 'EnvelopedCode' : 'CommonCode';
  const own = rpc.codes.map((code) => `'${code}' | `).join('');
  return `/** Why \`${rpc.desc.localName}\` may be refused. */
export type ${codeName(rpc)} = ${own}codes.${common};
`;
}

/** The name of the service is in front where another one in the same file has an RPC of the same name. */
function codeName({ desc }: Rpc): string {
  const same = desc.parent.file.services.flatMap(({ methods }) => methods).filter(({ name }) => name === desc.name);
  return `${same.length > 1 ? desc.parent.name.replace(/Service$/, '') : ''}${desc.name}Code`;
}

/** Writes the file that puts all services together. */
export function servicesFile(services: readonly DescService[]): string {
  const imports = [...Map.groupBy(services, ({ file }) => file.name)].map(
    ([file, all]) => `import { ${all.map(({ name }) => name).join(', ')} } from './${file}.pb.ts';\n`,
  );
  const fields = services.map(
    (service) => `${commentsOf(service, '  ')}  readonly ${memberOf(service)}: ${service.name};\n`,
  );
  const assigned = services.map((service) => `    this.${memberOf(service)} = new ${service.name}(caller);\n`);
  return `import type { Caller } from '../caller.ts';
${imports.join('')}
/** All services that can be called over REST. */
export class Services {
${fields.join('')}
  constructor(caller: Caller) {
${assigned.join('')}  }
}
`;
}

/** Writes the file of the codes that all RPCs have in common. */
export function codesFile({ commonCodes, envelopedCodes }: Rpcs): string {
  const union = (codes: readonly string[]) => codes.map((code) => `\n  | '${code}'`).join('');
  return `/** Why any call may be refused. */
export type CommonCode =${union(commonCodes)};

/** Why any call under \`/api/v1\` may be refused. */
export type EnvelopedCode =${union(envelopedCodes)};
`;
}

/** `UserAdminService` is the client's `userAdmin`. */
function memberOf({ name }: DescService): string {
  const short = name.replace(/Service$/, '');
  return short.charAt(0).toLowerCase() + short.slice(1);
}

/** The methods of an RPC: what answers with events only where that is asked for has two. */
function methodsOf(rpc: Rpc, types: Types, written: Written): string[] {
  const { desc, events } = rpc;
  const comments = commentsOf(desc, '  ');
  const answered = answerOf(rpc, types, written);
  const reply = `Reply<${answered}, ${codeName(rpc)}>`;
  const message = typeName(desc.output, desc.parent.file, written);
  const stream = (type: string) => `AsyncGenerator<${type}, void>`;
  const method = (name: string, returned: string, call: string, set?: string) => {
    const isStream = !call.startsWith('reply');
    const request = typeName(desc.input, desc.parent.file, written);
    const isNeeded = desc.input.fields.some((field) => field.oneof !== undefined || types.isNeeded(field));
    const parameter = isNeeded ? `request: ${request}` : `request: ${request} = {}`;
    return `  ${name}(${parameter}, options?: CallOptions): ${returned} {
    return this.#caller.${call}(${specOf(rpc, isStream, set)}, request, options);
  }
`;
  };
  if (rpc.kind === 'lines') return [comments + method(desc.localName, stream(answered), `lines<${answered}>`)];
  if (events === undefined) return [comments + method(desc.localName, reply, `reply<${answered}>`)];
  const asEvents = `events<${message}>`;
  if (events.askedBy === undefined) return [comments + method(desc.localName, stream(message), asEvents)];
  const { name: asked } = events.askedBy;
  return [
    comments + method(desc.localName, reply, `reply<${answered}>`, `{ ${asked}: false }`),
    `  /** As \`${desc.localName}\`, with the answer as events. */\n` +
      method(`${desc.localName}Events`, stream(message), asEvents, `{ ${asked}: true }`),
  ];
}

/** What client/caller.ts has to know of an RPC. */
function specOf(rpc: Rpc, isStream: boolean, set?: string): string {
  const { desc, events } = rpc;
  const bodyField = desc.input.fields.find(({ name }) => name === rpc.body);
  const elsewhere = new Set([...variablesOf(rpc.path), ...(bodyField === undefined ? [] : [bodyField.name])]);
  const maps = rpc.body === '*' ? [] : [...mapsIn(desc.input.fields.filter(({ name }) => !elsewhere.has(name)))];
  const empty =
    bodyField && { list: '[]', map: '{}', message: '{}', enum: 'null', scalar: 'null' }[bodyField.fieldKind];
  const members = [
    `verb: '${rpc.verb}'`,
    `path: '${rpc.path}'`,
    ...(rpc.body === undefined ? [] : [`body: '${rpc.body}'`]),
    ...(empty === undefined ? [] : [`empty: ${empty}`]),
    ...(maps.length === 0 ? [] : [`maps: [${maps.map((name) => `'${name}'`).join(', ')}]`]),
    ...(set === undefined ? [] : [`set: ${set}`]),
    ...(rpc.isPublic ? ['isPublic: true'] : []),
    ...(rpc.isRepeatable ? ['isRepeatable: true'] : []),
    ...(rpc.isEnveloped ? ['isEnveloped: true'] : []),
    ...(events !== undefined && events.id.scalar !== ScalarType.STRING && isStream ? ['hasNumbers: true'] : []),
    ...(rpc.timeout === undefined || isStream ? [] : [`timeout: ${rpc.timeout}`]),
  ];
  return `{ ${members.join(', ')} }`;
}
