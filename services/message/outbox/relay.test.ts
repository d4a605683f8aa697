import { randomUUID } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { MessageAccepted } from '#gen/chat4all/message/v1/events.ts';
import type { Bus, BusEvent } from '#lib/bus/bus.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { listen } from '#lib/notifications.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { fingerprintOf, timesOf, type Draft } from '../message.ts';
import { openOutbox, outboxNotification, type Outbox } from './store.ts';
import { startRelay, type Relay } from './relay.ts';
import type { NewMessage } from '../messages/acceptance-store.ts';
import { openStore } from '../messages/store.ts';
import { database as definition } from '../database.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const database = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('message'), poolSize: 5, name: 'test' }),
  (database) => database.close(),
);
const store = openStore(database);
const outbox = openOutbox(database);
const log = openLog({ name: 'message', format: 'json', level: 'silent' });

/** Accepts a message. */
async function append(conversationId: string, text = 'Olá'): Promise<NewMessage> {
  const createdAt = new Date();
  const draft: Draft = {
    messageId: randomUUID(),
    conversationId,
    senderId: randomUUID(),
    to: [],
    channels: ['whatsapp'],
    content: { type: 'text', text, fileId: '' },
    priority: 'normal',
  };
  const message = {
    ...draft,
    channels: ['whatsapp'],
    senderUsername: 'ana',
    recipientIds: [randomUUID()],
    fingerprint: fingerprintOf(draft),
    createdAt,
    ...timesOf(createdAt, 30_000),
    requestId: `request of ${draft.messageId}`,
  };
  await store.append(message);
  return message;
}

/** A bus that takes what it is given unless it is `away`; `asked` counts how often it was. */
function openBus() {
  const state = { asked: 0, away: false, published: [] as BusEvent[], hold: Promise.resolve() };
  const require = () => {
    if (state.away) throw new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'away');
  };
  const unused = () => Promise.reject(new Error('nobody asks for this'));
  const bus: Bus = {
    async publish(topic, events) {
      // Everything is published there, too.
      if (topic === 'message_changes') return;
      if (topic !== 'message_processing') throw new Error(`the relay publishes on ${topic}`);
      state.asked += 1;
      await state.hold;
      require();
      state.published.push(...events);
    },
    probe: async () => {},
    consume: unused,
    lag: unused,
    stop: unused,
  };
  return Object.assign(state, { bus });
}

function start(t: ExecutionContext, bus: Bus, given: Outbox = outbox): Relay {
  const relay = startRelay({ outbox: given, bus, log });
  t.teardown(() => relay.stop());
  return relay;
}

const waiting = async () => (await outbox.unpublished(1_000)).entries.map(({ event }) => event.id);
const isEmpty = () => eventually('the outbox is empty', waiting, (ids) => ids.length === 0);
const idsOf = (messages: readonly { messageId: string }[]) => messages.map(({ messageId }) => messageId);

/** What sends are told. */
function answerOf(relay: Relay): string {
  try {
    relay.requireBus();
    return 'accepted';
  } catch (error) {
    return `${(error as HubError).kind} ${(error as HubError).reason}`;
  }
}

test.serial('what was accepted is published once, in the order of its conversation, with its call’s id', async (t) => {
  const bus = openBus();
  const conversationId = randomUUID();
  const relay = start(t, bus.bus);
  const messages: NewMessage[] = [];
  for (let count = 0; count < 20; count += 1) {
    messages.push(await append(conversationId));
    relay.wake();
  }
  await isEmpty();
  t.deepEqual(
    bus.published.map(({ id, type, key, requestId }) => ({ id, type, key, requestId })),
    messages.map(({ messageId, requestId }) => ({
      id: messageId,
      type: 'chat4all.message.v1.MessageAccepted',
      key: conversationId,
      requestId,
    })),
  );
  t.deepEqual(
    bus.published.map(({ value }) => MessageAccepted.decode(value)).map(({ seq, deliverBy }) => ({ seq, deliverBy })),
    messages.map(({ deliverBy }, index) => ({ seq: BigInt(index + 1), deliverBy })),
  );
});

test.serial('what is published at once is bounded in bytes, and one that is larger goes alone', async (t) => {
  const bus = openBus();
  const sizes: number[] = [];
  const conversationId = randomUUID();
  const messages: NewMessage[] = [];
  const texts = [
    'small',
    ...Array.from({ length: 40 }, () => 'x'.repeat(60_000)),
    'y'.repeat(1_100_000),
    'small again',
  ];
  for (const text of texts) messages.push(await append(conversationId, text));
  start(t, {
    ...bus.bus,
    async publish(topic, events) {
      if (topic === 'message_processing') sizes.push(events.reduce((sum, { value }) => sum + value.length, 0));
      await bus.bus.publish(topic, events);
    },
  });
  await isEmpty();
  t.deepEqual(
    bus.published.map(({ id }) => id),
    idsOf(messages),
  );
  t.true(sizes.length >= 5);
  t.is(sizes.filter((size) => size > 1024 * 1024 + 2_000).length, 1, 'the one that is larger');
});

test.serial('what an earlier version has left in the outbox is published all the same', async (t) => {
  const bus = openBus();
  const message = await append(randomUUID());
  const [before] = (await outbox.unpublished(1)).entries;
  await database.sql('update outbox set conversation_id = null, seq = null, event = null');
  start(t, bus.bus);
  await isEmpty();
  t.is(bus.published[0]?.id, message.messageId);
  const read = ({ event }: { event: BusEvent }) => ({ ...event, value: MessageAccepted.decode(event.value) });
  t.deepEqual(read({ event: bus.published[0]! }), read(before!));
});

test.serial('what the bus did not take stays in the outbox, and is published when it is back', async (t) => {
  const bus = openBus();
  bus.away = true;
  const conversationId = randomUUID();
  const messages = [await append(conversationId), await append(conversationId)];
  start(t, bus.bus);
  await eventually(
    'it was tried more than once',
    () => bus.asked,
    (asked) => asked >= 2,
  );
  t.deepEqual(await waiting(), idsOf(messages));
  bus.away = false;
  await isEmpty();
  t.deepEqual(
    bus.published.map(({ id }) => id),
    idsOf(messages),
  );
});

test.serial('a row leaves the outbox only once the bus has its event', async (t) => {
  const bus = openBus();
  const taken = Promise.withResolvers<void>();
  bus.hold = taken.promise;
  const message = await append(randomUUID());
  start(t, bus.bus);
  await eventually(
    'it is being published',
    () => bus.asked,
    (asked) => asked === 1,
  );
  t.deepEqual(await waiting(), [message.messageId]);
  taken.resolve();
  await isEmpty();
  t.is(bus.asked, 1);
});

test.serial('only who has the lease publishes; the next one does once it was let go of', async (t) => {
  const [first, second] = [openBus(), openBus()];
  const relay = start(t, first.bus);
  const message = await append(randomUUID());
  await isEmpty();
  let refused = 0;
  const other = start(t, second.bus, {
    ...outbox,
    async holdLease(...given) {
      const lease = await outbox.holdLease(...given);
      if (lease === undefined) refused += 1;
      return lease;
    },
  });
  const next = await append(randomUUID());
  other.wake();
  await eventually(
    'the other one has asked for the lease',
    () => refused,
    (count) => count >= 2,
  );
  await isEmpty();
  t.deepEqual(
    first.published.map(({ id }) => id),
    idsOf([message, next]),
  );
  t.deepEqual(second.published, []);

  await relay.stop();
  const stopped = performance.now();
  const last = await append(randomUUID());
  await isEmpty();
  t.deepEqual(
    second.published.map(({ id }) => id),
    [last.messageId],
  );
  t.log(`${Math.round(performance.now() - stopped)} ms until the other one published`);
});

test.serial('who has the lease and can not publish leaves it to one that can', async (t) => {
  const [first, second] = [openBus(), openBus()];
  first.away = true;
  let leases = 0;
  start(t, first.bus, {
    ...outbox,
    async holdLease(...given) {
      const lease = await outbox.holdLease(...given);
      if (lease !== undefined) leases += 1;
      return lease;
    },
  });
  await eventually(
    'it has the lease',
    () => leases,
    (count) => count > 0,
  );
  start(t, second.bus);
  const messages = [await append(randomUUID()), await append(randomUUID())];
  await isEmpty();
  t.true(first.asked > 1);
  t.deepEqual(
    second.published.map(({ id }) => id),
    idsOf(messages),
  );
});

test.serial('who has the lease hears at once of what another process has accepted', async (t) => {
  const [first, second] = [openBus(), openBus()];
  let leases = 0;
  const relay = start(t, first.bus, {
    ...outbox,
    async holdLease(...given) {
      const lease = await outbox.holdLease(...given);
      if (lease !== undefined) leases += 1;
      return lease;
    },
  });
  let heard = 0;
  const connection = { connectionString: harness.databaseUrl('message') };
  const hear = () => {
    heard += 1;
    relay.notified();
  };
  const notifications = await listen(connection, outboxNotification, hear, log);
  t.teardown(() => notifications.close());
  await eventually(
    'it has the lease',
    () => leases,
    (count) => count > 0,
  );
  const before = heard;
  const other = start(t, second.bus);
  const message = await append(randomUUID());
  other.wake();
  await isEmpty();
  t.deepEqual(
    first.published.map(({ id }) => id),
    [message.messageId],
  );
  await eventually(
    'it was told',
    () => heard,
    (count) => count > before,
  );
});

test.serial('a relay that stops lets go of its lease at once', async (t) => {
  let held = 0;
  const relay = start(t, openBus().bus, {
    ...outbox,
    async holdLease(...given) {
      const lease = await outbox.holdLease(...given);
      if (lease !== undefined) held += 1;
      return lease;
    },
  });
  await eventually(
    'it has the lease',
    () => held,
    (count) => count > 0,
  );
  const other = randomUUID();
  t.is(await outbox.holdLease(other, 60_000), undefined);
  await relay.stop();
  t.truthy(await outbox.holdLease(other, 60_000));
  await outbox.releaseLease(other);
});

test.serial('a relay that was overtaken while it published leaves its rows to the next one', async (t) => {
  const bus = openBus();
  const taken = Promise.withResolvers<void>();
  bus.hold = taken.promise;
  const message = await append(randomUUID());
  let tookOut = 0;
  start(t, bus.bus, {
    ...outbox,
    async published(...given) {
      await outbox.published(...given);
      tookOut += 1;
    },
  });
  await eventually(
    'it is being published',
    () => bus.asked,
    (asked) => asked === 1,
  );
  const other = randomUUID();
  await database.sql(
    `update leases set owner = $1, epoch = epoch + 1, expires_at = now() + interval '1 minute' where name = 'relay'`,
    [other],
  );
  taken.resolve();
  await eventually(
    'it has published',
    () => tookOut,
    (count) => count === 1,
  );
  t.deepEqual(await waiting(), [message.messageId]);
  await outbox.releaseLease(other);
  await isEmpty();
});

test.serial(
  'sends are refused while the bus does not answer, or the oldest event has waited for too long',
  async (t) => {
    const bus = openBus();
    let isThere = true;
    const relay = start(t, {
      ...bus.bus,
      async probe() {
        if (!isThere) throw new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'away');
      },
    });
    const becomes = (answer: string) =>
      eventually(
        `sends are ${answer}`,
        () => answerOf(relay),
        (found) => found === answer,
      );
    const refused = 'UNAVAILABLE BUS_UNAVAILABLE';
    t.is(answerOf(relay), 'accepted');
    isThere = false;
    await becomes(refused);
    isThere = true;
    await becomes('accepted');

    bus.away = true;
    await append(randomUUID());
    await database.sql(`update outbox set created_at = now() - interval '4 s'`);
    await becomes(refused);
    t.true((t.throws(() => relay.requireBus()) as HubError).retryAfter! > 0);
    bus.away = false;
    await isEmpty();
    await becomes('accepted');
  },
);
