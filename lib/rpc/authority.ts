import { v4 as uuid } from 'uuid';
import { IdentityServiceService } from '#gen/chat4all/identity/v1/identity.ts';
import type { KeyOwner } from '../api-keys.ts';
import type { Config } from '../config.ts';
import { currentContext, withContext } from '../context.ts';
import type { Identities } from '../identity.ts';
import type { Changes } from '../standings.ts';
import { connect, serviceAddress } from './client.ts';
import type { transportSettings } from './transport.ts';

/** What knows the API keys, and what has become of users since their tokens were issued: the auth service. */
export interface Authority {
  /**
   * Whom an API key stands for, by the SHA-256 of the key.
   *
   * @throws HubError UNAUTHENTICATED `API_KEY_INVALID`
   */
  exchange(keyHash: Buffer): Promise<KeyOwner>;
  /** What has changed after a cursor. Unless that is 0, waits up to 20 s for something. */
  changesAfter(cursor: bigint, signal: AbortSignal): Promise<Changes>;
  close(): void;
}

/** For every service but auth: where the auth service is. */
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
      // Others may wait for the same key: whoever was first doesn't decide for how long.
      const { keyId, userId, numId, username, expiresAt } = await withContext({ requestId: uuid(), client }, () =>
        auth.exchangeApiKey({ keyHash }),
      );
      return { keyId, userId, numId, username, expiresAt };
    },
    changesAfter: (after, signal) => auth.watchStandings({ after }, { signal }),
    close: () => auth.close(),
  };
}
