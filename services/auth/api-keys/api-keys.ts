import { HubError } from '#lib/errors.ts';

/** How many active keys a user may have. */
export const maxActiveKeys = 100;
/** How many that were revoked or have expired are kept of a user when another one is made: the oldest of these go. */
export const maxInactiveKeys = 1_000;

/** Whether a key is accepted. */
export function isActive(
  { revokedAt, expiresAt }: { revokedAt: Date | undefined; expiresAt: Date | undefined },
  now: Date,
): boolean {
  return revokedAt === undefined && (expiresAt === undefined || expiresAt > now);
}

export function tooManyApiKeys(): HubError {
  return new HubError(
    'RESOURCE_EXHAUSTED',
    'TOO_MANY_API_KEYS',
    `You have ${maxActiveKeys} active API keys already: revoke one first`,
    // There is none to tell: but whoever repeats it without a thought should do so seldom.
    { retryAfter: 60 },
  );
}

export function apiKeyNotFound(): HubError {
  return new HubError('NOT_FOUND', 'API_KEY_NOT_FOUND', 'You have no such API key');
}
