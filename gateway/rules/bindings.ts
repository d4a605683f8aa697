import {
  getOption,
  hasOption,
  type DescExtension,
  type DescMethod,
  type DescService,
  type Message,
  type Registry,
} from '@bufbuild/protobuf';
import type { HttpRule } from './api-configuration.ts';
import { checkPrefixes, readAnswers, readCodes, type Answers, type KnownErrorOption } from './answer-styles.ts';
import {
  headersOf,
  isText,
  readEvents,
  readHeaders,
  readRawBody,
  type Events,
  type FieldOptions,
  type HeaderField,
  type HeaderOptions,
  type RawBody,
} from './stream-bindings.ts';
import { parseTemplate, RouteError, type Route, type Template } from './path-template.ts';
import { fieldsAt, messageType, type Field, type MessageType } from '../json/schema.ts';
import { fitsText, isPlainMessage } from '../json/well-known.ts';

/** A body of any media type, which is passed through unchanged. */
export const httpBody = 'google.api.HttpBody';
/** A whole HTTP request and a whole answer, as messages. */
const httpRequest = 'chat4all.http.v1.HttpRequest';
const httpResponse = 'chat4all.http.v1.HttpResponse';

/** How one HTTP rule maps onto an RPC. */
export interface Binding {
  method: DescMethod;
  /** `/package.Service/Method`, as gRPC calls it. */
  rpcPath: string;
  template: Template;
  input: MessageType;
  output: MessageType;
  /** The fields that the template's variables bind, each as its path from the request message. */
  variables: readonly (readonly Field[])[];
  /** What the HTTP body holds: the whole request, one field of it, or nothing. */
  body: 'all' | 'none' | Field;
  /** The path from the request message to the body field; empty if there is none. */
  bodyPath: readonly Field[];
  /** The field that is the HTTP response in place of the whole message. */
  responseBody: Field | undefined;
  /** The field mask that a PATCH of one field fills with the names in its body, unless the client gives one. */
  updateMask: Field | undefined;
  /** The HTTP body that travels as the RPC's stream, if it does. */
  rawBody: RawBody | undefined;
  /** How streamed messages become server-sent events, if they do. */
  events: Events | undefined;
  /** Whether the arrays in `responseBody` of all streamed messages are joined to one array. */
  isJoined: boolean;
  /** Whether the request and its answer travel as a whole (chat4all.http.v1). */
  isWholeHttp: boolean;
  /** Whether a call stays open for long, with next to nothing to do. */
  isStanding: boolean;
  /** Request headers that set fields of the request, unless it sets them otherwise; including those of a raw body. */
  requestHeaders: readonly HeaderField[];
  /** Whether the backend checks the owner of the path, and that what it names exists, before it reports errors in the body. */
  namesCaller: boolean;
  /** The HTTP status of a success. */
  successStatus: number;
  /** The HTTP status of errors that have one of their own, by their reason. */
  errorStatuses: ReadonlyMap<string, number>;
  /** The style of its service's answers, if not the default. */
  answers: Answers | undefined;
  /** The codes of its service's errors in envelopes, by reason; undefined for an RPC without envelope. */
  errorCodes: ReadonlyMap<string, string> | undefined;
  /** Whether unknown members of a JSON body are an error. */
  knownFieldsOnly: boolean;
  /** The operationId in OpenAPI: the RPC's name, unless its proto has another. */
  operationId: string;
  /** The timeout of a call in milliseconds, if not the default. */
  timeout: number | undefined;
  /**
   * Whether the method's server takes notice of `x-field-violations-bin`: those that state an access rule of ours do.
   * Only such a method may be called with a request that is known to be wrong.
   */
  reportsViolations: boolean;
}

/** The options of a method that apply to all its HTTP rules. */
type MethodOptions = Pick<
  Binding,
  | 'successStatus'
  | 'errorStatuses'
  | 'answers'
  | 'errorCodes'
  | 'knownFieldsOnly'
  | 'operationId'
  | 'timeout'
  | 'reportsViolations'
  | 'isJoined'
  | 'isWholeHttp'
  | 'isStanding'
  | 'namesCaller'
>;

/** chat4all.options.v1.HttpError, shown like that. */
interface HttpErrorOption extends Message {
  reason: string;
  status: number;
  code: string;
}

function httpRules(rule: HttpRule): HttpRule[] {
  return [rule, ...rule.additionalBindings];
}

/** The differences between dialects in HTTP rules. */
export interface RuleConventions {
  /** Finds an option of chat4all.options.v1; undefined in a dialect without them. */
  hubOption(registry: Registry, name: string): DescExtension | undefined;
  /** Whether a path variable may be a list, with its items separated by commas. */
  takesListsInPaths: boolean;
  /** Whether the body may be a field of a field. */
  takesNestedBodies: boolean;
  /** Chooses the field mask for the names in the body of a PATCH among those of the request. */
  updateMask(masks: readonly Field[]): Field | undefined;
}

export interface RuleOptions {
  /** Called for an unusable rule, which is then left out. By default the error is thrown. */
  onUnusable?: (error: RouteError) => void;
  /** Rules from outside the protos, by the full names of their methods. They precede those in the protos. */
  rules?: ReadonlyMap<string, readonly HttpRule[]>;
}

/**
 * The routes of every RPC that `serves` says yes to and that has an HTTP rule.
 *
 * @throws RouteError if a rule is not usable: it names the method
 */
export function readRoutes(
  registry: Registry,
  serves: (service: string) => boolean,
  conventions: RuleConventions,
  { onUnusable, rules }: RuleOptions = {},
): Route<Binding>[] {
  const http = registry.getExtension('google.api.http');
  const ours = (name: string) => conventions.hubOption(registry, name);
  if (http === undefined) return [];
  const routes: Route<Binding>[] = [];
  for (const service of registry) {
    if (service.kind !== 'service' || !serves(service.typeName)) continue;
    const answers = readAnswers(service, ours('answers'));
    const ofService = answers && (optionOf(service, ours('known_errors')) as KnownErrorOption[] | undefined);
    for (const method of service.methods) {
      const own = hasOption(method, http) ? [getOption(method, http) as unknown as HttpRule] : [];
      const given = [...(rules?.get(`${service.typeName}.${method.name}`) ?? []), ...own];
      if (given.length === 0) continue;
      const timeout = optionOf(method, ours('timeout_seconds')) as number | undefined;
      const errors = (optionOf(method, ours('http_errors')) ?? []) as HttpErrorOption[];
      const options = {
        successStatus: (optionOf(method, ours('http_success_status')) as number | undefined) ?? 200,
        errorStatuses: new Map(
          errors.filter(({ status }) => status !== 0).map(({ reason, status }) => [reason, status]),
        ),
        answers,
        errorCodes: readCodes(method, answers, ofService ?? [], errors),
        operationId: (optionOf(method, ours('operation_id')) as string | undefined) || method.localName,
        knownFieldsOnly: optionOf(method, ours('known_fields_only')) === true,
        timeout: timeout === undefined ? undefined : timeout * 1_000,
        reportsViolations: optionOf(method, ours('access')) !== undefined,
        isJoined: optionOf(method, ours('joined_array')) === true,
        isWholeHttp: optionOf(method, ours('whole_http')) === true,
        isStanding: optionOf(method, ours('standing')) === true,
        namesCaller: optionOf(method, ours('caller_field')) !== undefined,
      };
      const ofFields: FieldOptions = {
        raw: optionOf(method, ours('raw_body')) as FieldOptions['raw'],
        events: optionOf(method, ours('events')) as FieldOptions['events'],
        requestHeaders: (optionOf(method, ours('request_headers')) ?? []) as HeaderOptions,
      };
      for (const rule of given.flatMap(httpRules)) {
        try {
          routes.push(readRule(method, rule, options, ofFields, conventions));
        } catch (error) {
          if (onUnusable === undefined || !(error instanceof RouteError)) throw error;
          onUnusable(error);
        }
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
  { raw, events, requestHeaders }: FieldOptions,
  conventions: RuleConventions,
): Route<Binding> {
  const name = `${method.parent.typeName}.${method.name}`;
  const fail = (what: string) => new RouteError(`The HTTP rule of ${name} ${what}`);
  const { pattern } = rule;
  if (pattern.case === undefined || pattern.value === undefined) throw fail('has no path');
  const custom = typeof pattern.value === 'string' ? undefined : pattern.value;
  const template = templateOf(custom?.path ?? (pattern.value as string), fail);
  const input = messageType(method.input);
  const output = messageType(method.output);
  for (const status of options.errorStatuses.values()) {
    if (status < 400 || status > 599) throw fail(`has ${status} as the HTTP status of an error`);
  }

  if (options.isWholeHttp) requireWholeHttp(method, fail);
  const variables = (options.isWholeHttp ? [] : template.variables).map(({ path }) => {
    const fields = fieldsAt(input, path);
    const field = fields?.at(-1);
    const isList = conventions.takesListsInPaths && field?.shape === 'list' && fitsText(field.value);
    if (fields === undefined || !(isText(field) || isList)) {
      throw fail(`binds ${path.join('.')}, which is no single value of ${input.typeName}`);
    }
    return fields;
  });
  const named = (message: MessageType, field: string) => {
    const found = message.fields.find((candidate) => candidate.name === field);
    if (found === undefined) throw fail(`names ${field}, which is no field of ${message.typeName}`);
    return found;
  };
  const responseBody = rule.responseBody === '' ? undefined : named(output, rule.responseBody);
  if (options.isJoined && (method.methodKind !== 'server_streaming' || responseBody?.shape !== 'list')) {
    throw fail('has joined arrays, for which it must be a stream with a list as its response_body');
  }
  const bodyPath = rule.body === '' || rule.body === '*' ? [] : fieldsAt(input, rule.body.split('.'));
  if (bodyPath === undefined || (bodyPath.length > 1 && !conventions.takesNestedBodies)) {
    throw fail(`has ${rule.body} as its body, which is no field of ${input.typeName}`);
  }
  const body = rule.body === '' ? 'none' : (bodyPath.at(-1) ?? 'all');
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
      bodyPath,
      updateMask:
        pattern.case === 'patch' && typeof body === 'object'
          ? conventions.updateMask(masksFor(input, body))
          : undefined,
      responseBody,
      rawBody: raw === undefined ? undefined : readRawBody(method, rule, raw, fail),
      events: events === undefined ? undefined : readEvents(method, events, fail),
      requestHeaders: readHeaders(input, headersOf(raw, events, requestHeaders), fail),
      ...options,
    },
  };
}

/** Parses a template; an error names its method. */
function templateOf(text: string, fail: (what: string) => RouteError): Template {
  try {
    return parseTemplate(text);
  } catch (error) {
    if (!(error instanceof RouteError)) throw error;
    throw fail(`is not usable: ${error.message}`);
  }
}

function requireWholeHttp({ methodKind, input, output }: DescMethod, fail: (what: string) => RouteError): void {
  const isRight = input.typeName === httpRequest && output.typeName === httpResponse;
  if (isRight && methodKind === 'server_streaming') return;
  throw fail(`takes whole HTTP requests, for which it must take ${httpRequest} and stream ${httpResponse}`);
}

/** The field masks of a request whose body is that field; none if the body has no fields that a mask could name. */
function masksFor(input: MessageType, body: Field): Field[] {
  if (!isPlainMessage(body)) return [];
  return input.fields.filter(
    ({ shape, value }) =>
      shape === 'single' && value.kind === 'message' && value.message.typeName === 'google.protobuf.FieldMask',
  );
}

/** Whether a field is given by the path, the body or a header, and so not by the query. */
export function isOutsideQuery(
  { body, variables, rawBody, requestHeaders }: Binding,
  fields: readonly Field[],
): boolean {
  if (fields[0] === body) return true;
  if (rawBody !== undefined && requestHeaders.some(({ field }) => field === fields[0])) return true;
  return variables.some((bound) => bound.length === fields.length && bound.every((field, at) => field === fields[at]));
}
