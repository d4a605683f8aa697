import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import type { Request } from 'express';
import { wideTrailersKey } from '#lib/rpc/status.ts';
import { currentTraceparent } from '#lib/tracing.ts';
import { credentialsOf } from '../../http/credentials.ts';
import { Problem } from '../../http/problem.ts';
import type { CallMetadata } from '../../grpc/metadata.ts';
import { AllowList, isText } from '../allow-list.ts';

const metadataPrefix = 'grpc-metadata-';
/** Metadata that only the gateway itself sends to backends. */
const allowed = new AllowList(
  /^(authorization|x-api-key|x-request-id|x-forwarded-(for|host|proto)|x-field-violations-bin|x-body-hand-over|x-head-only|x-wide-trailers|traceparent)$/,
  'refused',
);

/** The host and port of a URL. Any other text in a Host header is not passed on. */
const hostPattern = /^([\w.-]{1,255}|\[[\da-f:.]{2,45}\])(:\d{1,5})?$/i;

/**
 * The metadata of a call: who calls, from where, to which address of ours, under which id, and whatever came as
 * `Grpc-Metadata-*`.
 */
export function metadataOf(request: IncomingMessage, requestId: string): CallMetadata {
  const { headers, ip, protocol } = request as Request;
  // Express leaves it out where HTTP/1.0 does.
  const host = (request as Request).host as string | undefined;
  const metadata: CallMetadata = {};
  for (const name in headers) {
    if (!name.startsWith(metadataPrefix)) continue;
    const key = name.slice(metadataPrefix.length);
    // Node joins what comes several times, and what is empty there leaves a space.
    const value = (headers[name] as string).trim();
    if (!key.endsWith('-bin')) allowed.add(metadata, key, value, name);
    else for (const part of value.split(',')) allowed.add(metadata, key, part.trim(), name);
  }
  const { authorization, apiKey } = credentialsOf(headers);
  if (authorization !== undefined) metadata['authorization'] = credential('Authorization', authorization);
  if (apiKey !== undefined) metadata['x-api-key'] = credential('X-API-Key', apiKey);
  metadata['x-request-id'] = requestId;
  metadata[wideTrailersKey] = '1';
  const traceparent = currentTraceparent();
  if (traceparent !== undefined) metadata['traceparent'] = traceparent;
  // X-Forwarded-For of a trusted proxy may hold any text.
  if (ip !== undefined && isIP(ip) !== 0) metadata['x-forwarded-for'] = ip;
  if (host !== undefined && hostPattern.test(host)) metadata['x-forwarded-host'] = host;
  if (protocol === 'http' || protocol === 'https') metadata['x-forwarded-proto'] = protocol;
  return metadata;
}

/** @throws Problem 401 if it can't be passed on */
function credential(header: string, value: string): string {
  if (isText(value)) return value;
  throw new Problem(401, 'MALFORMED_HEADER', `The ${header} header has characters that are not printable ASCII`);
}

const units: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** Milliseconds that a call may take: the client's Grpc-Timeout, but no longer than `maxMs`. */
export function timeoutOf(headers: IncomingHttpHeaders, maxMs: number): number {
  const given = headers['grpc-timeout'];
  if (given === undefined) return maxMs;
  const match = /^(\d{1,8})([HMSmun])$/.exec(String(given));
  if (match === null) {
    throw new Problem(
      400,
      'MALFORMED_HEADER',
      'The header Grpc-Timeout must be up to 8 digits and a unit, such as 500m or 10S',
    );
  }
  return Math.min(maxMs, Number(match[1]) * (units[match[2] as string] as number));
}

/** Metadata about the transport, which is not passed on to clients. */
const hopByHop = new Set(['content-type', 'date', 'trailer', 'x-body-location', 'x-request-id']);

/** The headers under which a backend's metadata is answered: `Grpc-Metadata-<key>`. */
export function headersOf(metadata: IncomingHttpHeaders): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {};
  for (const key in metadata) {
    const value = metadata[key];
    if (key.startsWith(':') || key.startsWith('grpc-') || hopByHop.has(key) || value === undefined) continue;
    headers[`Grpc-Metadata-${key}`] = value;
  }
  return headers;
}
