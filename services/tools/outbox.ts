import type { AccountRecordServiceService, AuditEvent, SubscriptionRecord } from '#gen/chat4all/account/v1/account.ts';
import { hubDate, hubTime } from '#lib/clock.ts';
import type { Database, SqlTransaction } from '#lib/database.ts';
import { HubError, isTransient } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import type { Connection } from '#lib/rpc/client.ts';
import type { PlanName } from './tools.ts';

/** A subscription that has changed. */
export interface SubscriptionChange {
  userId: string;
  plan: PlanName;
  expiresAt: Date | undefined;
  version: number;
}

/** What an administrator has changed. */
export interface AdminChange {
  /** UUID. */
  id: string;
  actorId: string;
  action: 'tool.create' | 'tool.update' | 'tool.delete';
  /** UUID of the tool. */
  target: string;
  at: Date;
  requestId: string;
}

/** Changes to report to the auth service. */
export interface Outbox {
  /** Delivers an entry now, so that the caller's next request sees the change. Whether or not that works in time, the entry isn't lost. */
  push(entry: bigint | undefined): Promise<void>;
  stop(): Promise<void>;
}

interface Row {
  id: bigint;
  kind: 'subscription' | 'audit event';
  content: Record<string, string | number | null>;
}

const batchSize = 500;
/** How long a caller waits until its change is delivered. */
const pushLimitMs = 1_000;
/** How often to look for entries of other processes, and how soon to send again an entry that was refused. */
const pollEveryMs = 2_000;
const refusedPauseMs = 60_000;
/** Entries of other processes collect in this set, since nobody waits for them here. */
const maxDelivered = 10_000;

/** Adds an entry about a subscription, in the transaction that changes it. @returns its id */
export async function addSubscriptionChange(
  transaction: SqlTransaction,
  { userId, plan, expiresAt, version }: SubscriptionChange,
): Promise<bigint> {
  return add(transaction, 'subscription', { userId, plan, expiresAt: expiresAt?.toISOString() ?? null, version });
}

/** Adds an audit event of an administrator, in the transaction of the change. @returns its id */
export async function addAdminChange(transaction: SqlTransaction, { at, ...change }: AdminChange): Promise<bigint> {
  return add(transaction, 'audit event', { ...change, at: at.toISOString() });
}

async function add(transaction: SqlTransaction, kind: Row['kind'], content: Row['content']): Promise<bigint> {
  const now = hubDate();
  const [row] = await transaction.sql<{ id: bigint }>(
    'insert into outbox (kind, content, created_at, not_before) values ($1, $2, $3, $3) returning id',
    [kind, content, now],
  );
  return row!.id;
}

export interface OutboxOptions {
  accounts: Pick<Connection<AccountRecordServiceService>, 'recordChanges'>;
  log: Logger;
}

/**
 * Delivers changes to the auth service, possibly twice, by two processes or after a lost answer, and in any order: it recognises audit events
 * by their ids and subscriptions by their versions.
 */
export function openOutbox(db: Database, { accounts, log }: OutboxOptions): Outbox {
  /** Callers that wait until an entry is delivered. */
  const waiting = new Map<bigint, () => void>();
  /** Entries that were delivered before anybody waited for them. */
  const delivered = new Set<bigint>();

  async function send(rows: readonly Row[]): Promise<void> {
    await accounts.recordChanges({
      subscriptions: rows.filter(({ kind }) => kind === 'subscription').map(subscriptionRecord),
      auditEvents: rows.filter(({ kind }) => kind === 'audit event').map(auditEvent),
    });
    const ids = rows.map(({ id }) => id);
    await db.sql('delete from outbox where id = any($1::bigint[])', [ids]);
    for (const id of ids) {
      const wake = waiting.get(id);
      if (wake === undefined) delivered.add(id);
      else wake();
    }
    if (delivered.size > maxDelivered) delivered.clear();
  }

  /** An entry that is refused must not keep back the others. */
  async function sendAlone(row: Row): Promise<void> {
    try {
      await send([row]);
    } catch (error) {
      if (isTransient(error) || !(error instanceof HubError)) throw error;
      log.error({ err: error, entry: String(row.id), kind: row.kind }, 'The auth service refuses a change');
      const again = new Date(hubTime() + refusedPauseMs);
      await db.sql('update outbox set not_before = $2 where id = $1', [row.id, again]);
    }
  }

  const loop = repeat('Delivering changes to the auth service', log, async () => {
    const rows = await db.sql<Row>('select id, kind, content from outbox where not_before <= $1 order by id limit $2', [
      hubDate(),
      batchSize,
    ]);
    if (rows.length === 0) return pollEveryMs;
    try {
      await send(rows);
    } catch (error) {
      if (isTransient(error) || !(error instanceof HubError)) throw error;
      for (const row of rows) await sendAlone(row);
    }
    return 0;
  });

  return {
    async push(entry) {
      if (entry === undefined || delivered.delete(entry)) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.set(entry, resolve);
      const timer = setTimeout(resolve, pushLimitMs);
      loop.wake();
      await promise;
      clearTimeout(timer);
      waiting.delete(entry);
    },
    stop: () => loop.stop(),
  };
}

function subscriptionRecord({ content }: Row): SubscriptionRecord {
  const { userId, plan, expiresAt, version } = content;
  return {
    userId: String(userId),
    plan: String(plan),
    expiresAt: expiresAt === null ? undefined : new Date(String(expiresAt)),
    version: BigInt(version as number),
  };
}

function auditEvent({ content }: Row): AuditEvent {
  const { id, actorId, action, target, at, requestId } = content;
  return {
    id: String(id),
    actorId: String(actorId),
    action: String(action),
    target: String(target),
    at: new Date(String(at)),
    requestId: String(requestId),
  };
}
