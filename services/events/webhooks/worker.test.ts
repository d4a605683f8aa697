import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { v4 as uuid } from 'uuid';
import { EventType, StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import type { Entry } from '../log/log-store.ts';
import { fieldOf } from '../wire.ts';
import { usualSchedule } from './schedule.ts';
import type { Sent } from './sender.ts';
import { Worker, type WorkerOptions } from './worker.ts';
import type { Backlog, Work } from './work-store.ts';

/** A worker by itself: the tests decide when each of its requests ends. */

const epoch = 1;

/** The event with this id, of a conversation. */
function entry(id: number, conversationId: string): Entry {
  const body = StreamEventsResponse.encode(
    StreamEventsResponse.fromPartial({
      eventId: uuid(),
      at: new Date(),
      event: { $case: 'messageRead', value: { conversationId, userId: uuid(), seq: BigInt(id) } },
    }),
  ).finish();
  const type = fieldOf[EventType.EVENT_TYPE_MESSAGE_READ];
  return { id, type, conversationId, userId: null, body: Buffer.from(body) };
}

const delivered: Sent = {
  at: new Date(),
  durationMs: 1,
  isDelivered: true,
  isGone: false,
  statusCode: 204,
  error: '',
  retryAfterMs: undefined,
};

/** A worker on a log that has these events. What it sends waits until `answer` is called for it, or for `abort` where it is broken off. */
function start(
  entries: readonly Entry[],
  {
    backlogs = [],
    position = 0,
    lastId = () => entries.at(-1)!.id,
    markedTo = lastId(),
  }: { backlogs?: readonly Backlog[]; position?: number; lastId?: () => number; markedTo?: number | null } = {},
) {
  const requests: PromiseWithResolvers<Sent>[] = [];
  const work: Work = {
    id: uuid(),
    lease: uuid(),
    userId: uuid(),
    url: 'http://127.0.0.1/',
    types: [],
    conversationIds: [],
    secret: Buffer.alloc(32),
    oldSecret: null,
    oldSecretUntil: null,
    status: 'active',
    createdAt: new Date(),
    updatedAt: new Date(),
    failures: 0,
    failingSince: null,
    holdUntil: null,
    epoch,
    position,
    markedTo,
  };
  const options: WorkerOptions = {
    work,
    backlogs,
    store: {
      record: async () => true,
      release: async () => {},
      stop: async () => true,
      reset: async () => {},
    },
    log: {
      head: async () => ({ lastId: lastId(), removedTo: 0, epoch }),
      page: async ({ after, upTo }) => ({
        entries: entries.filter(({ id }) => id > after && id <= upTo),
        removedTo: 0,
        more: false,
      }),
    },
    sender: {
      send() {
        const request = Promise.withResolvers<Sent>();
        requests.push(request);
        return request.promise;
      },
      close: async () => {},
    },
    schedule: usualSchedule,
    takePlace: () => true,
    freePlace() {},
    isCrowded: () => false,
    stopped: async () => {},
  };
  const worker = new Worker(options);
  const ended = worker.run();
  async function sending(count: number): Promise<void> {
    while (requests.length < count) await turn();
  }
  return { worker, ended, requests, sending };
}

test('a worker that has lost its lease waits for all that is under way, and keeps the process from nothing meanwhile', async (t) => {
  const { worker, ended, requests, sending } = start([1, 2, 3].map((id) => entry(id, uuid())));
  await sending(3);
  worker.lost();
  for (const request of requests) {
    await turn();
    request.resolve(delivered);
  }
  await ended;
  t.is(requests.length, 3);
});

test('what comes while the log is looked at for the first time is delivered', async (t) => {
  let looks = 0;
  const { worker, ended, requests, sending } = start([entry(1, uuid())], {
    markedTo: null,
    lastId() {
      looks += 1;
      // The worker looks whether it is the same log, and then for events: just behind that look there is one.
      if (looks === 2) void Promise.resolve().then(() => worker.marked(1));
      return looks <= 2 ? 0 : 1;
    },
  });
  await Promise.race([sending(1), ended]);
  t.is(requests.length, 1);
  requests[0]!.resolve(delivered);
  await ended;
});

test('a replay whose next event has to wait for another one of its conversation waits without work', async (t) => {
  const conversationId = uuid();
  const replay: Backlog = {
    id: uuid(),
    kind: 'replay',
    conversationId: null,
    after: 0,
    upTo: 1,
    remaining: 10,
    attempts: 0,
    failingSince: null,
    // It comes up once the event behind it is being sent.
    nextAt: new Date(Date.now() + 50),
  };
  const { ended, requests, sending } = start([entry(1, conversationId), entry(2, conversationId)], {
    backlogs: [replay],
    position: 1,
  });
  await sending(1);
  const due = Date.now() + 100;
  while (Date.now() < due) await turn();
  t.is(requests.length, 1);
  requests[0]!.resolve(delivered);
  await sending(2);
  requests[1]!.resolve(delivered);
  await ended;
  t.is(requests.length, 2);
});
