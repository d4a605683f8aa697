import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry } from '@bufbuild/protobuf';
import type { ServiceError } from '@grpc/grpc-js';
import { MethodOptions_IdempotencyLevel as Idempotency } from '@bufbuild/protobuf/wkt';
import type { RateFloorOptions } from '#lib/rate-floor.ts';
import type { Admission } from '../http/admission.ts';
import type { Backend, Backends } from '../grpc/backends.ts';
import { othersBelow, styledPaths } from '../rules/answer-styles.ts';
import type { Binding } from '../rules/bindings.ts';
import { endpointsOf, isUpload } from '../rules/endpoints.ts';
import { isJson } from '../http/media-type.ts';
import { answerDownload } from './download.ts';
import type { Dialect } from '../dialects/dialect.ts';
import { Envelope } from './envelope.ts';
import { answerEvents, isStatus, SharedTexts } from './server-sent-events.ts';
import { answerJoinedArray } from './joined-array.ts';
import type { ErrorForms } from '../dialects/errors.ts';
import { problemFormOf } from './problem-forms.ts';
import { Reading } from '../json/reading.ts';
import type { Route } from '../rules/path-template.ts';
import type { ServiceRoute } from '../dialects/grpc-gateway/route-table.ts';
import { answerCollected, answerStream, type StreamOptions } from './stream.ts';
import { answerUnary, requireConditions, type UnaryOptions } from './unary.ts';
import { answerUpload } from './upload.ts';
import { answerWhole } from './whole-http.ts';

/** Answers a request to a route, or throws a Problem. */
export type Handler = (
  request: IncomingMessage,
  response: ServerResponse,
  values: readonly string[],
  query: string,
) => Promise<void> | void;

/** What calls may take, in milliseconds and bytes. */
export interface Limits {
  /** How long a call may take whose RPC says nothing of it. */
  timeout: number;
  /** Bytes that a JSON body may have, and how long it may take to arrive. */
  bodyLimit: number;
  bodyTimeout: number;
  /** How fast bodies have to come. */
  floor: RateFloorOptions;
  /** How long a client that sends a stream of messages may send none, unless it is answered meanwhile. */
  silence: number;
  /** How long a client that is sent a body may take too little of it. */
  downloadIdle: number;
  /** How often a client that waits for events is told that the connection is alive. */
  heartbeat: number;
}

/** The routes to RPCs. */
export function rpcRoutes(
  routes: readonly Route<Binding>[],
  registry: Registry,
  backends: Backends,
  limits: Limits,
  admission: Admission,
  dialect: Dialect,
): ServiceRoute<Handler>[] {
  const envelope = new Envelope(registry, dialect.json);
  const context = { envelope, backends, admission, limits, dialect };
  const paths = styledPaths(routes);
  return endpointsOf(routes).map(({ route, json, lookup }) => {
    const { method, template } = route;
    const service = route.target.method.parent.typeName;
    const except = othersBelow(route.target, paths);
    const handler = conditional(lookup, context, handlerOf(route.target, context));
    if (json === undefined) return { service, method, template, except, target: handler };
    const ofJson = handlerOf(json.target, context);
    const target: Handler = (request, ...rest) =>
      (isJson(request.headers['content-type']) ? ofJson : handler)(request, ...rest);
    return { service, method, template, except, target };
  });
}

/** The longest that a request may take to arrive. */
export function maxUploadMs(routes: readonly Route<Binding>[], limits: Limits): number {
  const uploads = routes.filter(({ target }) => isUpload(target)).map(({ target }) => target.timeout ?? limits.timeout);
  return Math.max(limits.bodyTimeout, ...uploads);
}

/** What all routes have in common. */
interface Context {
  envelope: Envelope;
  backends: Backends;
  admission: Admission;
  limits: Limits;
  dialect: Dialect;
}

function optionsOf(binding: Binding, context: Context) {
  const { backends, admission, limits, dialect } = context;
  const backend = backends.of(binding.method.parent.typeName) as Backend;
  const envelope = binding.answers?.style === 'envelope' ? context.envelope : undefined;
  const form = problemFormOf(binding);
  const common = { backend, binding, dialect, envelope, form, timeout: binding.timeout ?? limits.timeout };
  const { bodyLimit, bodyTimeout, floor } = limits;
  return { common, body: { bodyLimit, bodyTimeout, floor, admission }, backend };
}

function unaryOptions(binding: Binding, context: Context): UnaryOptions {
  const { common, body } = optionsOf(binding, context);
  return { ...common, ...body, isRepeatable: binding.method.idempotency !== Idempotency.IDEMPOTENCY_UNKNOWN };
}

function handlerOf(binding: Binding, context: Context): Handler {
  const { limits } = context;
  const { method, rawBody } = binding;
  const { common, body, backend } = optionsOf(binding, context);
  const { floor, silence, heartbeat } = limits;
  if (method.methodKind === 'unary') {
    const options = unaryOptions(binding, context);
    return (request, response, values, query) => answerUnary(request, response, values, query, options);
  }
  const enter = entrance(backend, context, binding);
  if (rawBody === undefined) {
    const options: StreamOptions = { ...common, ...body, enter, silence, heartbeat };
    const { events } = binding;
    if (events !== undefined) {
      // Only where errors are not among the messages, since they are told each client in its own way.
      const isSame = binding.isStanding && ![...events.members.values()].some(isStatus);
      const shared = isSame ? { events: new SharedTexts(), lines: new SharedTexts() } : undefined;
      const ofEvents = { ...options, events, shared };
      return (request, response, values, query) => answerEvents(request, response, values, query, ofEvents);
    }
    if (binding.isWholeHttp) return (request, response) => answerWhole(request, response, options);
    if (binding.isJoined) {
      return (request, response, values, query) => answerJoinedArray(request, response, values, query, options);
    }
    if (method.methodKind === 'client_streaming') {
      return (request, response) => answerCollected(request, response, options);
    }
    return (request, response, values, query) => answerStream(request, response, values, query, options);
  }
  const entering = (answer: Handler): Handler => {
    return async (request, response, ...rest) => {
      await enter(request, response);
      if (!response.destroyed) await answer(request, response, ...rest);
    };
  };
  if (method.methodKind === 'client_streaming') {
    const options = { ...common, rawBody, floor };
    return entering((request, response, values, query) => answerUpload(request, response, values, query, options));
  }
  const options = { ...common, rawBody, idle: limits.downloadIdle };
  return entering((request, response, values, query) => answerDownload(request, response, values, query, options));
}

/** Heeds the conditions of requests that change what a GET of the same path is answered with. */
function conditional(lookup: Binding | undefined, context: Context, handler: Handler): Handler {
  if (lookup === undefined || !context.dialect.answers.hasEntityTags) return handler;
  const options = unaryOptions(lookup, context);
  return async (request, response, values, query) => {
    await requireConditions(request, response, values, options);
    if (!response.destroyed) await handler(request, response, values, query);
  };
}

const noForms: ErrorForms = { errorStatuses: new Map(), errorCodes: undefined };

/** Lets a stream begin only if there is room for it, and once its backend is there: it can't begin again. */
function entrance(
  { streamCalls, messageCalls }: Backend,
  { admission, dialect }: Context,
  { isStanding, events, isWholeHttp, isJoined }: Binding,
): StreamOptions['enter'] {
  // What `passOn` calls.
  const calls = events !== undefined || isWholeHttp || isJoined ? messageCalls : streamCalls;
  return async (request, response) => {
    if (isStanding) admission.standing(request, response);
    else admission.stream(request, response);
    await calls.reached(Infinity).catch((error: ServiceError) => {
      throw dialect.problemOf(error, new Reading(), noForms);
    });
  };
}
