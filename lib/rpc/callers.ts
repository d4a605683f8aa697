import type { Metadata } from '@grpc/grpc-js';
import { invalidKey, rememberApiKeys } from '../api-keys.ts';
import { HubError } from '../errors.ts';
import { invalidToken, type Identities, type Identity } from '../identity.ts';
import type { Logger } from '../log.ts';
import { followStandings } from '../standings.ts';
import type { Authority } from './authority.ts';
import type { Access } from './schema.ts';

/** Who may call an RPC. */
export interface AccessRule {
  access: Access;
  /** The services that may call it, where the access rule is SERVICE. */
  callers: ReadonlySet<string>;
  /** Whether an API key is not enough. */
  bearerOnly: boolean;
}

/** Authenticates callers by token or API key, with their current rights, and checks access. */
export interface Callers {
  /**
   * The caller, if the rule allows the call; undefined for public RPCs.
   *
   * @param enter is called before an API key is looked up, and what it returns after that; it may refuse the look-up by throwing
   */
  identify(metadata: Metadata, rule: AccessRule, enter: () => () => void): Promise<Identity | undefined>;
  /** Calls `end` once the user is disabled, until the function that is returned is called. @throws HubError if the user is disabled now */
  watch(userId: string, end: (why: HubError) => void): () => void;
  stop(): Promise<void>;
}

export const apiKeyHeader = 'x-api-key';

export function openCallers({
  identities,
  authority,
  log,
  onDisabled = () => {},
}: {
  identities: Identities;
  authority: Authority;
  log: Logger;
  /** Called with users who are disabled, each more than once. */
  onDisabled?: ((userIds: readonly string[]) => void) | undefined;
}): Callers {
  const apiKeys = rememberApiKeys(authority.exchange);
  const watched = new Map<string, Set<(why: HubError) => void>>();
  const standings = followStandings({
    changesAfter: authority.changesAfter,
    onRevoked: apiKeys.forget,
    onDisabled(userIds) {
      for (const userId of userIds) for (const end of watched.get(userId) ?? []) end(invalidToken());
      onDisabled(userIds);
    },
    log,
  });

  /** The caller with the user's current rights, which may differ from those in the token. */
  function asOfNow(caller: Identity): Identity {
    if (caller.kind !== 'user') return caller;
    const standing = standings.of(caller.userId);
    if (standing === undefined) return caller;
    const isToken = caller.credential === 'token';
    if (standing.disabled) throw isToken ? invalidToken() : invalidKey();
    return isToken && standing.admin !== caller.admin ? { ...caller, admin: standing.admin } : caller;
  }

  return {
    async identify(metadata, { access, callers, bearerOnly }, enter) {
      if (access === 'PUBLIC') return undefined;
      if (standings.coming !== undefined) await standings.coming;
      const [header] = metadata.get('authorization');
      if (header === undefined) {
        const [key] = metadata.get(apiKeyHeader);
        if (typeof key !== 'string' || access !== 'USER' || bearerOnly) throw noToken(key !== undefined);
        return asOfNow(await apiKeys.identify(key, enter));
      }
      const token = typeof header === 'string' ? /^bearer +(\S+)$/i.exec(header)?.[1] : undefined;
      if (token === undefined) {
        throw new HubError('UNAUTHENTICATED', 'TOKEN_INVALID', 'The authorization must be `Bearer <token>`');
      }
      const caller = asOfNow(await identities.verify(token));
      const allowed =
        access === 'SERVICE'
          ? caller.kind === 'service' && callers.has(caller.name)
          : caller.kind === 'user' && (access === 'USER' || caller.admin);
      if (!allowed) throw new HubError('PERMISSION_DENIED', 'ACCESS_DENIED', 'Access denied: this call is not for you');
      return caller;
    },

    watch(userId, end) {
      if (standings.of(userId)?.disabled === true) throw invalidToken();
      const ends = watched.get(userId) ?? new Set();
      watched.set(userId, ends.add(end));
      return () => {
        ends.delete(end);
        if (ends.size === 0 && watched.get(userId) === ends) watched.delete(userId);
      };
    },

    async stop() {
      await standings.stop();
      authority.close();
    },
  };
}

function noToken(hasKey: boolean): HubError {
  const message = hasKey
    ? 'An API key is not enough for this call: it needs a bearer token'
    : 'This call needs a bearer token: log in first';
  return new HubError('UNAUTHENTICATED', 'TOKEN_MISSING', message);
}
