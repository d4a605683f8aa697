import {
  getOption,
  hasOption,
  ScalarType,
  type DescExtension,
  type DescField,
  type DescMethod,
  type DescService,
  type Message,
  type Registry,
} from '@bufbuild/protobuf';
import { checkPrefixes, readAnswers, readCodes, type Answers, type KnownErrorOption } from './answers.ts';
import { fitsText, isPlainMessage } from './request-json.ts';
import { parseTemplate, RouteError, type Route, type Template } from './routes.ts';
import { fieldsAt, messageType, type Field, type MessageType } from './schema.ts';

/** How one HTTP rule maps onto an RPC. */
export interface Binding {
  method: DescMethod;
  /** `/package.Service/Method`, as gRPC calls it. */
  rpcPath: string;
  template: Template;
  input: MessageType;
  output: MessageType;
  /** The fields that the template's variables bind, each as the way down from the request message. */
  variables: readonly (readonly Field[])[];
  /** What the HTTP body holds: the whole request, one field of it, or nothing. */
  body: 'all' | 'none' | Field;
  /** The field that is answered in place of the whole response. */
  responseBody: Field | undefined;
  /** The field mask that a PATCH of one field fills with the names in its body, unless the client gives one. */
  updateMask: Field | undefined;
  /** The HTTP body that travels as the RPC's stream, if it does. */
  rawBody: RawBody | undefined;
  /** The HTTP status of a success. */
  successStatus: number;
  /** The HTTP status of errors that have one of their own, by their reason. */
  errorStatuses: ReadonlyMap<string, number>;
  /** How its service wants answers to look, if not like all others. */
  answers: Answers | undefined;
  /** The codes under which an envelope tells the errors of its service, by their reason; undefined for an RPC without one. */
  errorCodes: ReadonlyMap<string, string> | undefined;
  /** Whether a member of a JSON body which is no field of the request is wrong. */
  knownFieldsOnly: boolean;
  /** Milliseconds that a call may take, where that isn't what all others may. */
  timeout: number | undefined;
  /**
   * Whether the method's server takes notice of `x-field-violations-bin`: those that state an access rule of ours do.
   * Only such a method may be called with a request that is known to be wrong.
   */
  reportsViolations: boolean;
}

/** A field that travels as an HTTP header. */
export interface HeaderField {
  /** In lower case. */
  header: string;
  field: Field;
}

/** How an HTTP body travels as the stream of an RPC. */
export interface RawBody {
  /** The field that holds a piece of it. */
  bytes: DescField;
  /** What headers say to the first message that is sent. */
  requestHeaders: readonly HeaderField[];
  /** What the first message that comes back says in headers. */
  responseHeaders: readonly HeaderField[];
}

/** The options of a method, as far as they are the same for all its HTTP rules. */
type MethodOptions = Pick<
  Binding,
  'successStatus' | 'errorStatuses' | 'answers' | 'errorCodes' | 'knownFieldsOnly' | 'timeout' | 'reportsViolations'
>;

/** The HttpRule of google.api.http, as protobuf-es shows it when it only has the descriptor. */
interface HttpRule extends Message {
  pattern: { case?: string; value?: string | { kind: string; path: string } };
  body: string;
  responseBody: string;
  additionalBindings: HttpRule[];
}

type HeaderOptions = readonly { header: string; field: string }[];

/** chat4all.options.v1.RawBody, shown like that. */
interface RawBodyOption extends Message {
  requestHeaders: HeaderOptions;
  responseHeaders: HeaderOptions;
}

/** chat4all.options.v1.HttpError, shown like that. */
interface HttpErrorOption extends Message {
  reason: string;
  status: number;
  code: string;
}

function httpRules(rule: HttpRule): HttpRule[] {
  return [rule, ...rule.additionalBindings];
}

/**
 * The routes of every RPC that `serves` says yes to and that has an HTTP rule.
 *
 * @param isStrict whether to read rules as grpc-gateway does, which knows no options of ours
 *
 * @throws RouteError if a rule is not usable
 */
export function readRoutes(
  registry: Registry,
  serves: (service: string) => boolean,
  isStrict = false,
): Route<Binding>[] {
  const http = registry.getExtension('google.api.http');
  const ours = (name: string) => (isStrict ? undefined : registry.getExtension(`chat4all.options.v1.${name}`));
  const rawBody = ours('raw_body');
  if (http === undefined) return [];
  const routes: Route<Binding>[] = [];
  for (const service of registry) {
    if (service.kind !== 'service' || !serves(service.typeName)) continue;
    const answers = readAnswers(service, ours('answers'));
    const ofService = answers && (optionOf(service, ours('known_errors')) as KnownErrorOption[] | undefined);
    for (const method of service.methods) {
      if (!hasOption(method, http)) continue;
      const timeout = optionOf(method, ours('timeout_seconds')) as number | undefined;
      const errors = (optionOf(method, ours('http_errors')) ?? []) as HttpErrorOption[];
      const options = {
        successStatus: (optionOf(method, ours('http_success_status')) as number | undefined) ?? 200,
        errorStatuses: new Map(
          errors.filter(({ status }) => status !== 0).map(({ reason, status }) => [reason, status]),
        ),
        answers,
        errorCodes: readCodes(method, answers, ofService ?? [], errors),
        knownFieldsOnly: optionOf(method, ours('known_fields_only')) === true,
        timeout: timeout === undefined ? undefined : timeout * 1_000,
        reportsViolations: optionOf(method, ours('access')) !== undefined,
      };
      const raw = optionOf(method, rawBody) as RawBodyOption | undefined;
      for (const rule of httpRules(getOption(method, http) as unknown as HttpRule)) {
        routes.push(readRule(method, rule, options, raw, isStrict));
      }
    }
  }
  checkPrefixes(routes);
  return routes;
}

function optionOf(of: DescMethod | DescService, extension: DescExtension | undefined): unknown {
  return extension !== undefined && hasOption(of, extension) ? getOption(of, extension) : undefined;
}

function readRule(
  method: DescMethod,
  rule: HttpRule,
  options: MethodOptions,
  raw: RawBodyOption | undefined,
  isStrict: boolean,
): Route<Binding> {
  const name = `${method.parent.typeName}.${method.name}`;
  const fail = (what: string) => new RouteError(`The HTTP rule of ${name} ${what}`);
  const { pattern } = rule;
  if (pattern.case === undefined || pattern.value === undefined) throw fail('has no path');
  const custom = typeof pattern.value === 'string' ? undefined : pattern.value;
  const template = parseTemplate(custom?.path ?? (pattern.value as string));
  const input = messageType(method.input);
  const output = messageType(method.output);
  for (const status of options.errorStatuses.values()) {
    if (status < 400 || status > 599) throw fail(`has ${status} as the HTTP status of an error`);
  }

  const variables = template.variables.map(({ path }) => {
    const fields = fieldsAt(input, path);
    if (fields === undefined || !isText(fields.at(-1))) {
      throw fail(`binds ${path.join('.')}, which is no single value of ${input.typeName}`);
    }
    return fields;
  });
  const named = (message: MessageType, field: string) => {
    const found = message.fields.find((candidate) => candidate.name === field);
    if (found === undefined) throw fail(`names ${field}, which is no field of ${message.typeName}`);
    return found;
  };
  const body = rule.body === '' ? 'none' : rule.body === '*' ? 'all' : named(input, rule.body);
  return {
    method: custom?.kind ?? pattern.case.toUpperCase(),
    template,
    target: {
      method,
      rpcPath: `/${method.parent.typeName}/${method.name}`,
      template,
      input,
      output,
      variables,
      body,
      updateMask:
        pattern.case === 'patch' && typeof body === 'object' ? updateMaskOf(input, body, isStrict) : undefined,
      responseBody: rule.responseBody === '' ? undefined : named(output, rule.responseBody),
      rawBody: raw === undefined ? undefined : readRawBody(method, rule, raw, fail),
      ...options,
    },
  };
}

function readRawBody(
  method: DescMethod,
  rule: HttpRule,
  raw: RawBodyOption,
  fail: (what: string) => RouteError,
): RawBody {
  const { methodKind, input, output } = method;
  const [message, name] = methodKind === 'client_streaming' ? [input, rule.body] : [output, rule.responseBody];
  const bytes = message.fields.find((field) => field.name === name);
  if (methodKind !== 'client_streaming' && methodKind !== 'server_streaming') {
    throw fail('has a raw body, for which it must be a stream in one direction');
  }
  if (bytes?.fieldKind !== 'scalar' || bytes.scalar !== ScalarType.BYTES) {
    throw fail(`has a raw body, but ${name || 'nothing'} as its body, which is no field of bytes`);
  }
  const headersOf = (type: MessageType, headers: HeaderOptions) =>
    headers.map(({ header, field: path }) => {
      const field = type.fields.find((candidate) => candidate.name === path);
      if (field === undefined || !isText(field) || !/^[a-z\d-]+$/.test(header)) {
        throw fail(`has the header ${header} for ${path}, which is no single value of ${type.typeName}`);
      }
      return { header, field };
    });
  return {
    bytes,
    requestHeaders: headersOf(messageType(input), raw.requestHeaders),
    responseHeaders: headersOf(messageType(output), raw.responseHeaders),
  };
}

/** Whether a field is a single value that may be given as text. */
function isText(field: Field | undefined): boolean {
  return field?.shape === 'single' && fitsText(field.value);
}

/** The field mask that is called update_mask, or else the only one. */
function updateMaskOf(input: MessageType, body: Field, isStrict: boolean): Field | undefined {
  if (!isPlainMessage(body)) return undefined;
  const masks = input.fields.filter(
    ({ shape, value }) =>
      shape === 'single' && value.kind === 'message' && value.message.typeName === 'google.protobuf.FieldMask',
  );
  const called = isStrict ? undefined : masks.find(({ name }) => name === 'update_mask');
  return called ?? (masks.length === 1 ? masks[0] : undefined);
}
