import { HubError } from '#lib/errors.ts';
import type { ProviderError } from './provider.ts';

/** The error for callers when the provider has failed. */
export function providerFailure(error: ProviderError): HubError {
  const kind = error.reason === 'PROVIDER_TIMEOUT' ? 'DEADLINE_EXCEEDED' : 'UNAVAILABLE';
  return new HubError(kind, error.reason, error.message, {
    cause: error.cause,
    ...(error.retryAfter === undefined ? {} : { retryAfter: Math.max(1, Math.ceil(error.retryAfter / 1_000)) }),
  });
}
