import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import type { Registry } from '@bufbuild/protobuf';
import type { ServiceError } from '@grpc/grpc-js';
import { Status } from '#gen/google/rpc/status.ts';
import type { Dialect } from './dialect.ts';
import { canonicalHeader, keyPattern, valuePattern } from './headers.ts';
import { fromForeign, Problem } from './problem.ts';
import { ResponseJson } from './response-json.ts';
import type { CallMetadata } from './unary-peer.ts';

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
/** What the gateway itself or HTTP/2 says. */
const reserved = /^(x-forwarded-(for|host)|grpcgateway-.*|grpc-.*|content-type|te|user-agent|connection|host|:.*)$/;

/** The metadata of a call, as grpc-gateway's runtime makes it of a request. */
export function strictMetadata({ rawHeaders, socket }: IncomingMessage): CallMetadata {
  const metadata: CallMetadata = {};
  const add = (key: string, value: string) => {
    const known = metadata[key];
    metadata[key] = known === undefined ? value : [...(Array.isArray(known) ? known : [known]), value];
  };
  let host: string | undefined;
  let ownHost: string | undefined;
  const forwarded: string[] = [];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] as string).toLowerCase();
    const value = rawHeaders[at + 1] as string;
    const isText = valuePattern.test(value);
    if (permanent.has(name)) {
      if (!isText) continue;
      if (name === 'authorization') add(name, value);
      add(prefix.permanent + name, value);
    } else if (name === 'host') {
      if (isText) ownHost ??= value;
    } else if (name === 'x-forwarded-host') {
      if (isText) host ??= value;
    } else if (name === 'x-forwarded-for') {
      if (isText) forwarded.push(value);
    } else if (name.startsWith(prefix.metadata)) {
      const key = name.slice(prefix.metadata.length);
      if (reserved.test(key) || !keyPattern.test(key)) continue;
      if (key.endsWith('-bin')) add(key, binary(name, value));
      else if (isText) add(key, value);
    }
  }
  host = host || ownHost;
  if (host !== undefined && host !== '') metadata['x-forwarded-host'] = host;
  if (socket.remoteAddress !== undefined) forwarded.push(socket.remoteAddress.replace(/^::ffff:(?=\d+\.)/, ''));
  if (forwarded.length > 0) metadata['x-forwarded-for'] = forwarded.join(', ');
  return metadata;
}

function binary(name: string, value: string): string {
  const match = /^[A-Za-z0-9+/]*(={0,2})$/.exec(value);
  const isPadded = value.length % 4 === 0;
  if (match === null || (!isPadded && (match[1] !== '' || value.length % 4 === 1))) {
    throw new Problem(400, 'MALFORMED_HEADER', `The header ${name} must be base64`);
  }
  return value;
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

/**
 * As grpc-gateway's runtime does by default, save for the body of errors: those are problems (RFC 9457), which hold the
 * members of its errors, too.
 */
export function grpcGatewayDialect(registry: Registry, enumNames: 'short' | 'proto'): Dialect {
  const json = { strict: true, fieldNames: 'jsonName', enumNames, longs: 'text' } as const;
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
