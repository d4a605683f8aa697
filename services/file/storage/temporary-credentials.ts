import { hubTime } from '#lib/clock.ts';
import { refused, unavailable } from './failures.ts';
import { authorize, type Credentials } from './signature.ts';
import { fieldOf } from './xml.ts';

const timeoutMs = 5_000;
/** The limits of MinIO. */
const minLifetimeSeconds = 900;
const maxLifetimeSeconds = 7 * 24 * 3600;
/** Statuses of a store, or a proxy in front of it, that is unavailable or overloaded. */
const transientStatuses = new Set([408, 429, 502, 503, 504]);
const transientCodes = new Set(['InternalError', 'ServiceUnavailable', 'SlowDown', 'XMinioServerNotInitialized']);

const noUploadUrls =
  'The file store gives out no keys for upload URLs: set S3_UPLOAD_ACCESS_KEY and S3_UPLOAD_SECRET_KEY, or S3_DIRECT_UPLOADS=false';

/** The only action that temporary credentials allow. */
export type Action = 's3:PutObject' | 's3:GetObject';

/**
 * The policy for one action in a bucket.
 *
 * Credentials for writing must not allow reading: MinIO lets an unsigned `x-amz-copy-source` header turn the PUT of a part into a copy of
 * any object that the key may read. The second statement is against CVE-2026-41145 in the last public MinIO, which checks no signature on
 * requests with this header.
 */
function policyFor(bucket: string, action: Action): string {
  const what = { Action: [action], Resource: [`arn:aws:s3:::${bucket}/*`] };
  return JSON.stringify({
    Version: '2012-10-17',
    Statement: [
      { Effect: 'Allow', ...what },
      {
        Effect: 'Deny',
        ...what,
        Condition: { StringLike: { 's3:x-amz-content-sha256': ['STREAMING-UNSIGNED-*'] } },
      },
    ],
  });
}

export interface TemporaryCredentialsOptions {
  endpoint: URL;
  region: string;
  bucket: string;
  credentials: Credentials;
}

/**
 * Gets temporary credentials from MinIO's AssumeRole, to sign URLs: they allow nothing but `action`, and live at least `lifetime` seconds
 * more.
 *
 * They throw HubError UNAVAILABLE `STORE_UNAVAILABLE`; for a store without AssumeRole its message says what to set instead.
 */
export function openTemporaryCredentials(
  options: TemporaryCredentialsOptions,
  action: Action,
): (lifetime: number) => Promise<Credentials> {
  let current: { credentials: Promise<Credentials>; until: number } | undefined;
  return async (lifetime) => {
    const now = hubTime();
    if (current === undefined || current.until < now + lifetime * 1000) {
      // Longer than needed, so that one set serves many URLs.
      const duration = Math.min(Math.max(2 * lifetime, 3600, minLifetimeSeconds), maxLifetimeSeconds);
      // A minute less, for differing clocks and the latency of the answer.
      const asked = {
        credentials: assumeRole(options, action, duration),
        until: now + Math.max(duration - 60, lifetime) * 1000,
      };
      current = asked;
      asked.credentials.catch(() => {
        if (current === asked) current = undefined;
      });
    }
    return current.credentials;
  };
}

/** https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html, without a role, as in MinIO. */
async function assumeRole(
  options: TemporaryCredentialsOptions,
  action: Action,
  duration: number,
): Promise<Credentials> {
  const { endpoint, region, bucket, credentials } = options;
  const body = new URLSearchParams({
    Action: 'AssumeRole',
    Version: '2011-06-15',
    DurationSeconds: String(duration),
    Policy: policyFor(bucket, action),
  }).toString();
  const url = new URL('/', endpoint);
  const given = { 'content-type': 'application/x-www-form-urlencoded' };
  const headers = authorize('POST', url, given, credentials, { region, service: 'sts' }, body);
  let response: Response;
  let text: string;
  try {
    const signal = AbortSignal.timeout(timeoutMs);
    response = await fetch(url, { method: 'POST', headers, body, redirect: 'manual', signal });
    text = await response.text();
  } catch (error) {
    throw unavailable(error);
  }
  const [accessKey, secretKey, sessionToken] = ['AccessKeyId', 'SecretAccessKey', 'SessionToken'].map((name) =>
    fieldOf(text, name),
  );
  if (response.status === 200 && accessKey !== undefined && secretKey !== undefined && sessionToken !== undefined) {
    return { accessKey, secretKey, sessionToken };
  }
  const code = fieldOf(text, 'Code') ?? '';
  const reason = `${code} ${fieldOf(text, 'Message') ?? `HTTP status ${response.status}`}`.trim();
  const failure = new Error(`The S3 store gives out no temporary credentials (AssumeRole: ${reason})`);
  // A store without AssumeRole may answer 500 as well as 400.
  if (transientStatuses.has(response.status) || transientCodes.has(code)) throw unavailable(failure);
  throw refused(failure, action === 's3:PutObject' ? noUploadUrls : undefined);
}
