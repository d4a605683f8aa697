import { createHash, createHmac } from 'node:crypto';
import { hubDate } from '#lib/clock.ts';

/** Keys of an account of the store. */
export interface Credentials {
  accessKey: string;
  secretKey: string;
  /** Only temporary credentials have one. */
  sessionToken?: string;
}

/** What is signed for: `s3`, or `sts`, which gives out temporary credentials. */
export interface SigningScope {
  region: string;
  service: 's3' | 'sts';
}

const algorithm = 'AWS4-HMAC-SHA256';

/** In place of the digest, if the body is not signed. */
const unsignedPayload = 'UNSIGNED-PAYLOAD';

/**
 * Signs a request (AWS Signature Version 4, https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html). All headers in
 * `given`, with names in lower case, are signed; the body is signed if it is given.
 *
 * @returns all headers of the request, including `given` and authorization
 */
export function authorize(
  method: string,
  url: URL,
  given: Readonly<Record<string, string>>,
  credentials: Credentials,
  scope: SigningScope,
  body?: string,
): Record<string, string> {
  const at = timestamp();
  const digest = body === undefined ? unsignedPayload : createHash('sha256').update(body).digest('hex');
  const headers: Record<string, string> = {
    ...given,
    host: url.host,
    'x-amz-date': at,
    'x-amz-content-sha256': digest,
  };
  if (credentials.sessionToken !== undefined) headers['x-amz-security-token'] = credentials.sessionToken;
  const signed = Object.keys(headers).toSorted().join(';');
  const signature = sign(method, url, headers, digest, at, credentials, scope);
  const credential = `${credentials.accessKey}/${scopeText(at, scope)}`;
  headers['authorization'] = `${algorithm} Credential=${credential}, SignedHeaders=${signed}, Signature=${signature}`;
  return headers;
}

/**
 * Makes a presigned URL, valid for `lifetime` seconds, for requests with exactly this method, path, query and `required` headers; other
 * headers are free (https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).
 */
export function presign(
  method: string,
  url: URL,
  required: Readonly<Record<string, string>>,
  credentials: Credentials,
  scope: SigningScope,
  lifetime: number,
): string {
  const at = timestamp();
  const headers = { ...required, host: url.host };
  const signed = new URL(url);
  const parameters = {
    'X-Amz-Algorithm': algorithm,
    'X-Amz-Credential': `${credentials.accessKey}/${scopeText(at, scope)}`,
    'X-Amz-Date': at,
    'X-Amz-Expires': String(lifetime),
    'X-Amz-SignedHeaders': Object.keys(headers).toSorted().join(';'),
    ...(credentials.sessionToken !== undefined && { 'X-Amz-Security-Token': credentials.sessionToken }),
  };
  for (const [name, value] of Object.entries(parameters)) signed.searchParams.set(name, value);
  signed.search = canonicalQuery(signed);
  const signature = sign(method, signed, headers, unsignedPayload, at, credentials, scope);
  return `${signed.href}&X-Amz-Signature=${signature}`;
}

function sign(
  method: string,
  url: URL,
  headers: Readonly<Record<string, string>>,
  digest: string,
  at: string,
  { secretKey }: Credentials,
  scope: SigningScope,
): string {
  const names = Object.keys(headers).toSorted();
  const canonical = [
    method,
    url.pathname,
    canonicalQuery(url),
    ...names.map((name) => `${name}:${headers[name]!}`),
    '',
    names.join(';'),
    digest,
  ].join('\n');
  const hash = createHash('sha256').update(canonical).digest('hex');
  const steps = [at.slice(0, 8), scope.region, scope.service, 'aws4_request'];
  const key = steps.reduce<string | Buffer>((key, step) => hmac(key, step).digest(), `AWS4${secretKey}`);
  return hmac(key, [algorithm, at, scopeText(at, scope), hash].join('\n')).digest('hex');
}

function hmac(key: string | Buffer, text: string) {
  return createHmac('sha256', key).update(text);
}

function scopeText(at: string, { region, service }: SigningScope): string {
  return `${at.slice(0, 8)}/${region}/${service}/aws4_request`;
}

/** Now, as 20260131T235959Z. */
function timestamp(): string {
  return hubDate()
    .toISOString()
    .replace(/[-:]|\.\d+/g, '');
}

/** The query sorted by name, with everything percent-encoded but RFC 3986's unreserved characters. */
function canonicalQuery(url: URL): string {
  const pairs = [...url.searchParams].map(([name, value]) => `${escaped(name)}=${escaped(value)}`);
  return pairs.toSorted().join('&');
}

function escaped(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}
