import type { Database } from '#lib/database.ts';

/** Whom an API key stands for. */
export interface FoundKey {
  keyHash: Buffer;
  keyId: string;
  userId: string;
  numId: bigint;
  username: string;
  expiresAt: Date | null;
}

/** A use is written down this many milliseconds after the last one that was, at the earliest. */
const usesApart = 5_000;

/** The queries about whom API keys stand for. */
export function keyOwnerQueries(db: Database) {
  return {
    /** The owners of those keys that are accepted, by the hashes of the keys. Takes down that they are used. */
    async useApiKeys(hashes: readonly Buffer[], now: Date): Promise<FoundKey[]> {
      return db.sql<FoundKey>(
        `with found as (
           select k.key_hash, k.id, k.user_id, u.num_id, u.username, k.expires_at, k.last_used_at
             from api_keys as k join users as u on u.id = k.user_id
            where k.key_hash = any($1::bytea[]) and k.revoked_at is null and u.status = 'active'
              and (k.expires_at is null or k.expires_at > $2)
         ), unwritten as (
           select id from api_keys
            where id in (select id from found where last_used_at is null or last_used_at < $3)
            order by id for no key update skip locked
         ), used as (
           update api_keys set last_used_at = greatest(last_used_at, $2) where id in (select id from unwritten)
         )
         select key_hash as "keyHash", id as "keyId", user_id as "userId", num_id as "numId", username, expires_at as "expiresAt" from found`,
        [hashes, now, new Date(now.getTime() - usesApart)],
      );
    },
  };
}
