import { v4 as uuid } from 'uuid';
import { IdentityServiceService } from '#gen/chat4all/identity/v1/identity.ts';
import type { KeyOwner } from '../api-keys.ts';
import type { Config } from '../config.ts';
import { currentContext, withContext } from '../context.ts';
import type { Identities } from '../identity.ts';
import type { Changes } from '../standings.ts';
import { connect, serviceAddress } from './client.ts';
import type { transportSettings } from './transport.ts';

/** The authority on API keys and on users' current rights: the auth service. */
export interface Authority {
  /**
   * The user of an API key, by the SHA-256 of the key.
   *
   * @throws HubError UNAUTHENTICATED `API_KEY_INVALID`
   */
  exchange(keyHash: Buffer): Promise<KeyOwner>;
  /** The changes after a cursor. Unless the cursor is 0, waits up to 20 s for some. */
  changesAfter(cursor: bigint, signal: AbortSignal): Promise<Changes>;
  close(): void;
}

/** Settings of every service but auth. */
export const authoritySettings = {
  AUTH_ADDRESS: serviceAddress().describe('host:port of the auth service'),
};

/** The auth service, over gRPC. */
export function connectAuthority({
  config,
  identities,
}: {
  config: Config<typeof authoritySettings & typeof transportSettings>;
  identities: Identities;
}): Authority {
  const auth = connect(IdentityServiceService, { config, target: 'auth', address: config.AUTH_ADDRESS, identities });
  return {
    async exchange(keyHash) {
      const client = currentContext()?.client;
      // Several calls may wait for the same key: the first one's deadline must not count for the others.
      const { keyId, userId, numId, username, expiresAt } = await withContext({ requestId: uuid(), client }, () =>
        auth.exchangeApiKey({ keyHash }),
      );
      return { keyId, userId, numId, username, expiresAt };
    },
    changesAfter: (after, signal) => auth.watchStandings({ after }, { signal }),
    close: () => auth.close(),
  };
}
