import { HubError } from '#lib/errors.ts';

/** How long tokens are valid, in milliseconds. */
export interface Lifetimes {
  access: number;
  refresh: number;
}

/** How it stands with a refresh token. */
export type RefreshState = 'fresh' | 'used' | 'ended' | 'expired' | 'disabled' | 'unknown';

/** Why a refresh token is refused. */
export function refreshRefused(state: Exclude<RefreshState, 'fresh'>): HubError {
  switch (state) {
    case 'used':
    case 'ended':
      return new HubError(
        'UNAUTHENTICATED',
        'REFRESH_TOKEN_REUSED',
        'The refresh token was used before, or its session has ended: log in again',
      );
    case 'expired':
      return new HubError('UNAUTHENTICATED', 'TOKEN_EXPIRED', 'The refresh token has expired: log in again');
    case 'disabled':
    case 'unknown':
      return unknownRefreshToken();
  }
}

/** There is none, or the caller may not know of it. */
export function unknownRefreshToken(): HubError {
  return new HubError('UNAUTHENTICATED', 'UNAUTHORIZED', 'There is no such refresh token');
}

export function invalidResetToken(): HubError {
  return new HubError(
    'INVALID_ARGUMENT',
    'INVALID_RESET_TOKEN',
    'There is no such reset token, or it was used or is too old: ask for a new one',
  );
}
