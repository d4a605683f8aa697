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

/** What the auth service hasn't been told of yet. */
export interface Outbox {
  /** Tells it now, so that what is asked next shows it already. Whether or not that works in time, the entry isn't lost. */
  push(entry: bigint | undefined): Promise<void>;
  stop(): Promise<void>;
}

interface Row {
  id: bigint;
  kind: 'subscription' | 'audit event';
  content: Record<string, string | number | null>;
}

const batch = 500;
/** Milliseconds that a caller waits until its change is told at most. */
const pushLimit = 1_000;
/** Between two looks for what another process left, and until an entry is told again that was refused. */
const pollPause = 2_000;
const refusedPause = 60_000;
/** Of what other processes left nobody waits here. */
const mostTold = 10_000;

/** Keeps, with a change, that the auth service is to be told of it. @returns the entry */
export async function tellOfSubscription(
  transaction: SqlTransaction,
  { userId, plan, expiresAt, version }: SubscriptionChange,
): Promise<bigint> {
  return add(transaction, 'subscription', { userId, plan, expiresAt: expiresAt?.toISOString() ?? null, version });
}

/** Keeps, with a change by an administrator, who made it. @returns the entry */
export async function tellOfChange(transaction: SqlTransaction, { at, ...change }: AdminChange): Promise<bigint> {
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
 * Tells the auth service what has changed. That may be told twice, by two processes or after a lost answer, and in whatever
 * order: it knows changes by their ids and subscriptions by their versions.
 */
export function openOutbox(db: Database, { accounts, log }: OutboxOptions): Outbox {
  /** Those who wait until an entry is told. */
  const waiting = new Map<bigint, () => void>();
  /** Entries that were told before anybody waited for it. */
  const told = new Set<bigint>();

  async function tell(rows: readonly Row[]): Promise<void> {
    await accounts.recordChanges({
      subscriptions: rows.filter(({ kind }) => kind === 'subscription').map(subscriptionRecord),
      auditEvents: rows.filter(({ kind }) => kind === 'audit event').map(auditEvent),
    });
    const ids = rows.map(({ id }) => id);
    await db.sql('delete from outbox where id = any($1::bigint[])', [ids]);
    for (const id of ids) {
      const wake = waiting.get(id);
      if (wake === undefined) told.add(id);
      else wake();
    }
    if (told.size > mostTold) told.clear();
  }

  /** An entry that is refused must not keep back the others. */
  async function tellAlone(row: Row): Promise<void> {
    try {
      await tell([row]);
    } catch (error) {
      if (isTransient(error) || !(error instanceof HubError)) throw error;
      log.error({ err: error, entry: String(row.id), kind: row.kind }, 'the auth service refuses to note a change');
      const again = new Date(hubTime() + refusedPause);
      await db.sql('update outbox set not_before = $2 where id = $1', [row.id, again]);
    }
  }

  const loop = repeat('telling the auth service what has changed', log, async () => {
    const rows = await db.sql<Row>('select id, kind, content from outbox where not_before <= $1 order by id limit $2', [
      hubDate(),
      batch,
    ]);
    if (rows.length === 0) return pollPause;
    try {
      await tell(rows);
    } catch (error) {
      if (isTransient(error) || !(error instanceof HubError)) throw error;
      for (const row of rows) await tellAlone(row);
    }
    return 0;
  });

  return {
    async push(entry) {
      if (entry === undefined || told.delete(entry)) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.set(entry, resolve);
      const timer = setTimeout(resolve, pushLimit);
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
