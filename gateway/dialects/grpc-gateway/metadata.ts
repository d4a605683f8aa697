import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import type { CallMetadata } from '../../grpc/metadata.ts';
import { canonicalHeader } from '../../http/headers.ts';
import { Problem } from '../../http/problem.ts';
import { addValue, AllowList, isText } from '../allow-list.ts';

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
export function metadataOf({ rawHeaders, socket }: IncomingMessage): CallMetadata {
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

/** Milliseconds that a call may take: the client's Grpc-Timeout, but no longer than `maxMs`; 0 counts as none. */
export function timeoutOf({ 'grpc-timeout': given }: IncomingHttpHeaders, maxMs: number): number {
  if (given === undefined || given === '') return maxMs;
  const match = /^(\d+)([HMSmun])$/.exec(String(given));
  if (match === null || BigInt(match[1] as string) >= 2n ** 64n) {
    throw new Problem(
      400,
      'MALFORMED_HEADER',
      'The header Grpc-Timeout must be a number and a unit, such as 500m or 10S',
    );
  }
  const timeout = Number(match[1]) * (units[match[2] as string] as number);
  return timeout === 0 ? maxMs : Math.min(maxMs, timeout);
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

/** The headers under which a backend's metadata is answered: `Grpc-Metadata-<Key>`. */
export function headersOf(received: IncomingHttpHeaders): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {};
  for (const key in received) {
    const value = received[key];
    if (!key.startsWith(':') && !ofGrpc.has(key) && value !== undefined) headers[canonical(key)] = value;
  }
  return headers;
}
