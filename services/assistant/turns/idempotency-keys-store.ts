import type { SqlTransaction } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import type { MessageStatus } from '../conversations/conversation.ts';

/** The header Idempotency-Key of a request. */
export interface IdempotencyKey {
  userId: string;
  key: string;
  /** A hash of the request that it came with. */
  fingerprint: string;
}

/** The answer to the request that a key came with first. */
export interface KnownAnswer {
  messageId: bigint;
  conversationId: bigint;
  /** Whether it has failed, and nothing has been said after it: the same request then asks for another answer. */
  canBeRepeated: boolean;
}

/** How long a key is known: a day, in words of PostgreSQL. */
const keysKept = '24 hours';

/** Locks a key, so that other requests with it wait until the transaction ends. */
export async function lockKey(sql: SqlTransaction, { userId, key }: IdempotencyKey): Promise<void> {
  await sql.sql('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`${userId} ${key}`]);
}

/** @throws HubError ABORTED `IDEMPOTENCY_KEY_REUSED` if the key came with another request */
export async function findKey(
  sql: SqlTransaction,
  { userId, key, fingerprint }: IdempotencyKey,
): Promise<KnownAnswer | undefined> {
  const [row] = await sql.sql<{
    fingerprint: string;
    message_id: bigint;
    status: MessageStatus;
    conversation_id: bigint;
    is_last: boolean;
  }>(
    `select k.fingerprint, k.message_id, m.status, m.conversation_id,
       not exists (
         select from messages later where later.conversation_id = m.conversation_id and later.id > m.id
       ) as is_last
     from idempotency_keys k join messages m on m.id = k.message_id
     where k.user_id = $1 and k.key = $2 and k.created_at > now() - $3::interval`,
    [userId, key, keysKept],
  );
  if (row === undefined) return undefined;
  if (row.fingerprint !== fingerprint) {
    throw new HubError(
      'ABORTED',
      'IDEMPOTENCY_KEY_REUSED',
      'The same Idempotency-Key came with another request before',
    );
  }
  return {
    messageId: row.message_id,
    conversationId: row.conversation_id,
    canBeRepeated: row.status === 'failed' && row.is_last,
  };
}

/** Keeps a key with the answer that its request was given, in place of an earlier one. */
export async function keepKey(
  sql: SqlTransaction,
  { userId, key, fingerprint }: IdempotencyKey,
  messageId: bigint,
): Promise<void> {
  await sql.sql(
    `insert into idempotency_keys (user_id, key, fingerprint, message_id, created_at) values ($1, $2, $3, $4, now())
     on conflict (user_id, key) do update
       set fingerprint = excluded.fingerprint, message_id = excluded.message_id, created_at = now()`,
    [userId, key, fingerprint, messageId],
  );
}

/** Deletes keys that are too old to count, up to a limit. @returns how many */
export async function deleteOldKeys(sql: SqlTransaction, limit: number): Promise<number> {
  const rows = await sql.sql(
    `delete from idempotency_keys where (user_id, key) in (
       select user_id, key from idempotency_keys where created_at < now() - $1::interval limit $2
     ) returning key`,
    [keysKept, limit],
  );
  return rows.length;
}
