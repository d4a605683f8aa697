import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import type { Registry } from '@bufbuild/protobuf';
import { status, type ServiceError } from '@grpc/grpc-js';
import { Status } from '#gen/google/rpc/status.ts';
import type { Dialect } from '../dialect.ts';
import { canonicalHeader } from '../../http/headers.ts';
import { addValue, AllowList, isText, type CallMetadata } from '../../grpc/metadata.ts';
import { fromForeign, Problem, problemJson, type ProblemForm } from '../../http/problem.ts';
import { ResponseJson } from '../../json/response-json.ts';

/** Headers that every backend is told under their own names, with `grpcgateway-` in front. */
const permanent = new Set([
  'accept',
  'accept-charset',
  'accept-language',
  'accept-ranges',
  'authorization',
  'cache-control',
  'content-type',
  'cookie',
  'date',
  'expect',
  'from',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-schedule-tag-match',
  'if-unmodified-since',
  'max-forwards',
  'origin',
  'pragma',
  'referer',
  'user-agent',
  'via',
  'warning',
]);
const prefix = { permanent: 'grpcgateway-', metadata: 'grpc-metadata-' } as const;
const allowed = new AllowList(/^(x-forwarded-(for|host)|grpcgateway-.*)$/, 'left out');

/** The metadata of a call, as grpc-gateway's runtime makes it of a request. @throws Problem 400 if some isn't base64 */
export function strictMetadata({ rawHeaders, socket }: IncomingMessage): CallMetadata {
  const metadata: CallMetadata = {};
  let host: string | undefined;
  let ownHost: string | undefined;
  const forwarded: string[] = [];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] as string).toLowerCase();
    const value = rawHeaders[at + 1] as string;
    if (name.startsWith(prefix.metadata)) {
      allowed.add(metadata, name.slice(prefix.metadata.length), value, name);
    } else if (permanent.has(name)) {
      if (!isText(value)) continue;
      if (name === 'authorization') addValue(metadata, name, value);
      addValue(metadata, prefix.permanent + name, value);
    } else if (name === 'host') {
      if (isText(value)) ownHost ??= value;
    } else if (name === 'x-forwarded-host') {
      if (isText(value)) host ??= value;
    } else if (name === 'x-forwarded-for') {
      if (isText(value)) forwarded.push(value);
    }
  }
  host = host || ownHost;
  if (host !== undefined && host !== '') metadata['x-forwarded-host'] = host;
  if (socket.remoteAddress !== undefined) forwarded.push(socket.remoteAddress.replace(/^::ffff:(?=\d+\.)/, ''));
  if (forwarded.length > 0) metadata['x-forwarded-for'] = forwarded.join(', ');
  return metadata;
}

/** In milliseconds. */
const units: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

function strictTimeout({ 'grpc-timeout': given }: IncomingHttpHeaders, longest: number): number {
  if (given === undefined || given === '') return longest;
  const match = /^(\d+)([HMSmun])$/.exec(String(given));
  if (match === null || BigInt(match[1] as string) >= 2n ** 64n) {
    throw new Problem(
      400,
      'MALFORMED_HEADER',
      'The header Grpc-Timeout must be a number and a unit, such as 500m or 10S',
    );
  }
  const timeout = Number(match[1]) * (units[match[2] as string] as number);
  return timeout === 0 ? longest : Math.min(longest, timeout);
}

const canonicals = new Map<string, string>();

/** A header's name as Go writes it. */
function canonical(key: string): string {
  let name = canonicals.get(key);
  if (name === undefined) {
    name = canonicalHeader(`grpc-metadata-${key}`);
    // Backends choose the keys, but few of them.
    if (canonicals.size < 1_000) canonicals.set(key, name);
  }
  return name;
}

/** Of these gRPC itself is made. */
const ofGrpc = new Set(['grpc-status', 'grpc-message', 'grpc-encoding', 'grpc-message-type', 'grpc-timeout', 'te']);

function strictHeaders(received: IncomingHttpHeaders): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {};
  for (const key in received) {
    const value = received[key];
    if (!key.startsWith(':') && !ofGrpc.has(key) && value !== undefined) headers[canonical(key)] = value;
  }
  return headers;
}

/** The status of gRPC for a request that is refused here, by that of HTTP. */
const ownCodes: Record<number, status> = {
  401: status.UNAUTHENTICATED,
  403: status.PERMISSION_DENIED,
  404: status.NOT_FOUND,
  408: status.DEADLINE_EXCEEDED,
  413: status.RESOURCE_EXHAUSTED,
  429: status.RESOURCE_EXHAUSTED,
  431: status.RESOURCE_EXHAUSTED,
  500: status.INTERNAL,
  501: status.UNIMPLEMENTED,
  502: status.UNAVAILABLE,
  503: status.UNAVAILABLE,
  504: status.DEADLINE_EXCEEDED,
};

/** Problems with the members of grpc-gateway's errors: `code`, a status of gRPC, `message` and `details`. */
export const grpcProblem: ProblemForm = {
  headersOf: (problem) => problemJson.headersOf(problem),
  bodyOf(problem, requestId) {
    const { message, extensions } = problem;
    const code = ownCodes[problem.status] ?? status.INVALID_ARGUMENT;
    return problem.body(requestId, { code, message, details: [], ...extensions });
  },
};

/**
 * As grpc-gateway's runtime does by default, save for the body of errors: those are problems (RFC 9457), which hold the
 * members of its errors, too.
 */
export function grpcGatewayDialect(registry: Registry, enumNames: 'short' | 'proto'): Dialect {
  const json = { strict: true, fieldNames: 'jsonName', enumNames, longs: 'text', unset: 'null' } as const;
  const responses = new ResponseJson(registry, json);
  return {
    json,
    metadataOf: strictMetadata,
    timeoutOf: strictTimeout,
    headersOf: strictHeaders,
    refusal(error) {
      const { headers = {} } = error as ServiceError & { headers?: IncomingHttpHeaders };
      return fromForeign(error, strictHeaders(headers), detailsOf(error, responses));
    },
  };
}

function detailsOf({ metadata }: ServiceError, responses: ResponseJson): unknown[] {
  const [encoded] = metadata.get('grpc-status-details-bin');
  if (!(encoded instanceof Buffer)) return [];
  try {
    return Status.decode(encoded).details.map(({ typeUrl, value }) => responses.any(typeUrl, value));
  } catch {
    return [];
  }
}
