import { readFileSync } from 'node:fs';
import {
  createFileRegistry,
  fromBinary,
  fromJson,
  getOption,
  hasOption,
  ScalarType,
  toBinary,
  type DescExtension,
  type JsonValue,
  type DescField,
  type DescMessage,
  type DescMethod,
  type FileRegistry,
} from '@bufbuild/protobuf';
import { pathToString } from '@bufbuild/protobuf/reflect';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { createValidator, type Violation } from '@bufbuild/protovalidate';
import type { FieldViolation } from '../errors.ts';

/** Who may call an RPC: the values of chat4all.options.v1.Access. */
export type Access = 'PUBLIC' | 'USER' | 'ADMIN' | 'SERVICE';
const accessByNumber: Record<number, Access> = { 1: 'PUBLIC', 2: 'USER', 3: 'ADMIN', 4: 'SERVICE' };

const set = fromBinary(FileDescriptorSetSchema, readFileSync(new URL('../../gen/descriptors.binpb', import.meta.url)));

/** Every proto file of the project, as buf compiled it. */
export const registry: FileRegistry = createFileRegistry(set);

const validator = createValidator({ registry });
const accessOption = extension('chat4all.options.v1.access');
const callersOption = extension('chat4all.options.v1.callers');
const bearerOnlyOption = extension('chat4all.options.v1.bearer_only');
const standingOption = extension('chat4all.options.v1.standing');
const timeoutOption = extension('chat4all.options.v1.timeout_seconds');
const rawBodyOption = extension('chat4all.options.v1.raw_body');
const callerFieldOption = extension('chat4all.options.v1.caller_field');
const httpOption = extension('google.api.http');
const fieldRules = extension('buf.validate.field');
const patternOption = extension('chat4all.options.v1.pattern_text');

function extension(name: string): DescExtension {
  const found = registry.getExtension(name);
  if (found === undefined) throw new Error(`The descriptor set has no extension ${name}`);
  return found;
}

/** An RPC, by its path `/<service>/<method>`. */
export function method(path: string): DescMethod {
  const [, service = '', name = ''] = path.split('/');
  const found = registry.getService(service)?.methods.find((candidate) => candidate.name === name);
  if (found === undefined) throw new Error(`The descriptor set has no RPC ${path}`);
  return found;
}

/** The access rule of an RPC; undefined if its proto says none. */
export function accessOf(rpc: DescMethod): Access | undefined {
  return accessByNumber[getOption(rpc, accessOption) as number];
}

/**
 * The names of the services that may call an RPC; empty unless its access rule is SERVICE.
 *
 * @throws Error if a SERVICE RPC names none, or another RPC names some
 */
export function callersOf(rpc: DescMethod): ReadonlySet<string> {
  const callers = new Set(getOption(rpc, callersOption) as string[]);
  if (callers.size > 0 === (accessOf(rpc) === 'SERVICE')) return callers;
  const name = `${rpc.parent.typeName}/${rpc.name}`;
  throw new Error(
    callers.size > 0
      ? `${name} names callers, but its access rule isn't SERVICE`
      : `${name} is for services, but doesn't say which ones may call it`,
  );
}

/** Whether an API key is not enough to call an RPC. */
export function isBearerOnly(rpc: DescMethod): boolean {
  return getOption(rpc, bearerOnlyOption) as boolean;
}

/** Whether a call of an RPC stays open for long, with next to nothing to do. */
export function isStanding(rpc: DescMethod): boolean {
  return getOption(rpc, standingOption) as boolean;
}

/** How long a call without a deadline may take, in milliseconds; undefined if its proto doesn't say. */
export function timeoutOf(rpc: DescMethod): number | undefined {
  return hasOption(rpc, timeoutOption) ? (getOption(rpc, timeoutOption) as number) * 1_000 : undefined;
}

/**
 * The field of an RPC's streamed message that holds the bytes of an HTTP body.
 *
 * @throws Error if its proto doesn't say so: other streams are not served
 */
export function rawBodyOf(rpc: DescMethod): DescField {
  const { body, responseBody } = getOption(rpc, httpOption) as unknown as { body: string; responseBody: string };
  const [message, name] = rpc.methodKind === 'client_streaming' ? [rpc.input, body] : [rpc.output, responseBody];
  const field = message.fields.find((candidate) => candidate.name === name);
  if (!hasOption(rpc, rawBodyOption) || field?.fieldKind !== 'scalar' || field.scalar !== ScalarType.BYTES) {
    throw new Error(`${rpc.parent.typeName}/${rpc.name} is a stream, but not one of the bytes of an HTTP body`);
  }
  return field;
}

/** Whether an RPC is a stream of the bytes of an HTTP body. */
export function hasRawBody(rpc: DescMethod): boolean {
  return hasOption(rpc, rawBodyOption);
}

/**
 * The field of an RPC's request that must name the caller; undefined if there is none.
 *
 * @throws Error if that field can't name a user, or if not only users may call the RPC
 */
export function callerFieldOf(rpc: DescMethod): DescField | undefined {
  if (!hasOption(rpc, callerFieldOption)) return undefined;
  const name = getOption(rpc, callerFieldOption) as string;
  const field = rpc.input.fields.find((candidate) => candidate.name === name);
  const isText = field?.fieldKind === 'scalar' && field.scalar === ScalarType.STRING && field.oneof === undefined;
  if (isText && ['USER', 'ADMIN'].includes(accessOf(rpc) ?? '')) return field;
  throw new Error(`${rpc.parent.typeName}/${rpc.name} has ${name} as its caller_field, which can't name a user`);
}

/** The violations of the rules in its proto (buf.validate) by an encoded message. */
export function validate(message: DescMessage, encoded: Uint8Array): FieldViolation[] {
  const decoded = fromBinary(message, encoded);
  const result = validator.validate(message, decoded);
  if (result.kind === 'error') throw result.error;
  const found = result.kind === 'valid' ? [] : result.violations.map(fieldViolation);
  return [...found, ...wrongTimes(message, decoded as unknown as Readonly<Record<string, unknown>>)];
}

/** A violation in our form. protovalidate begins its messages with "value", but the field is named beside the message. */
function fieldViolation({ field: path, message, ruleId }: Violation): FieldViolation {
  const field = path.findLast((step): step is DescField => step.kind === 'field');
  const inWords = ruleId === 'string.pattern' && field !== undefined ? getOption(field, patternOption) : '';
  const hasNul = ruleId === 'string.not_contains' && message.includes('\0');
  return {
    field: pathToString(path),
    description: hasNul ? 'must not have the character NUL' : (inWords as string) || message.replace(/^value /, ''),
    rule: ruleOf(ruleId),
  };
}

/** The limits of google.protobuf.Timestamp in seconds: the years 1 and 9999. */
const times = { first: -62_135_596_800n, last: 253_402_300_799n };

/** Times in a message that are none by the definition of their type, which no Date holds either. */
function wrongTimes(message: DescMessage, decoded: Readonly<Record<string, unknown>>, within = ''): FieldViolation[] {
  if (!hasTimes(message)) return [];
  if (message.typeName === timestampType) {
    const { seconds, nanos } = decoded as { seconds: bigint; nanos: number };
    const isRight = seconds >= times.first && seconds <= times.last && nanos >= 0 && nanos < 1e9;
    return isRight ? [] : [{ field: within, description: 'must be a time of the years 1 to 9999', rule: 'range' }];
  }
  return message.fields.flatMap((field) => {
    const value = decoded[field.localName];
    if (field.message === undefined || value === undefined) return [];
    const path = within === '' ? field.name : `${within}.${field.name}`;
    if (field.fieldKind === 'message') return wrongTimes(field.message, value as typeof decoded, path);
    if (!Array.isArray(value)) return [];
    return value.flatMap((item: typeof decoded, index) => wrongTimes(field.message!, item, `${path}[${index}]`));
  });
}

const timestampType = 'google.protobuf.Timestamp';
const withTimes = new WeakMap<DescMessage, boolean>();

/** Whether there may be a time in a message, beside those in oneofs. */
function hasTimes(message: DescMessage): boolean {
  let known = withTimes.get(message);
  if (known === undefined) {
    // As long as it is not known: it may be in itself.
    withTimes.set(message, false);
    known =
      message.typeName === timestampType ||
      message.fields.some(({ message: inner, oneof }) => oneof === undefined && inner !== undefined && hasTimes(inner));
    withTimes.set(message, known);
  }
  return known;
}

/** What callers know rules of buf.validate by, where that isn't the last part of their id. */
const ruleNames: Readonly<Record<string, string>> = {
  min_len: 'min_length',
  max_len: 'max_length',
  len: 'length',
  len_bytes: 'bytes',
  defined_only: 'enum',
  in: 'enum',
  not_in: 'not_enum',
  gt: 'above',
  gte: 'minimum',
  lt: 'below',
  lte: 'maximum',
  gt_now: 'future',
  lt_now: 'past',
};

/** The rule that an id of protovalidate stands for: `min_length` for `string.min_len`. */
function ruleOf(id: string): string {
  const name = id
    .slice(id.lastIndexOf('.') + 1)
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '_')
    // That of an empty text is the same as that of any other.
    .replace(/_empty$/, '');
  if (/^gte?_lte?(_|$)/.test(name)) return 'range';
  return ruleNames[name] ?? (name || 'invalid');
}

/**
 * The encoded message that JSON stands for (ProtoJSON, with names as in the proto).
 *
 * @throws Error that says for people what is wrong with it, by its type or by the rules in its proto
 */
export function encodeJson(typeName: string, json: unknown): Uint8Array {
  const message = registry.getMessage(typeName);
  if (message === undefined) throw new Error(`The descriptor set has no message ${typeName}`);
  const encoded = toBinary(message, fromJson(message, json as JsonValue, { registry }));
  const [wrong] = validate(message, encoded);
  if (wrong !== undefined) throw new Error(`${wrong.field} ${wrong.description}`.trim());
  return encoded;
}

type Lowered = Record<string, unknown>;

/**
 * Makes a function that puts every UUID of a decoded message into lower case, in place: fields with the rule
 * `string.uuid` are accepted in any case, and one spelling is kept. Undefined if the message has no such field.
 */
export function uuidLowering(message: DescMessage): ((decoded: object) => void) | undefined {
  const steps: ((decoded: Lowered) => void)[] = [];
  for (const field of message.fields) {
    const name = field.localName;
    if (hasUuidRule(field)) {
      steps.push((decoded) => {
        const value = decoded[name];
        if (typeof value === 'string') decoded[name] = value.toLowerCase();
        else if (Array.isArray(value)) decoded[name] = value.map((item: string) => item.toLowerCase());
      });
    } else if (field.fieldKind === 'message' && field.message !== message) {
      const inner = uuidLowering(field.message);
      if (inner !== undefined) {
        steps.push((decoded) => {
          const value = decoded[name];
          if (value !== undefined && value !== null) inner(value);
        });
      }
    }
  }
  if (steps.length === 0) return undefined;
  return (decoded) => {
    for (const step of steps) step(decoded as Lowered);
  };
}

interface RuleCase {
  case?: string;
  value?: { wellKnown?: { case?: string; value?: unknown }; items?: { type?: RuleCase } };
}

function hasUuidRule(field: DescField): boolean {
  const type = (getOption(field, fieldRules) as unknown as { type?: RuleCase }).type;
  const strings = type?.case === 'repeated' ? type.value?.items?.type : type;
  return strings?.case === 'string' && strings.value?.wellKnown?.case === 'uuid';
}

/**
 * The attributes of an RPC's spans, by OpenTelemetry's semantic conventions.
 *
 * @param name `<service>/<method>`
 */
export function rpcAttributes(name: string) {
  return { 'rpc.system.name': 'grpc', 'rpc.method': name };
}
