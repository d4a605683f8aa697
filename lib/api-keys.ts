import { hash } from 'node:crypto';
import { BoundedMap } from './bounded-map.ts';
import { hubTime } from './clock.ts';
import { HubError } from './errors.ts';
import type { UserIdentity } from './identity.ts';

/** The user that an API key belongs to. */
export interface KeyOwner {
  /** UUID of the key. */
  keyId: string;
  userId: string;
  numId: bigint;
  username: string;
  /** Undefined if the key doesn't expire. */
  expiresAt: Date | undefined;
}

/** The API keys that were looked up recently. */
export interface ApiKeys {
  /**
   * The user that a key belongs to, looked up now or up to 45 s ago.
   *
   * @param enter is called before a look-up, and what it returns after it; it may refuse the look-up by throwing
   * @throws HubError UNAUTHENTICATED `API_KEY_INVALID`, or what the look-up throws
   */
  identify(key: string, enter: () => () => void): Promise<UserIdentity>;
  /** Forgets revoked keys, by their UUIDs. */
  forget(keyIds: readonly string[]): void;
}

interface Remembered {
  identity: UserIdentity;
  keyId: string;
  /** From when on the key is looked up again in the background; until then the last answer counts. */
  renewAt: number;
  until: number;
}

/** `c4a_` and at least 32 bytes in base64url. */
const pattern = /^c4a_[\w-]{43,128}$/;

/** Whether a credential is an API key rather than a token. */
export function isApiKey(credential: string): boolean {
  return pattern.test(credential);
}

const limits = {
  rememberedMs: 45_000,
  /** A key in use is looked up again in the background after this time, so that no call waits for it. */
  renewedMs: 30_000,
  /** How long it is remembered that a key is not valid: not long, since its user may be enabled again. */
  refusedMs: 1_000,
  /** How long revoked keys are remembered: longer than a look-up takes. */
  revokedMs: 60_000,
  /** The maximum number of valid keys that are remembered, and of invalid ones. */
  maxKeys: 10_000,
} as const;

/** @param lookUp finds a key's owner by the SHA-256 of the key; throws HubError UNAUTHENTICATED if there is none */
export function rememberApiKeys(lookUp: (keyHash: Buffer) => Promise<KeyOwner>): ApiKeys {
  // By the hash of the key.
  const known = new BoundedMap<string, Remembered>(limits.maxKeys);
  const refused = new BoundedMap<string, number>(limits.maxKeys);
  const asking = new Map<string, Promise<UserIdentity>>();
  /** When each key was revoked, by UUID: a look-up from before may still be in flight. */
  const revoked = new Map<string, number>();

  function ask(keyHash: Buffer, name: string): Promise<UserIdentity> {
    let asked = asking.get(name);
    if (asked === undefined) {
      asked = lookUpNow(keyHash, name).finally(() => asking.delete(name));
      asking.set(name, asked);
    }
    return asked;
  }

  async function lookUpNow(keyHash: Buffer, name: string): Promise<UserIdentity> {
    try {
      const { keyId, userId, numId, username, expiresAt } = await lookUp(keyHash);
      const now = hubTime();
      const until = Math.min(now + limits.rememberedMs, expiresAt?.getTime() ?? Infinity);
      if (revoked.has(keyId) || until <= now) throw invalidKey();
      const identity: UserIdentity = { kind: 'user', userId, numId, username, admin: false, credential: 'api key' };
      known.set(name, { identity, keyId, renewAt: now + limits.renewedMs, until });
      return identity;
    } catch (error) {
      if (error instanceof HubError && error.kind === 'UNAUTHENTICATED') {
        known.delete(name);
        refused.set(name, hubTime() + limits.refusedMs);
      }
      throw error;
    }
  }

  return {
    async identify(key, enter) {
      if (!pattern.test(key)) throw invalidKey();
      const keyHash = hash('sha256', key, 'buffer');
      const name = keyHash.toString('latin1');
      const now = hubTime();
      const found = known.get(name);
      if (found !== undefined && now < found.until) {
        // A failure is ignored: the next call tries again.
        if (now >= found.renewAt && !asking.has(name)) ask(keyHash, name).catch(() => {});
        return found.identity;
      }
      if (now < (refused.get(name) ?? 0)) throw invalidKey();
      const leave = enter();
      try {
        return await ask(keyHash, name);
      } finally {
        leave();
      }
    },

    forget(keyIds) {
      if (keyIds.length === 0) return;
      const now = hubTime();
      for (const [keyId, at] of revoked) if (at + limits.revokedMs <= now) revoked.delete(keyId);
      for (const keyId of keyIds) revoked.set(keyId, now);
      for (const [name, { keyId }] of known) if (revoked.has(keyId)) known.delete(name);
    },
  };
}

export function invalidKey(): HubError {
  return new HubError('UNAUTHENTICATED', 'API_KEY_INVALID', 'The API key is not valid');
}
