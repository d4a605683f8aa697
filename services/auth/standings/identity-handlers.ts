import type { IdentityServiceService } from '#gen/chat4all/identity/v1/identity.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { KeyExchange } from '../api-keys/key-exchange.ts';
import type { StandingFeed } from './standing-feed.ts';

export function openIdentityHandlers({
  exchange,
  feed,
}: {
  exchange: KeyExchange;
  feed: StandingFeed;
}): Handlers<IdentityServiceService> {
  return {
    exchangeApiKey: ({ keyHash }) => exchange(keyHash),
    watchStandings: ({ after }, { signal }) => feed.after(after, signal),
  };
}
