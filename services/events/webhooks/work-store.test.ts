import { randomUUID } from 'node:crypto';
import test from 'ava';
import { openDatabase } from '#lib/database.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { database as definition } from '../database.ts';
import { openEndpointsStore } from './endpoints-store.ts';
import { openWorkStore, type Backlog, type Work } from './work-store.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const database = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('events'), poolSize: 5, name: 'test' }),
  (database) => database.close(),
);
const endpoints = openEndpointsStore(database);
const store = openWorkStore(database);
const leaseMs = 60_000;

const backlog = (): Backlog => ({
  id: randomUUID(),
  kind: 'conversation',
  conversationId: randomUUID(),
  after: 0,
  upTo: null,
  remaining: null,
  attempts: 1,
  failingSince: new Date(),
  nextAt: new Date(),
});

async function claim(id: string): Promise<{ work: Work; backlogs: Backlog[] }> {
  const claimed = await store.claim(10, leaseMs);
  return claimed.find(({ work }) => work.id === id)!;
}

const progressOf = (work: Work, backlogs: readonly Backlog[] = []) => ({
  position: work.position,
  failures: 0,
  failingSince: null,
  holdUntil: null,
  backlogs,
  removedBacklogIds: [],
  attempts: [],
});

test.serial(
  'who works on an endpoint that was resumed and claimed again meanwhile records nothing any more',
  async (t) => {
    const userId = randomUUID();
    const { id } = await endpoints.create(userId, { url: 'https://example.org/', types: [], conversationIds: [] });
    const { work: before } = await claim(id);
    t.true(await store.record(before, progressOf(before)));
    t.deepEqual(await store.claim(10, leaseMs), [], 'nobody else works on it');

    await endpoints.pause(userId, id);
    await endpoints.resume(userId, id, true);
    const { work: after, backlogs } = await claim(id);
    t.not(after.lease, before.lease);
    t.deepEqual(backlogs, []);

    // The one before has skipped nothing: what it had failed to deliver must not come back.
    t.false(await store.record(before, progressOf(before, [backlog()])));
    t.deepEqual(
      (await store.renew([before, after], leaseMs)).map(({ lease }) => lease),
      [after.lease],
    );
    await store.release(before, 0, null);
    t.false(await store.stop(before, 'disabled'));
    await store.reset(before, { epoch: 1, position: 5 }, { ...backlog(), kind: 'reset', conversationId: null });

    const own = backlog();
    t.true(await store.record(after, progressOf(after, [own])));
    await store.release(after, after.position, new Date());
    const again = await claim(id);
    t.like(again.work, { position: after.position, epoch: after.epoch, status: 'active' });
    t.deepEqual(
      again.backlogs.map((each) => each.id),
      [own.id],
    );
  },
);
