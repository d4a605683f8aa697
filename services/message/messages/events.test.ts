import test from 'ava';
import { register } from 'prom-client';
import { v4 as uuid } from 'uuid';
import { DeliveryAttempted, DeliveryEnded, MessageRejected, MessageRouted } from '#gen/chat4all/message/v1/events.ts';
import { MessageStatus } from '#gen/chat4all/message/v1/message.ts';
import type { Bus, ConsumeOptions, ReceivedEvent } from '#lib/bus/bus.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../../test/eventually.ts';
import { consumeReports, startSweep } from './events.ts';
import type { Report } from '../message.ts';
import type { Ended } from './settlement-store.ts';
import type { Store } from './store.ts';

function recordingLog() {
  const lines: { level: number; msg: string; unknown?: string[]; expired?: number }[] = [];
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
  const sweep = startSweep({ relay: { wake() {} }, store, log, deadline: 30_000 });
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
