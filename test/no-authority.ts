import { HubError } from '#lib/errors.ts';
import type { Authority } from '#lib/rpc/authority.ts';

/** What servers ask in tests of something else: knows no API key, and nothing ever changes. */
export const noAuthority: Authority = {
  exchange: async () => {
    throw new HubError('UNAUTHENTICATED', 'API_KEY_INVALID', 'The API key is not valid');
  },
  changesAfter: async (cursor, signal) => {
    if (cursor !== 0n) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    return { cursor: 1n, more: false, standings: [], revokedKeyIds: [] };
  },
  close: () => {},
};
