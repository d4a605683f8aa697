import test from 'ava';
import { v4 as uuid } from 'uuid';
import { openDatabase } from '#lib/database.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { forgetDeliveries } from './forgetting.ts';
import { forgetEffects } from './simulation/registration.ts';
import { database as definition } from './database.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const log = openLog({ name: 'connectors', format: 'json', level: 'silent' });
const db = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('connectors'), poolSize: 3, name: 'forgetting test' }),
  (db) => db.close(),
);

test('what ended, or was taken, long ago is forgotten, with its effect; what is younger is not', async (t) => {
  const retention = 24 * 3_600_000;
  const [long, now] = [new Date(Date.now() - 2 * retention), new Date()];
  async function delivery(endedAt: Date | null, takenAt: Date | null, claimedUntil: Date): Promise<string> {
    const [messageId, key] = [uuid(), uuid()];
    await db.sql(
      `insert into deliveries (message_id, recipient_id, channel, conversation_id, idempotency_key, claimed_by, claimed_until,
          delivered, attempts, error, ended_at, taken_at)
        values ($1, $2, 'whatsapp', $3, $4, $5, $6, $7, 1, $8, $9, $10)`,
      [
        messageId,
        uuid(),
        uuid(),
        key,
        uuid(),
        claimedUntil,
        endedAt === null ? null : true,
        endedAt === null ? null : '',
        endedAt,
        takenAt,
      ],
    );
    await db.sql(
      `insert into provider_effects (channel, idempotency_key, message_id, conversation_id, seq, recipient_id, first_at, requests,
          reports_later)
        values ('whatsapp', $1, $2, $3, 1, $4, $5, 1, false)`,
      [key, messageId, uuid(), uuid(), endedAt ?? takenAt ?? claimedUntil],
    );
    return messageId;
  }
  const old = [await delivery(long, null, long), await delivery(null, long, long), await delivery(null, null, long)];
  const young = [await delivery(now, long, long), await delivery(null, now, long), await delivery(null, null, now)];
  for (const forget of [forgetDeliveries, forgetEffects]) {
    const forgetting = forget({ database: db, retention, log });
    t.teardown(() => forgetting.stop());
  }
  const left = async (table: 'deliveries' | 'provider_effects') =>
    (await db.sql<{ id: string }>(`select message_id as id from ${table}`)).map(({ id }) => id);
  for (const table of ['deliveries', 'provider_effects'] as const) {
    const found = await eventually(
      `the old ones are gone from ${table}`,
      () => left(table),
      (ids) => old.every((id) => !ids.includes(id)),
    );
    t.deepEqual([...new Set(found)].toSorted(), young.toSorted());
  }
});
