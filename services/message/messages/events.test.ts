import test, { type ExecutionContext } from 'ava';
import { register } from 'prom-client';
import { v4 as uuid } from 'uuid';
import { DeliveryAttempted, DeliveryEnded, MessageRejected, MessageRouted } from '#gen/chat4all/message/v1/events.ts';
import { MessageStatus } from '#gen/chat4all/message/v1/message.ts';
import type { Bus, ConsumeOptions, Lag, ReceivedEvent } from '#lib/bus/bus.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { loadConfig } from '#lib/config.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { database as definition } from '../database.ts';
import { consumeReports, startSweep } from './events.ts';
import { fingerprintOf, timesOf, type Draft, type Report } from '../message.ts';
import type { Ended } from './settlement-store.ts';
import { openStore, type Store } from './store.ts';

function recordingLog() {
  const lines: { level: number; msg: string; unknown?: string[]; expired?: number; reports?: number }[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
  return { lines, log: openLog({ name: 'message', format: 'json', level: 'info', destination }) };
}

const unused = async () => {
  throw new Error('nobody asks for this');
};

/** The consumer of reports before a store that answers so, and what it gave that store. */
async function reporting(answer: { unknown: string[]; ended: Ended[] } = { unknown: [], ended: [] }) {
  const { lines, log } = recordingLog();
  const applied: ReadonlyMap<string, readonly Report[]>[] = [];
  const store = {
    async applyReports(reports: ReadonlyMap<string, readonly Report[]>) {
      applied.push(reports);
      return answer;
    },
  } as Store;
  let options: ConsumeOptions | undefined;
  const bus: Bus = {
    async consume(given) {
      options = given;
      return { stop: async () => {} };
    },
    publish: unused,
    probe: unused,
    lag: unused,
    stop: unused,
  };
  await consumeReports({ bus, store, relay: { wake() {} }, log });
  return { handle: options!.handle, options: options!, applied, lines };
}

function event(type: string, value: Uint8Array): ReceivedEvent {
  const id = uuid();
  return { id, type, value, key: uuid(), requestId: id, topic: 'message_status', partition: 0 };
}

const at = new Date('2026-01-01T10:00:00.123Z');

test('consumeReports: what router and connectors say is applied as they say it, in their order', async (t) => {
  const { handle, options, applied } = await reporting();
  t.deepEqual(options.topics, ['message_status']);
  const [first, second, recipientId] = [uuid(), uuid(), uuid()];
  const delivery = { recipientId, channel: 'whatsapp', attempts: 2, at, replay: 1 };
  const ended = (messageId: string, status: MessageStatus, error: string) =>
    event(
      'chat4all.message.v1.DeliveryEnded',
      DeliveryEnded.encode({ messageId, ...delivery, status, error }).finish(),
    );
  const nextAttemptAt = new Date(at.getTime() + 1_000);
  await handle([
    event('chat4all.message.v1.MessageRouted', MessageRouted.encode({ messageId: first, at, replay: 1 }).finish()),
    ended(second, MessageStatus.MESSAGE_STATUS_FAILED, 'blocked'),
    event(
      'chat4all.message.v1.DeliveryAttempted',
      DeliveryAttempted.encode({ messageId: first, ...delivery, error: 'away', nextAttemptAt }).finish(),
    ),
    ended(first, MessageStatus.MESSAGE_STATUS_DELIVERED, ''),
    event(
      'chat4all.message.v1.MessageRejected',
      MessageRejected.encode({ messageId: second, at, reason: 'no route', replay: 0 }).finish(),
    ),
  ]);
  t.deepEqual(
    applied.map((reports) => new Map(reports)),
    [
      new Map<string, readonly Report[]>([
        [
          first,
          [
            { kind: 'routed', at, replay: 1 },
            { kind: 'attempted', ...delivery, error: 'away', nextAttemptAt },
            { kind: 'ended', ...delivery, delivered: true, error: '' },
          ],
        ],
        [
          second,
          [
            { kind: 'ended', ...delivery, delivered: false, error: 'blocked' },
            { kind: 'rejected', at, reason: 'no route', replay: 0 },
          ],
        ],
      ]),
    ],
  );
});

test('consumeReports: a report of a message that is not known is an error in the log, and holds up nothing', async (t) => {
  const unknown = uuid();
  const { handle, lines } = await reporting({ unknown: [unknown], ended: [] });
  const value = MessageRouted.encode({ messageId: unknown, at, replay: 0 }).finish();
  await handle([event('chat4all.message.v1.MessageRouted', value)]);
  t.like(lines, [{ level: 50, unknown: [unknown] }]);
  t.is(lines.length, 1);
});

test('consumeReports: what is no report is refused, with all that came with it', async (t) => {
  const { handle, applied } = await reporting();
  const good = MessageRouted.encode({ messageId: uuid(), at, replay: 0 }).finish();
  for (const bad of [event('chat4all.message.v1.MessageAccepted', good), event('', Buffer.alloc(0))]) {
    await t.throwsAsync(handle([event('chat4all.message.v1.MessageRouted', good), bad]), { message: /Not a report/ });
  }
  const unreadable = event('chat4all.message.v1.DeliveryEnded', Buffer.from([255, 255, 255]));
  await t.throwsAsync(handle([unreadable]));
  t.deepEqual(applied, []);
});

/** What a counter stands at. */
async function counted(name: string): Promise<number> {
  const { values } = await register.getSingleMetric(`chat4all_${name}`)!.get();
  return values.reduce((sum, { value }) => sum + value, 0);
}

test('startSweep: fails what is late with the deadline as its reason, full batches without a pause, and counts it', async (t) => {
  const { lines, log } = recordingLog();
  const found = [500, 500, 3];
  const calls: { now: Date; reason: string; limit: number }[] = [];
  const adopted: number[] = [];
  const store = {
    async adoptOpen(milliseconds: number) {
      adopted.push(milliseconds);
    },
    async expire(now: Date, reason: string, limit: number) {
      calls.push({ now, reason, limit });
      return found.shift() ?? 0;
    },
    nextExpiry: async () => new Date(Date.now() - 1),
  } as Store;
  const before = { expired: await counted('messages_expired_total'), ended: await counted('messages_ended_total') };
  const began = Date.now();
  const relay = { wake() {}, requireBus() {} };
  const sweep = startSweep({ bus: { lag: async () => [] }, relay, store, log, deadline: 30_000 });
  await eventually(
    'it has come back after a pause',
    () => calls.length,
    (count) => count >= 4,
  );
  await sweep.stop();
  t.deepEqual(adopted, [40_000], 'what an earlier version has accepted, once');
  for (const { now, reason, limit } of calls) {
    t.deepEqual([reason, limit], ['Not delivered within 30 s', 500]);
    t.true(now.getTime() >= began && now.getTime() <= Date.now());
  }
  t.true(calls[3]!.now.getTime() - calls[2]!.now.getTime() >= 200, 'nothing more is late: it pauses');
  t.deepEqual(
    lines.map(({ level, expired }) => [level, expired]),
    [
      [40, 500],
      [40, 500],
      [40, 3],
    ],
  );
  t.is((await counted('messages_expired_total')) - before.expired, 1_003);
  t.is((await counted('messages_ended_total')) - before.ended, 1_003);
});

/** A sweep that finds something late at once, before a bus that answers so: when it let that fail, and how often it asked. */
function sweeping(t: ExecutionContext, lag: () => Lag[], { requireBus = () => {}, stallTimeout = 30_000 } = {}) {
  const { lines, log } = recordingLog();
  const seen = { swept: [] as Date[], asked: 0 };
  const store = {
    async adoptOpen() {},
    async expire(now: Date) {
      seen.swept.push(now);
      return 0;
    },
    nextExpiry: async () => new Date(Date.now() - 1),
  } as unknown as Store;
  const bus = {
    async lag() {
      seen.asked += 1;
      return lag();
    },
  };
  const relay = { wake() {}, requireBus };
  const sweep = startSweep({ bus, relay, store, log, deadline: 30_000, stallTimeout });
  t.teardown(() => sweep.stop());
  return Object.assign(seen, { lines });
}

const isThere = (found: unknown[]) => found.length > 0;

test('startSweep: what is late fails once the reports are applied that were on the bus then, whatever has come behind them', async (t) => {
  const bus = { next: 10, end: 40 };
  const seen = sweeping(t, () => [
    { partition: 0, next: 7, events: 0 },
    { partition: 1, next: bus.next, events: bus.end - bus.next },
  ]);
  await eventually('it has looked', () => seen.asked, (asked) => asked >= 1); // prettier-ignore
  const looked = Date.now();
  for (const next of [20, 39]) {
    Object.assign(bus, { next, end: 100 + next });
    const { asked } = seen;
    await eventually('it has looked again', () => seen.asked, (now) => now >= asked + 2); // prettier-ignore
    t.deepEqual(seen.swept, []);
  }
  bus.next = 40;
  const [upTo] = await eventually('it goes on', () => seen.swept, isThere);
  t.true(upTo!.getTime() <= looked, 'what became late while it waited has to wait, too');
});

test('startSweep: while the bus is away, what is late fails without its reports', async (t) => {
  const away = () => {
    throw new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'away');
  };
  const [known, found] = [sweeping(t, () => [], { requireBus: away }), sweeping(t, away)];
  await eventually('it fails at once', () => known.swept, isThere);
  t.is(known.asked, 0);
  await eventually('it fails when the bus does not answer', () => found.swept, isThere);
});

test('startSweep: a standstill of the reports does not keep messages open for ever', async (t) => {
  const began = performance.now();
  const { swept, lines } = sweeping(t, () => [{ partition: 0, next: 3, events: 4 }], { stallTimeout: 500 });
  await eventually('it goes on', () => swept, isThere);
  t.true(performance.now() - began >= 500);
  t.like(lines, [{ level: 40, reports: 4 }]);
});

const harness = opened(openHarness, (harness) => harness.stop());
const database = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('message'), poolSize: 3, name: 'test' }),
  (database) => database.close(),
);
const bus = opened(
  () =>
    openBus(loadConfig(busSettings, { BUS_DATABASE_URL: harness.databaseUrl('bus') }), {
      clientId: 'test',
      log: openLog({ name: 'test', format: 'json', level: 'silent' }),
    }),
  (bus) => bus.stop(),
);

test('startSweep: what was delivered while the service stood still is delivered, though its deadline has passed', async (t) => {
  const store = openStore(database);
  const recipientId = uuid();
  const createdAt = new Date(Date.now() - 60_000);
  const accept = async (): Promise<string> => {
    const draft: Draft = {
      messageId: uuid(),
      conversationId: uuid(),
      senderId: uuid(),
      to: [],
      channels: ['whatsapp'],
      content: { type: 'text', text: 'Olá', fileId: '' },
      priority: 'normal',
    };
    await store.append({
      ...draft,
      channels: ['whatsapp'],
      senderUsername: 'ana',
      recipientIds: [recipientId],
      fingerprint: fingerprintOf(draft),
      createdAt,
      ...timesOf(createdAt, 30_000),
      requestId: 'request',
    });
    return draft.messageId;
  };
  const [delivered, forgotten] = [await accept(), await accept()];
  const status = MessageStatus.MESSAGE_STATUS_DELIVERED;
  const value = DeliveryEnded.encode(
    DeliveryEnded.create({
      messageId: delivered,
      recipientId,
      channel: 'whatsapp',
      status,
      attempts: 1,
      at: createdAt,
    }),
  ).finish();
  await bus.publish('message_status', [event('chat4all.message.v1.DeliveryEnded', value)]);
  const statuses = () =>
    Promise.all([delivered, forgotten].map(async (messageId) => (await store.find(messageId))!.status));

  const { lines, log } = recordingLog();
  const relay = { wake() {}, requireBus() {} };
  let asked = 0;
  const counting = {
    lag(topic: string, group: string) {
      asked += 1;
      return bus.lag(topic, group);
    },
  };
  const sweep = startSweep({ bus: counting, store, relay, log, deadline: 30_000 });
  t.teardown(() => sweep.stop());
  await eventually('it has looked', () => asked, (times) => times >= 3); // prettier-ignore
  t.deepEqual(await statuses(), ['accepted', 'accepted']);

  await consumeReports({ bus, store, relay, log });
  t.deepEqual(await eventually('both have ended', statuses, (found) => !found.includes('accepted')), [
    'delivered',
    'failed',
  ]);
  t.like(lines, [{ expired: 1 }]);
});
