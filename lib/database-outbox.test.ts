import { randomUUID } from 'node:crypto';
import test from 'ava';
import { openHarness } from '../test/harness.ts';
import { opened } from '../test/opened.ts';
import type { BusEvent } from './bus/bus.ts';
import { addToOutbox, startOutboxRelay } from './database-outbox.ts';
import { openDatabase } from './database.ts';
import { openLog } from './log.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const database = opened(
  () =>
    openDatabase(
      { schema: 'conversation', migrations: [] },
      { url: harness.databaseUrl('conversation'), poolSize: 3, name: 'test' },
    ),
  (database) => database.close(),
);

test('outbox: events are published in the order in which they were added', async (t) => {
  const added = Array.from({ length: 40 }, (_, number) => ({
    topic: 'conversation_changes',
    id: randomUUID(),
    type: 'Happened',
    key: 'a conversation',
    value: Buffer.from(String(number)),
    requestId: 'request',
  }));
  for (const [index, event] of added.entries()) {
    if (index % 4 > 0) continue;
    await database.transaction(async (transaction) =>
      addToOutbox(transaction, [event, ...added.slice(index + 1, index + 4)]),
    );
  }
  const published = Promise.withResolvers<readonly BusEvent[]>();
  const relay = startOutboxRelay({
    database,
    bus: { publish: async (_topic, events) => published.resolve(events) },
    log: openLog({ name: 'test', format: 'json', level: 'silent' }),
  });
  t.teardown(() => relay.stop());
  t.deepEqual(
    (await published.promise).map(({ id, value }) => [id, String(value)]),
    added.map(({ id, value }) => [id, String(value)]),
  );
});
