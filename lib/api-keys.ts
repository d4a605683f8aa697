import { hash } from 'node:crypto';
import { BoundedMap } from './bounded-map.ts';
import { hubTime } from './clock.ts';
import { HubError } from './errors.ts';
import type { UserIdentity } from './identity.ts';

/** Whom an API key stands for. */
export interface KeyOwner {
  /** UUID of the key. */
  keyId: string;
  userId: string;
  /** The user's number. */
  numId: bigint;
  username: string;
  /** Undefined if the key doesn't expire. */
  expiresAt: Date | undefined;
}

/** API keys that were looked up lately. */
export interface ApiKeys {
  /**
   * Whom a key stands for: looked up, or as it was up to 45 s ago.
   *
   * @param enter is called before the key is looked up, and what it returns once that is over: it may refuse by throwing
   * @throws HubError UNAUTHENTICATED `API_KEY_INVALID`, or what the look-up throws
   */
  identify(key: string, enter: () => () => void): Promise<UserIdentity>;
  /** Forgets keys that are not valid any more, by their UUIDs. */
  forget(keyIds: readonly string[]): void;
}

interface Remembered {
  identity: UserIdentity;
  keyId: string;
  /** From when on it is looked up again, while it still counts. */
  renewAt: number;
  until: number;
}

/** `c4a_` and at least 32 bytes in base64url. Anything else was never made by us. */
const pattern = /^c4a_[\w-]{43,128}$/;

/** Whether a credential is an API key, and no token. */
export function isApiKey(credential: string): boolean {
  return pattern.test(credential);
}

const limits = {
  /** Milliseconds that a key is remembered. */
  remembered: 45_000,
  /** Milliseconds after which one that is in use is looked up again, so that nobody has to wait for it. */
  renewed: 30_000,
  /** Milliseconds that it is remembered that there is no such key. Its user may be enabled again. */
  refused: 1_000,
  /** Milliseconds that it is remembered which keys were revoked: longer than a look-up takes. */
  revoked: 60_000,
  /** How many keys are remembered, and as many that there are not. */
  keys: 10_000,
} as const;

/** @param lookUp finds a key's owner by the SHA-256 of the key; throws HubError UNAUTHENTICATED if there is none */
export function rememberApiKeys(lookUp: (keyHash: Buffer) => Promise<KeyOwner>): ApiKeys {
  // All by the hash of the key, in the order in which they were added.
  const known = new BoundedMap<string, Remembered>(limits.keys);
  const refused = new BoundedMap<string, number>(limits.keys);
  const asking = new Map<string, Promise<UserIdentity>>();
  /** UUIDs of revoked keys, with the time: an answer from before may still be on its way. */
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
      const until = Math.min(now + limits.remembered, expiresAt?.getTime() ?? Infinity);
      if (revoked.has(keyId) || until <= now) throw invalidKey();
      const identity: UserIdentity = { kind: 'user', userId, numId, username, admin: false, credential: 'api key' };
      known.set(name, { identity, keyId, renewAt: now + limits.renewed, until });
      return identity;
    } catch (error) {
      if (error instanceof HubError && error.kind === 'UNAUTHENTICATED') {
        known.delete(name);
        refused.set(name, hubTime() + limits.refused);
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
        // If that fails, it is tried again by the next call, or by the one that needs it.
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
      for (const [keyId, at] of revoked) if (at + limits.revoked <= now) revoked.delete(keyId);
      for (const keyId of keyIds) revoked.set(keyId, now);
      for (const [name, { keyId }] of known) if (revoked.has(keyId)) known.delete(name);
    },
  };
}

export function invalidKey(): HubError {
  return new HubError('UNAUTHENTICATED', 'API_KEY_INVALID', 'The API key is not valid');
}
