import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { DeliveryAttempted, DeliveryEnded } from '#gen/chat4all/message/v1/events.ts';
import { MessageStatus, PayloadType, Priority } from '#gen/chat4all/message/v1/message.ts';
import { DeliveryRequested } from '#gen/chat4all/router/v1/events.ts';
import type { BusEvent, ReceivedEvent } from '#lib/bus/bus.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { attempting } from './attempt.ts';
import type { Connector, DeliveryToMake } from './connector.ts';
import { sampleDelivery } from './contract.ts';
import { delivering } from './events.ts';
import { startLanes } from './lanes.ts';
import { Slots } from './slots.ts';
import { database as definition } from './database.ts';
import { openStore, type Store } from './store.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const log = openLog({ name: 'connectors', format: 'json', level: 'silent' });
const db = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('connectors'), poolSize: 8, name: 'lanes test' }),
  (db) => db.close(),
);
const store = openStore(db);

type Answer = (
  delivery: DeliveryToMake,
  attempt: number,
  signal: AbortSignal,
) => Promise<'taken' | void> | 'taken' | void;

/** A network of its own for a test, with a channel that no other test has. */
function openChannel(t: ExecutionContext, answer: Answer) {
  const channel = `net-${uuid()}`;
  const asked: { delivery: DeliveryToMake; key: string }[] = [];
  const connector: Connector = {
    name: channel,
    title: 'Net',
    async start() {},
    async stop() {},
    async deliver(delivery, { idempotencyKey: key, signal }) {
      asked.push({ delivery, key });
      return answer(delivery, asked.filter((each) => each.key === key).length, signal);
    },
  };

  /** A process: it handles events as they come over the bus, and what is parked. */
  function startProcess(
    given: {
      store?: Store;
      lease?: number;
      timeout?: number;
      parkedAtOnce?: number;
      publish?: () => Promise<void>;
    } = {},
  ) {
    const { store: own = store, lease = 5_000, timeout = 10_000, parkedAtOnce = 50 } = given;
    const reports: BusEvent[] = [];
    const stopping = new AbortController();
    const shared = {
      store: own,
      lease,
      owner: uuid() as string,
      loads: { count() {}, countBehind() {} },
      attempt: attempting({ connector, log, timeout }),
      async publish(_topic: string, events: readonly BusEvent[]) {
        await given.publish?.();
        reports.push(...events);
      },
    };
    const lanes = startLanes({ ...shared, channel, slots: new Slots(parkedAtOnce), log });
    const handle = delivering({ ...shared, connector, slots: new Slots(100), lanes, stopping: stopping.signal });
    async function stop() {
      stopping.abort();
      await lanes.stop();
    }
    t.teardown(stop);
    const ended = () =>
      reports.filter(({ type }) => type.endsWith('Ended')).map(({ value }) => DeliveryEnded.decode(value));
    return {
      reports,
      handle,
      stop,
      ended,
      attempted: () =>
        reports.filter(({ type }) => type.endsWith('Attempted')).map(({ value }) => DeliveryAttempted.decode(value)),
      hasEnded: (event: ReceivedEvent) => ended().some(({ messageId }) => messageId === requestOf(event).messageId),
    };
  }

  /** An event that asks for deliveries over this channel. */
  function requested(given: Partial<DeliveryRequested> = {}): ReceivedEvent {
    const { content: _, ...sample } = sampleDelivery();
    const request: DeliveryRequested = {
      ...sample,
      acceptedAt: undefined,
      channel,
      payload: {
        type: PayloadType.PAYLOAD_TYPE_TEXT,
        text: 'Olá',
        fileId: '',
        filename: '',
        fileSize: 0n,
        contentType: '',
      },
      priority: Priority.PRIORITY_HIGH,
      replay: 0,
      recipientIds: [],
      ...given,
    };
    return {
      id: uuid(),
      type: 'chat4all.router.v1.DeliveryRequested',
      key: request.conversationId,
      value: DeliveryRequested.encode(request).finish(),
      requestId: `request of ${request.messageId}`,
      topic: `${channel}_outgoing`,
      partition: 0,
    };
  }

  const rowsOf = async (table: string) =>
    (await db.sql<{ n: number }>(`select count(*)::int as n from ${table} where channel = $1`, [channel]))[0]!.n;
  /** Nothing is parked any more, and nothing is left of what was. */
  async function isEmpty(): Promise<boolean> {
    return (await rowsOf('parked')) + (await rowsOf('lanes')) === 0;
  }
  const messages = () => asked.map(({ delivery }) => delivery.messageId);
  return { channel, connector, asked, messages, startProcess, requested, isEmpty };
}

const requestOf = (event: ReceivedEvent) => DeliveryRequested.decode(event.value);
const idsOf = (events: readonly ReceivedEvent[]) => events.map((event) => requestOf(event).messageId);
const away = (retryAfter?: number) => new HubError('UNAVAILABLE', 'NET_AWAY', 'Net is away', { retryAfter });
const until = (what: string, condition: () => boolean | Promise<boolean>) =>
  eventually(what, async () => condition(), Boolean);
const inMilliseconds = (milliseconds: number) => new Date(Date.now() + milliseconds);

test('a recipient whom the network sends away for ever keeps nobody else waiting, in the same conversation neither', async (t) => {
  const [throttled, other] = [uuid(), uuid()];
  const net = openChannel(t, ({ recipientId }) => {
    if (recipientId === throttled) throw away(0.2);
  });
  const { handle, hasEnded, ended } = net.startProcess();
  const conversationId = uuid();
  const stuck = net.requested({ conversationId, recipientId: throttled, deliverBy: inMilliseconds(4_000) });
  const behind = net.requested({ conversationId, recipientId: throttled, deliverBy: inMilliseconds(4_000) });
  const neighbour = net.requested({ conversationId, recipientId: other });
  const stranger = net.requested();
  await handle([stuck, behind, neighbour, stranger]);
  t.true(hasEnded(neighbour) && hasEnded(stranger), 'delivered in the batch');
  t.false(hasEnded(stuck));
  const later = net.requested({ conversationId, recipientId: other });
  await handle([later]);
  t.true(hasEnded(later) && !hasEnded(stuck));

  await until('the throttled ones end', () => hasEnded(stuck) && hasEnded(behind));
  const failed = ended().filter(({ recipientId }) => recipientId === throttled);
  t.deepEqual(
    failed.map(({ messageId, status }) => [messageId, status]),
    idsOf([stuck, behind]).map((id) => [id, MessageStatus.MESSAGE_STATUS_FAILED]),
  );
  t.is(failed[0]!.error, 'The delivery deadline had passed; the last answer was: Net is away');
  t.true(failed[0]!.attempts > 3);
  await until('nothing is left', net.isEmpty);
});

test('a network that is silent to one recipient holds up a batch for a moment only, and its attempts have an end', async (t) => {
  const silent = uuid();
  const net = openChannel(t, ({ recipientId }, attempt, signal) => {
    if (recipientId !== silent || attempt > 1 || net.asked.length > 3) return undefined;
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('called off'))));
  });
  const { handle, hasEnded, ended, attempted } = net.startProcess({ timeout: 1_500 });
  const lane = { conversationId: uuid(), recipientId: silent };
  const [first, second, other] = [net.requested(lane), net.requested(lane), net.requested()];
  await handle([first, second, other]);
  t.true(hasEnded(other));
  t.false(hasEnded(first), 'the network is still being asked');
  await until('the silent ones end', () => hasEnded(second));
  t.deepEqual(
    ended().map(({ messageId, attempts, error }) => [messageId, attempts, error]),
    [
      [idsOf([other])[0], 1, ''],
      [idsOf([first])[0], 2, ''],
      [idsOf([second])[0], 1, ''],
    ],
  );
  t.true(attempted().every(({ error }) => error === 'Net did not answer in time'));
  t.is(new Set(net.asked.filter(({ delivery }) => delivery.recipientId === silent).map(({ key }) => key)).size, 2);
  await until('nothing is left', net.isEmpty);
});

test('what comes for a lane that waits is parked behind, without an attempt, and goes in order', async (t) => {
  let isAway = true;
  const net = openChannel(t, () => {
    if (isAway) throw away();
  });
  const { handle, ended } = net.startProcess();
  const lane = { conversationId: uuid(), recipientId: uuid() };
  const events = Array.from({ length: 25 }, () => net.requested(lane));
  await handle(events.slice(0, 10));
  t.is(new Set(net.messages()).size, 1);
  for (const event of events.slice(10)) await handle([event]);
  t.is(new Set(net.messages()).size, 1, 'nothing behind it was tried');
  isAway = false;
  await until('all have ended', () => ended().length === events.length);
  t.deepEqual([...new Set(net.messages())], idsOf(events));
  t.true(ended().every(({ status }) => status === MessageStatus.MESSAGE_STATUS_DELIVERED));
  await until('nothing is left', net.isEmpty);
  const requests = await db.sql('select id from requests where id = any($1::uuid[])', [events.map(({ id }) => id)]);
  t.deepEqual(requests, []);
});

test('an attempt after which a delivery waits is reported, with the next one; and attempts are counted on', async (t) => {
  const net = openChannel(t, (_delivery, attempt) => {
    if (attempt <= 2) throw away(0.3);
  });
  const { handle, reports, attempted, ended } = net.startProcess();
  const event = net.requested();
  await handle([event]);
  await until('it has ended', () => ended().length > 0);
  t.like(
    attempted(),
    [1, 2].map((attempts) => ({ attempts, error: 'Net is away', channel: net.channel, replay: 0 })),
  );
  for (const { at, nextAttemptAt } of attempted()) t.true(+nextAttemptAt! >= +at! + 300);
  t.is(ended()[0]!.attempts, 3);
  t.true(reports.every(({ key, requestId }) => key === event.key && requestId === event.requestId));
  t.is(new Set(reports.map(({ id }) => id)).size, 3);
});

test('an event for several people is one delivery for each, with its content kept once and a key of its own', async (t) => {
  let isAway = true;
  const net = openChannel(t, () => {
    if (isAway) throw away(0.1);
  });
  const { handle, ended } = net.startProcess();
  const recipientIds = [uuid(), uuid(), uuid()];
  const event = net.requested({ recipientId: '', recipientIds });
  await handle([event]);
  const kept = await db.sql<{ deliveries: number }>('select deliveries from requests where id = $1', [event.id]);
  t.deepEqual(kept, [{ deliveries: 3 }]);
  await handle([event]);
  isAway = false;
  await until('all have ended', () => ended().length === 3);
  t.deepEqual(
    ended()
      .map(({ recipientId }) => recipientId)
      .toSorted(),
    recipientIds.toSorted(),
  );
  t.is(new Set(net.asked.map(({ key }) => key)).size, 3);
  t.like(net.asked[0]!.delivery, { content: { type: 'text', text: 'Olá' } });
  await until('nothing is left', net.isEmpty);
  t.deepEqual(await db.sql('select id from requests where id = $1', [event.id]), []);
});

test('processes share what is parked, each lane is one’s at a time, and each delivery has one effect', async (t) => {
  const busy = new Set<string>();
  const done = new Set<string>();
  let overlaps = 0;
  let isAway = true;
  const net = openChannel(t, async ({ conversationId, messageId }) => {
    if (isAway) throw away(0.2);
    if (busy.has(conversationId)) overlaps += 1;
    busy.add(conversationId);
    await sleep(20);
    busy.delete(conversationId);
    done.add(messageId);
  });
  const processes = [1, 2, 3].map(() => net.startProcess({ parkedAtOnce: 2 }));
  const lanes = Array.from({ length: 20 }, () => ({ conversationId: uuid(), recipientId: uuid() }));
  const events = Array.from({ length: 200 }, (_, index) => net.requested(lanes[index % lanes.length]!));
  await processes[0]!.handle(events);
  isAway = false;
  const ended = () => processes.flatMap((process) => process.ended());
  await until('all have ended', () => ended().length === events.length);
  t.is(done.size, events.length);
  t.is(overlaps, 0);
  const seqs = Map.groupBy(net.asked, ({ delivery }) => delivery.conversationId);
  for (const [conversationId, some] of seqs) {
    const own = events.filter(({ key }) => key === conversationId);
    t.deepEqual([...new Set(some.map(({ delivery }) => delivery.messageId))], idsOf(own));
  }
  t.true(processes.filter((process) => process.ended().length > 0).length > 1, 'the work was shared');
  await until('nothing is left', net.isEmpty);
});

test('a process that dies leaves its lanes to others once its claim has run out, with the same key', async (t) => {
  const net = openChannel(t, (_delivery, attempt, signal) => {
    if (attempt === 1) throw away();
    if (attempt > 2) return undefined;
    // The process that asks dies while it waits.
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('called off'))));
  });
  let isDead = false;
  const grave = Promise.withResolvers<never>();
  const dying = Object.fromEntries(
    Object.entries(store).map(([name, query]) => [
      name,
      (...args: never[]) => (isDead ? grave.promise : (query as (...given: never[]) => unknown)(...args)),
    ]),
  ) as unknown as Store;
  const first = net.startProcess({ store: dying, lease: 2_000 });
  t.teardown(() => grave.reject(new Error('dead')));
  const event = net.requested();
  await first.handle([event]);
  await until('it is being tried again', () => net.asked.length === 2);
  isDead = true;
  const second = net.startProcess();
  await until('another process has made it', () => second.hasEnded(event));
  t.is(second.ended()[0]!.status, MessageStatus.MESSAGE_STATUS_DELIVERED);
  t.is(new Set(net.asked.map(({ key }) => key)).size, 1);
  await until('nothing is left', net.isEmpty);
});

test('a lane stays claimed for as long as an attempt takes', async (t) => {
  const finish = Promise.withResolvers<void>();
  let isAway = true;
  const net = openChannel(t, async () => {
    if (isAway) throw away();
    await finish.promise;
  });
  const holder = net.startProcess({ lease: 1_500 });
  const event = net.requested();
  await holder.handle([event]);
  isAway = false;
  await until('it is being tried again', () => net.asked.length >= 2);
  const asked = net.asked.length;
  net.startProcess({ lease: 1_500 });
  await sleep(3_500);
  t.is(net.asked.length, asked, 'nobody else tried');
  finish.resolve();
  await until('it has ended', () => holder.hasEnded(event));
});

test('an end that is recorded and could not be reported is reported later, and the network is not asked again', async (t) => {
  let isBusAway = false;
  let isAway = true;
  const net = openChannel(t, () => {
    if (isAway) throw away();
    isBusAway = true;
  });
  const publish = async () => {
    if (isBusAway) throw new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'away');
  };
  const first = net.startProcess({ publish, lease: 1_500 });
  const event = net.requested();
  await first.handle([event]);
  isAway = false;
  await until('the end is on record', async () => (await store.listEnded(requestOf(event).messageId)).length === 1);
  t.false(await net.isEmpty(), 'it stays parked until it is reported');
  await first.stop();
  const second = net.startProcess();
  await until('it is reported', () => second.hasEnded(event));
  const asked = net.asked.length;
  await until('nothing is left', net.isEmpty);
  t.is(net.asked.length, asked);
});

test('told to stop, a process finishes what it is trying and gives the rest of its lanes back at once', async (t) => {
  const stopped = Promise.withResolvers<void>();
  let isAway = true;
  const net = openChannel(t, async () => {
    if (isAway) throw away();
    await stopped.promise;
  });
  const first = net.startProcess({ lease: 60_000 });
  const lane = { conversationId: uuid(), recipientId: uuid() };
  const events = [net.requested(lane), net.requested(lane)];
  await first.handle(events);
  isAway = false;
  const before = net.asked.length;
  await until('the first one is being tried', () => net.asked.length > before);
  const stopping = first.stop();
  stopped.resolve();
  await stopping;
  t.true(first.hasEnded(events[0]!));
  t.false(first.hasEnded(events[1]!));
  const second = net.startProcess();
  await until('the other process makes the second', () => second.hasEnded(events[1]!));
  t.deepEqual([...new Set(net.messages())], idsOf(events));
});

test('a parked delivery whose message is replayed goes on in its new round only', async (t) => {
  let isAway = true;
  const net = openChannel(t, () => {
    if (isAway) throw away(0.2);
  });
  const { handle, ended } = net.startProcess();
  const event = net.requested();
  await handle([event]);
  const replay = {
    ...event,
    id: uuid(),
    value: DeliveryRequested.encode({ ...requestOf(event), replay: 1 }).finish(),
  };
  await handle([replay]);
  isAway = false;
  await until('it has ended', () => ended().length > 0);
  await until('nothing is left', net.isEmpty);
  t.deepEqual(
    ended().map(({ replay: round, status }) => [round, status]),
    [[1, MessageStatus.MESSAGE_STATUS_DELIVERED]],
  );
  t.is(new Set(net.asked.map(({ key }) => key)).size, 1);
});

test('a network that takes a parked delivery and reports later has it: it is parked no more, and not made again', async (t) => {
  const net = openChannel(t, (_delivery, attempt) => {
    if (attempt === 1) throw away();
    return 'taken';
  });
  const { handle, ended } = net.startProcess();
  const event = net.requested();
  await handle([event]);
  await until('it is taken', net.isEmpty);
  await handle([event]);
  t.is(net.asked.length, 2);
  t.deepEqual(ended(), []);
});
