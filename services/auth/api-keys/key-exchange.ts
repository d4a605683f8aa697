import { invalidKey, type KeyOwner } from '#lib/api-keys.ts';
import { hubDate } from '#lib/clock.ts';
import { Rounds } from '#lib/rounds.ts';
import type { FoundKey } from './key-owners-store.ts';

/** Tells whom API keys stand for, by their SHA-256. @throws HubError UNAUTHENTICATED `API_KEY_INVALID` */
export type KeyExchange = (keyHash: Buffer) => Promise<KeyOwner>;

const maxKeysAtOnce = 1_000;

/** One query at a time: keys that come while it runs are looked up together by the next one. */
export function openKeyExchange(store: {
  useApiKeys(hashes: readonly Buffer[], now: Date): Promise<FoundKey[]>;
}): KeyExchange {
  const rounds = new Rounds<Buffer, FoundKey | undefined>(
    async (hashes) => {
      const found = await store.useApiKeys(hashes, hubDate());
      const byHash = new Map(found.map((key) => [key.keyHash.toString('latin1'), key]));
      return hashes.map((keyHash) => byHash.get(keyHash.toString('latin1')));
    },
    { name: 'auth.api_keys', items: maxKeysAtOnce },
  );

  return async (keyHash) => {
    const found = await rounds.do(keyHash);
    if (found === undefined) throw invalidKey();
    const { keyId, userId, numId, username, expiresAt } = found;
    return { keyId, userId, numId, username, expiresAt: expiresAt ?? undefined };
  };
}
