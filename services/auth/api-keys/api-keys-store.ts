import type { Database, SqlTransaction } from '#lib/database.ts';
import { deleteOld } from '#lib/forgetting.ts';
import { recordStandingChange } from '../standings/standings.ts';

/** An API key, without what it is. */
export interface ApiKey {
  /** UUID. */
  id: string;
  name: string;
  keyPrefix: string;
  createdAt: Date;
  lastUsedAt: Date | undefined;
  expiresAt: Date | undefined;
  revokedAt: Date | undefined;
}

export interface NewApiKey {
  id: string;
  userId: string;
  keyHash: Buffer;
  keyPrefix: string;
  name: string;
  createdAt: Date;
  expiresAt: Date | undefined;
}

/** How many keys a user may have. */
export interface ApiKeyLimits {
  active: number;
  /** Of those that are not active any more, when another one is added: the oldest of these go. */
  inactive: number;
}

interface ApiKeyRow {
  id: string;
  name: string;
  keyPrefix: string;
  createdAt: Date;
  lastUsedAt: Date | null;
  expiresAt: Date | null;
  revokedAt: Date | null;
}

/** The queries about API keys. */
export function apiKeyQueries(db: Database) {
  return {
    /** All keys of a user, newest first. */
    async listApiKeys(userId: string): Promise<ApiKey[]> {
      const rows = await db.sql<ApiKeyRow>(
        `select id, name, key_prefix as "keyPrefix", created_at as "createdAt", last_used_at as "lastUsedAt",
                expires_at as "expiresAt", revoked_at as "revokedAt"
           from api_keys where user_id = $1 order by created_at desc, id desc`,
        [userId],
      );
      return rows.map(({ lastUsedAt, expiresAt, revokedAt, ...row }) => ({
        ...row,
        lastUsedAt: lastUsedAt ?? undefined,
        expiresAt: expiresAt ?? undefined,
        revokedAt: revokedAt ?? undefined,
      }));
    },

    /** Adds a key, as far as the limits allow. */
    async addApiKey(key: NewApiKey, limits: ApiKeyLimits): Promise<'added' | 'too many' | 'no such user'> {
      return db.transaction(async ({ sql }) => {
        // Serialised for each user, or concurrent calls would each find room.
        const [owner] = await sql('select from users where id = $1 for no key update', [key.userId]);
        if (owner === undefined) return 'no such user';
        const [counted] = await sql<{ active: bigint }>(
          `select count(*) as active from api_keys
            where user_id = $1 and revoked_at is null and (expires_at is null or expires_at > $2)`,
          [key.userId, key.createdAt],
        );
        if (counted!.active >= limits.active) return 'too many';
        await sql(
          `delete from api_keys where id in (
             select id from api_keys where user_id = $1 and (revoked_at is not null or expires_at <= $2)
              order by created_at desc, id desc offset $3
           )`,
          [key.userId, key.createdAt, limits.inactive],
        );
        await sql(
          `insert into api_keys (id, user_id, key_hash, key_prefix, name, created_at, expires_at)
           values ($1, $2, $3, $4, $5, $6, $7)`,
          [key.id, key.userId, key.keyHash, key.keyPrefix, key.name, key.createdAt, key.expiresAt ?? null],
        );
        return 'added';
      });
    },

    /** Revokes a key, for good. @returns false if the user has no such key */
    async revokeApiKey(userId: string, id: string, now: Date): Promise<boolean> {
      return db.transaction(async (transaction: SqlTransaction) => {
        const revoked = await transaction.sql(
          'update api_keys set revoked_at = $3 where id = $2 and user_id = $1 and revoked_at is null returning 1',
          [userId, id, now],
        );
        if (revoked.length > 0) {
          await recordStandingChange(transaction, { apiKeyId: id });
          return true;
        }
        const known = await transaction.sql('select from api_keys where id = $2 and user_id = $1', [userId, id]);
        return known.length > 0;
      });
    },

    /** Deletes at most `limit` keys that were revoked or expired before `until`. @returns how many */
    sweepApiKeys(until: Date, limit: number): Promise<number> {
      return deleteOld(db, { table: 'api_keys', isOld: 'revoked_at <= $1 or expires_at <= $1' }, until, limit);
    },
  };
}
