import { randomUUID } from 'node:crypto';
import test from 'ava';
import { openDatabase } from '#lib/database.ts';
import type { DatabaseDefinition } from '#lib/database-definition.ts';
import { migrateDatabase } from '#lib/database-migrations.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import type { NewMessage } from './messages/acceptance-store.ts';
import { balances, openAudit } from './operations/audit.ts';
import { fingerprintOf, timesOf, type Draft, type Report } from './message.ts';
import { openOutbox } from './outbox/store.ts';
import { openStore } from './messages/store.ts';
import { database as definition } from './database.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const open = (poolSize: number) =>
  openDatabase(definition, { url: harness.databaseUrl('message'), poolSize, name: 'test' });
const database = opened(
  () => open(5),
  (database) => database.close(),
);
const store = openStore(database);

const [ana, bia] = [randomUUID(), randomUUID()];

function newMessage(conversationId: string, recipientIds = [bia]): NewMessage {
  const text = 'A text of about a hundred bytes, as people write them to each other all day long, and no longer.';
  const draft: Draft = {
    messageId: randomUUID(),
    conversationId,
    senderId: ana,
    to: [],
    channels: ['whatsapp'],
    content: { type: 'text', text, fileId: '' },
    priority: 'normal',
  };
  const createdAt = new Date();
  return {
    ...draft,
    channels: ['whatsapp'],
    senderUsername: 'ana',
    recipientIds,
    fingerprint: fingerprintOf(draft),
    createdAt,
    ...timesOf(createdAt, 30_000),
    requestId: randomUUID(),
  };
}

function ended(recipientId: string, error = ''): Report {
  const delivered = error === '';
  const at = new Date();
  return { kind: 'ended', at, replay: 0, recipientId, channel: 'whatsapp', delivered, attempts: 1, error };
}

/** Rows of a table inserted, updated, updated in place without a new entry in any index, and deleted since it was made. */
async function writes(table: string): Promise<Record<'inserted' | 'updated' | 'inPlace' | 'deleted', number>> {
  const [row] = await database.sql<Record<'inserted' | 'updated' | 'inPlace' | 'deleted', bigint>>(
    `select n_tup_ins as inserted, n_tup_upd as updated, n_tup_hot_upd as "inPlace", n_tup_del as deleted
      from pg_stat_user_tables where schemaname = 'message' and relname = $1`,
    [table],
  );
  return {
    inserted: Number(row!.inserted),
    updated: Number(row!.updated),
    inPlace: Number(row!.inPlace),
    deleted: Number(row!.deleted),
  };
}

test.serial('a message is written as often as there is something new of it, and its indexes once', async (t) => {
  const count = 2_000;
  const atOnce = 100;
  const busy = open(3);
  const { append, applyReports } = openStore(busy);
  const conversations = Array.from({ length: atOnce }, () => randomUUID());
  for (let done = 0; done < count; done += atOnce) {
    const messages = conversations.map((conversationId) => newMessage(conversationId));
    await Promise.all(messages.map((message) => append(message)));
    const report = (reports: Report[]) => applyReports(new Map(messages.map(({ messageId }) => [messageId, reports])));
    // In one round. A second one may find no room beside, if a transaction somewhere in the cluster is older than the first.
    await report([{ kind: 'routed', at: new Date(), replay: 0 }, ended(bia)]);
  }
  // A connection tells what it has done now and then, and when it ends.
  await busy.close();
  const messages = await writes('messages');
  t.like(messages, { inserted: count, updated: count, deleted: 0 });
  t.log(`${messages.inPlace} of ${messages.updated} in place`);
  t.true(messages.inPlace >= 0.9 * messages.updated);
  t.like(await writes('deliveries'), { inserted: count, updated: 0, deleted: 0 });
  t.like(await writes('status_changes'), { inserted: 0 });
  t.like(await writes('open_messages'), { inserted: count, updated: 0, deleted: count });
});

/** The migrations up to the one whose name begins so. */
function upTo(number: string): DatabaseDefinition {
  return {
    ...definition,
    migrations: definition.migrations.filter(({ name }) => name.slice(0, 4) <= number),
  };
}

test.serial('0005-less-to-write: messages of before are read as they were, end, and balance', async (t) => {
  const url = harness.databaseUrl('message');
  await database.sql(
    'drop table messages, open_messages, deliveries, status_changes, conversation_heads, reads, removals, outbox, outbox_events, dead_letters, leases, migrations',
  );
  await migrateDatabase(upTo('0004'), { url });
  const conversationId = randomUUID();
  const caio = randomUUID();
  const [over, open, late] = [1, 2, 3].map(() => newMessage(conversationId, [bia, caio])) as [
    NewMessage,
    NewMessage,
    NewMessage,
  ];
  const later = (seconds: number) => new Date(over.createdAt.getTime() + seconds * 1_000);
  /** As an earlier version wrote it. */
  async function write(message: NewMessage, seq: number, steps: [status: string, second: number][]): Promise<void> {
    const { messageId, createdAt, expiresAt } = message;
    const [status, second] = steps.at(-1)!;
    await database.sql(
      `insert into messages (message_id, conversation_id, seq, sender_id, sender_username, recipient_ids, channels, payload_type,
          payload_text, priority, status, fingerprint, created_at, updated_at, deliver_by, expires_at)
        values ($1, $2, $3, $4, 'ana', $5, array['whatsapp'], 'text', $6, 'normal', $7, $8, $9, $10, $11, $12)`,
      [
        messageId,
        conversationId,
        seq,
        ana,
        message.recipientIds,
        message.content.text,
        status,
        message.fingerprint,
        createdAt,
        later(second),
        message.deliverBy,
        expiresAt,
      ],
    );
    await database.sql(
      `insert into deliveries (message_id, recipient_id, channel, status, attempts, error, updated_at)
        select $1, recipient, 'whatsapp', $2, 0, '', $3 from unnest($4::uuid[]) as recipient`,
      [messageId, status, later(second), message.recipientIds],
    );
    for (const [step, at] of steps) {
      await database.sql(`insert into status_changes (message_id, status, at, note) values ($1, $2, $3, '')`, [
        messageId,
        step,
        later(at),
      ]);
    }
    await database.sql(`insert into outbox (message_id, request_id, created_at) values ($1, 'before', $2)`, [
      messageId,
      createdAt,
    ]);
  }
  const began: [string, number][] = [['accepted', 0], ['in_transit', 1]]; // prettier-ignore
  await write(over, 1, [...began, ['delivered', 2]]);
  await write(open, 2, began);
  await write(late, 3, [['accepted', 0]]);
  await database.sql('insert into conversation_heads (conversation_id, last_seq) values ($1, 3)', [conversationId]);
  await migrateDatabase(definition, { url });

  const historyOf = async ({ messageId }: NewMessage) =>
    (await store.find(messageId))!.history.map(({ status, at }) => [status, at]);
  const ends = async ({ messageId }: NewMessage) =>
    (await store.find(messageId))!.deliveries.map(({ recipientId, status }) => [recipientId, status]);
  const before = [['accepted', later(0)], ['in_transit', later(1)]]; // prettier-ignore
  t.deepEqual(await historyOf(over), [...before, ['delivered', later(2)]]);
  t.deepEqual(await historyOf(open), before);
  t.deepEqual(await historyOf(late), [before[0]]);
  t.deepEqual(await ends(open), [[bia, 'in_transit'], [caio, 'in_transit']]); // prettier-ignore
  const { entries } = await openOutbox(database).unpublished(10);
  t.deepEqual(
    entries.map(({ event }) => [event.id, event.key, event.requestId]),
    [over, open, late].map(({ messageId }) => [messageId, conversationId, 'before']),
  );

  const at = later(5);
  const reports = [bia, caio].map((recipientId): Report => ({ ...(ended(recipientId) as object), at }) as Report);
  t.deepEqual(await store.applyReports(new Map([[open.messageId, reports]])), {
    unknown: [],
    ended: [{ status: 'delivered', acceptedAt: open.createdAt, replay: 0 }],
  });
  t.deepEqual(await historyOf(open), [...before, ['delivered', at]]);
  t.is(await store.expire(late.expiresAt, 'too late', 10), 1, 'what was open is listed as open');
  t.deepEqual(
    (await historyOf(late)).map(([status]) => status),
    ['accepted', 'failed'],
  );
  t.deepEqual(await ends(late), [[bia, 'failed'], [caio, 'failed']]); // prettier-ignore

  const next = newMessage(conversationId, [bia, caio]);
  await store.append(next);
  const { books } = await openAudit(database).books(over.createdAt, later(60));
  t.like(books.messages, { accepted: 4n, delivered: 2n, failed: 1n, inFlight: 1n });
  t.true(balances(books), JSON.stringify(books.mismatched));
});

test.serial('adoptOpen: what somebody has accepted without listing it as open is listed', async (t) => {
  const message = newMessage(randomUUID());
  await store.expire(message.expiresAt, 'of another test', 10);
  await store.append(message);
  await database.sql('delete from open_messages where message_id = $1', [message.messageId]);
  t.is(await store.expire(message.expiresAt, 'too late', 10), 0);
  const next = { ...newMessage(randomUUID()), expiresAt: new Date(message.expiresAt.getTime() + 60_000) };
  await store.append({ ...next, createdAt: new Date(message.createdAt.getTime() + 5_000) });
  await store.adoptOpen(4_000);
  t.is(await store.expire(message.expiresAt, 'too late', 10), 0, 'it is older than that');
  await store.adoptOpen(5_000);
  await store.adoptOpen(5_000);
  t.is(await store.expire(message.expiresAt, 'too late', 10), 1);
});
