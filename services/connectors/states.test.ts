import test from 'ava';
import { v4 as uuid } from 'uuid';
import { openDatabase } from '#lib/database.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { nextState, type Happening, type State } from './delivery.ts';
import { database as definition } from './database.ts';
import { openStore } from './store.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const db = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('connectors'), poolSize: 4, name: 'states test' }),
  (db) => db.close(),
);
const store = openStore(db);

/** What brings a delivery into a state. */
const ways: Record<State, Happening[]> = {
  pending: ['claim', 'release'],
  claimed: ['claim'],
  waiting: ['claim', 'park'],
  taken: ['claim', 'take'],
  delivered: ['claim', 'deliver'],
  failed: ['claim', 'fail'],
};

/** A delivery on record, and how it gets on. */
function openDelivery() {
  const key = { messageId: uuid(), recipientId: uuid(), channel: 'net' };
  const lane = { ...key, conversationId: uuid() };
  const owner = uuid();
  let round = 0;
  const outcome = () => ({ ...key, replay: round, attempts: 1, endedAt: new Date() });
  const claim = (replay: number) =>
    store.claim([{ ...lane, replay, idempotencyKey: uuid() }], owner, 60_000).then(() => undefined);
  const happen: Record<Happening, () => Promise<unknown>> = {
    claim: () => claim(round),
    release: () => store.release([key], owner),
    park: () => {
      const request = { id: uuid(), value: Buffer.from('x'), callId: 'call' };
      return store.park([{ deliveries: [{ ...lane, replay: round, request, attempts: 1, error: '' }] }], owner, 60_000);
    },
    take: () => store.recordTaken([{ ...key, replay: round, attempts: 1, callId: 'call' }]),
    deliver: () => store.record([{ ...outcome(), delivered: true, error: '' }]),
    fail: () => store.record([{ ...outcome(), delivered: false, error: 'no' }]),
    replay: async () => {
      await claim(round + 1);
      const [row] = await db.sql<{ replay: number }>('select replay from deliveries where message_id = $1', [
        key.messageId,
      ]);
      round = row!.replay;
    },
  };
  async function state(): Promise<State> {
    const [row] = await db.sql<{ state: State }>(
      `select case when delivered then 'delivered' when ended_at is not null then 'failed'
                   when taken_at is not null then 'taken' when parked_at is not null then 'waiting'
                   when claimed_until > now() then 'claimed' else 'pending' end as state
         from deliveries where message_id = $1`,
      [key.messageId],
    );
    return row?.state ?? 'pending';
  }
  return { happen, state };
}

for (const [from, following] of Object.entries(nextState) as [State, Record<Happening, State>][]) {
  test(`states: what is on record follows the table from ${from}`, async (t) => {
    await Promise.all(
      (Object.entries(following) as [Happening, State][]).map(async ([happening, to]) => {
        const { happen, state } = openDelivery();
        for (const step of ways[from]) await happen[step]();
        t.is(await state(), from);
        await happen[happening]();
        t.is(await state(), to, `${from}, then ${happening}`);
      }),
    );
  });
}
