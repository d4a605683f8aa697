import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry } from '@bufbuild/protobuf';
import type { ServiceError } from '@grpc/grpc-js';
import { MethodOptions_IdempotencyLevel as Idempotency } from '@bufbuild/protobuf/wkt';
import type { Backend, Backends } from './backends.ts';
import type { Binding } from './bindings.ts';
import { isJson } from './body.ts';
import { answerDownload } from './download.ts';
import type { Dialect } from './dialect.ts';
import { Problem } from './problem.ts';
import { Reading } from './request-json.ts';
import type { Route } from './routes.ts';
import { Transcoder } from './transcode.ts';
import { answerCollected, answerStream, type StreamOptions } from './stream.ts';
import { answerUnary } from './unary.ts';
import { answerUpload } from './upload.ts';

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
  /** How long a client that sends a stream may send nothing, and one that is sent one take nothing, or too little of a body. */
  uploadIdle: number;
  downloadIdle: number;
  /** How many uploads and downloads may be under way at once. */
  streams: number;
}

/** The routes to RPCs. */
export function rpcRoutes(
  routes: readonly Route<Binding>[],
  registry: Registry,
  backends: Backends,
  limits: Limits,
  dialect: Dialect,
): Route<Handler>[] {
  const streams: Streams = { running: 0 };
  const context = { transcoder: new Transcoder(registry, dialect.json), backends, streams, limits, dialect };
  return endpointsOf(routes).map(({ route, json }) => {
    const { method, template } = route;
    const handler = handlerOf(route.target, context);
    if (json === undefined) return { method, template, target: handler };
    const ofJson = handlerOf(json.target, context);
    const target: Handler = (request, ...rest) =>
      (isJson(request.headers['content-type']) ? ofJson : handler)(request, ...rest);
    return { method, template, target };
  });
}

/** What is served at one method and path. */
export interface Endpoint {
  route: Route<Binding>;
  /** Of an upload the route that takes the requests with a JSON body, if there is one. */
  json: Route<Binding> | undefined;
}

/** The endpoints that routes make: an upload and the RPC for requests with a JSON body are one. */
export function endpointsOf(routes: readonly Route<Binding>[]): Endpoint[] {
  const endpoints = routes.map((route) => ({ route, json: jsonSibling(route, routes) }));
  const taken = new Set(endpoints.map(({ json }) => json));
  return endpoints.filter(({ route }) => !taken.has(route));
}

/** The longest that a request may take to arrive. */
export function longestUpload(routes: readonly Route<Binding>[], limits: Limits): number {
  const uploads = routes.filter(({ target }) => isUpload(target)).map(({ target }) => target.timeout ?? limits.timeout);
  return Math.max(limits.bodyTimeout, ...uploads);
}

function isUpload({ method, rawBody }: Binding): boolean {
  return rawBody !== undefined && method.methodKind === 'client_streaming';
}

/** Of an upload the route with the same method and path that takes the requests with a JSON body, if there is just one. */
function jsonSibling(route: Route<Binding>, routes: readonly Route<Binding>[]): Route<Binding> | undefined {
  if (!isUpload(route.target)) return undefined;
  const others = routes.filter(
    (other) => other !== route && other.method === route.method && other.template.text === route.template.text,
  );
  const [sibling] = others;
  const takesJson = sibling?.target.method.methodKind === 'unary' && sibling.target.body !== 'none';
  return others.length === 1 && takesJson ? sibling : undefined;
}

/** Uploads and downloads under way. */
interface Streams {
  running: number;
}

/** What all routes have in common. */
interface Context {
  transcoder: Transcoder;
  backends: Backends;
  streams: Streams;
  limits: Limits;
  dialect: Dialect;
}

function handlerOf(binding: Binding, context: Context): Handler {
  const { transcoder, backends, limits, dialect } = context;
  const { method, rawBody } = binding;
  const backend = backends.of(method.parent.typeName) as Backend;
  const common = { backend, binding, transcoder, dialect, timeout: binding.timeout ?? limits.timeout };
  const { bodyLimit, bodyTimeout } = limits;
  const body = { bodyLimit, bodyTimeout, isStrict: dialect.json.strict };
  if (method.methodKind === 'unary') {
    const isRepeatable = method.idempotency !== Idempotency.IDEMPOTENCY_UNKNOWN;
    const options = { ...common, ...body, isRepeatable };
    return (request, response, values, query) => answerUnary(request, response, values, query, options);
  }
  if (rawBody === undefined) {
    const options: StreamOptions = { ...common, ...body, idle: limits.downloadIdle, silence: limits.uploadIdle };
    if (method.methodKind === 'client_streaming') {
      return held(backend, context, (request, response) => answerCollected(request, response, options));
    }
    return held(backend, context, (request, response, values, query) =>
      answerStream(request, response, values, query, options),
    );
  }
  if (method.methodKind === 'client_streaming') {
    const options = { ...common, rawBody, idle: limits.uploadIdle };
    return held(backend, context, (request, response, values, query) =>
      answerUpload(request, response, values, query, options),
    );
  }
  const options = { ...common, rawBody, idle: limits.downloadIdle };
  return held(backend, context, (request, response, values, query) =>
    answerDownload(request, response, values, query, options),
  );
}

/** More than is under way can't be taken on. */
export function overloaded(): Problem {
  return new Problem(503, 'OVERLOADED', 'Too many requests at once: try again a little later', { retryAfter: 1 });
}

/** Lets a stream begin only if there is room for it, and once its backend is there: it can't begin again. */
function held({ streamCalls }: Backend, { streams, limits, dialect }: Context, handler: Handler): Handler {
  const begin: Handler = async (request, response, ...rest) => {
    await streamCalls.reached(Infinity).catch((error: ServiceError) => {
      throw dialect.refusal(error, new Reading(), new Map());
    });
    if (!response.destroyed) await handler(request, response, ...rest);
  };
  return async (...given) => {
    if (streams.running >= limits.streams) throw overloaded();
    streams.running += 1;
    try {
      await begin(...given);
    } finally {
      streams.running -= 1;
    }
  };
}
