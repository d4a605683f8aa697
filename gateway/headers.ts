import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http';
import { Metadata } from '@grpc/grpc-js';
import type { Request } from 'express';
import { Problem } from './problem.ts';

const requestIdPattern = /^[A-Za-z0-9._:-]{1,128}$/;

/** The client's own request id if it is usable, else a new one. */
export function requestIdOf(headers: IncomingHttpHeaders): string {
  const given = headers['x-request-id'];
  return typeof given === 'string' && requestIdPattern.test(given) ? given : randomUUID();
}

const metadataPrefix = 'grpc-metadata-';
/** What the gateway itself says to backends, and a client can't say in its place. */
const reserved =
  /^(grpc-|authorization$|x-request-id$|x-forwarded-(for|host|proto)$|x-field-violations-bin$|x-body-hand-over$|content-type$|te$|user-agent$)/;

/** What a URL may have as its host and port. Any other text in a Host header is told to nobody. */
const hostPattern = /^([\w.-]{1,255}|\[[\da-f:.]{2,45}\])(:\d{1,5})?$/i;

/**
 * The metadata of a call: who calls, from where, to which address of ours, under which id, and whatever came as
 * `Grpc-Metadata-*`.
 */
export function metadataOf(request: Request, requestId: string): Metadata {
  const { headers, ip, protocol } = request;
  // Express leaves it out where HTTP/1.0 does.
  const host = request.host as string | undefined;
  const metadata = new Metadata();
  for (const name in headers) {
    if (!name.startsWith(metadataPrefix)) continue;
    const key = name.slice(metadataPrefix.length);
    const value = headers[name];
    if (typeof value !== 'string' || reserved.test(key)) continue;
    try {
      metadata.set(key, key.endsWith('-bin') ? Buffer.from(value, 'base64') : value);
    } catch {
      throw new Problem(400, 'MALFORMED_HEADER', `The header ${name} can't be passed on as gRPC metadata`);
    }
  }
  const { authorization } = headers;
  if (authorization !== undefined) {
    try {
      metadata.set('authorization', authorization);
    } catch {
      throw new Problem(401, 'MALFORMED_HEADER', 'The Authorization header has characters that are not ASCII');
    }
  }
  metadata.set('x-request-id', requestId);
  if (ip !== undefined) metadata.set('x-forwarded-for', ip);
  if (host !== undefined && hostPattern.test(host)) metadata.set('x-forwarded-host', host);
  // A proxy may have said anything.
  if (protocol === 'http' || protocol === 'https') metadata.set('x-forwarded-proto', protocol);
  return metadata;
}

const units: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** Milliseconds that a call may take: the client's Grpc-Timeout, but no longer than `longest`. */
export function timeoutOf(headers: IncomingHttpHeaders, longest: number): number {
  const given = headers['grpc-timeout'];
  if (given === undefined) return longest;
  const match = /^(\d{1,8})([HMSmun])$/.exec(String(given));
  if (match === null) {
    throw new Problem(
      400,
      'MALFORMED_HEADER',
      'The header Grpc-Timeout must be up to 8 digits and a unit, such as 500m or 10S',
    );
  }
  return Math.min(longest, Number(match[1]) * (units[match[2] as string] as number));
}

/** Metadata that says how a message or a body travels rather than something about it. */
const hopByHop = new Set(['content-type', 'date', 'trailer', 'x-body-location']);

/** The headers under which a backend's metadata is answered: `Grpc-Metadata-<key>`. */
export function headersOf(metadata: Metadata): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {};
  for (const key of Object.keys(metadata.getMap())) {
    if (key.startsWith('grpc-') || hopByHop.has(key)) continue;
    headers[`Grpc-Metadata-${key}`] = metadata
      .get(key)
      .map((value) => (typeof value === 'string' ? value : value.toString('base64')));
  }
  return headers;
}
