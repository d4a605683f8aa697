import { HubError } from '#lib/errors.ts';

/** How many active keys a user may have. */
export const mostActiveKeys = 100;
/** With those that were revoked or have expired: the oldest of these go when there are more. */
export const mostKeptKeys = 1_000;

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
    `You have ${mostActiveKeys} active API keys already: revoke one first`,
  );
}

export function apiKeyNotFound(): HubError {
  return new HubError('NOT_FOUND', 'API_KEY_NOT_FOUND', 'You have no such API key');
}
