import { ScalarType, type DescService } from '@bufbuild/protobuf';
import { commentsOf } from './comments.ts';
import type { Rpc, Rpcs } from './rpcs.ts';
import { mapsIn, responseType, typeName, variablesOf, type Types, type Written } from './types.ts';

/*
 * Writes the client's methods from the descriptors. The functions in the output of protoc-gen-grpc-gateway-ts are not used: they don't
 * encode path parameters, drop query parameters unless the method is GET, ignore `response_body`, envelopes and server-sent events,
 * exist also for RPCs that have no HTTP rule, and know nothing of timeouts, retries and errors.
 */

/** The class of a service, with a method for each RPC. */
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

/** The type of the error codes of an RPC. */
export function codesOf(rpc: Rpc): string {
  const common = rpc.isEnveloped ? 'EnvelopedCode' : 'CommonCode';
  const own = rpc.codes.map((code) => `'${code}' | `).join('');
  return `/** The error codes of \`${rpc.desc.localName}\`. */
export type ${codeName(rpc)} = ${own}codes.${common};
`;
}

/** Begins with the name of the service if another service in the file has an RPC of the same name. */
function codeName({ desc }: Rpc): string {
  const same = desc.parent.file.services.flatMap(({ methods }) => methods).filter(({ name }) => name === desc.name);
  return `${same.length > 1 ? desc.parent.name.replace(/Service$/, '') : ''}${desc.name}Code`;
}

/** The file with the class of all services. @param client the folder of caller.ts, seen from that file */
export function servicesFile(services: readonly DescService[], client: string): string {
  const imports = [...Map.groupBy(services, ({ file }) => file.name)].map(
    ([file, all]) => `import { ${all.map(({ name }) => name).join(', ')} } from './${file}.pb.ts';\n`,
  );
  const fields = services.map(
    (service) => `${commentsOf(service, '  ')}  readonly ${memberOf(service)}: ${service.name};\n`,
  );
  const assigned = services.map((service) => `    this.${memberOf(service)} = new ${service.name}(caller);\n`);
  return `import type { Caller } from '${client}/caller.ts';
${imports.join('')}
/** All services that can be called over REST. */
export class Services {
${fields.join('')}
  constructor(caller: Caller) {
${assigned.join('')}  }
}
`;
}

/** The file of the error codes that all RPCs have in common. */
export function codesFile({ commonCodes, envelopedCodes }: Rpcs): string {
  const union = (codes: readonly string[]) => codes.map((code) => `\n  | '${code}'`).join('');
  return `/** The error codes that any call may have. */
export type CommonCode =${union(commonCodes)};

/** The error codes that any call under \`/api/v1\` may have. */
export type EnvelopedCode =${union(envelopedCodes)};
`;
}

/** The service's name as a member of the client: `userAdmin` for `UserAdminService`. */
function memberOf({ name }: DescService): string {
  const short = name.replace(/Service$/, '');
  return short.charAt(0).toLowerCase() + short.slice(1);
}

/** The methods of an RPC: two if it responds with events only on request. */
function methodsOf(rpc: Rpc, types: Types, written: Written): string[] {
  const { desc, events } = rpc;
  const comments = commentsOf(desc, '  ');
  const response = responseType(rpc, types, written);
  const reply = `Reply<${response}, ${codeName(rpc)}>`;
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
  if (rpc.kind === 'lines') return [comments + method(desc.localName, stream(response), `lines<${response}>`)];
  if (events === undefined) return [comments + method(desc.localName, reply, `reply<${response}>`)];
  const asEvents = `events<${message}>`;
  if (events.askedBy === undefined) return [comments + method(desc.localName, stream(message), asEvents)];
  const { name: asked } = events.askedBy;
  return [
    comments + method(desc.localName, reply, `reply<${response}>`, `{ ${asked}: false }`),
    `  /** As \`${desc.localName}\`, with the response as events. */\n` +
      method(`${desc.localName}Events`, stream(message), asEvents, `{ ${asked}: true }`),
  ];
}

/** The `Rpc` of client/caller.ts, as TypeScript. */
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
    ...(events !== undefined && events.id.scalar !== ScalarType.STRING && isStream ? ['hasNumericIds: true'] : []),
    ...(rpc.timeout === undefined || isStream ? [] : [`timeout: ${rpc.timeout}`]),
  ];
  return `{ ${members.join(', ')} }`;
}
