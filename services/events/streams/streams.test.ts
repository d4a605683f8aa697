import { randomUUID } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import { StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import { openDatabase } from '#lib/database.ts';
import { encode } from '#lib/encode.ts';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { openPresence } from '../ephemeral/presence.ts';
import { openLogStore, type NewEntry } from '../log/log-store.ts';
import { database } from '../database.ts';
import { createdEntry } from '../wire.ts';
import { cursorText, readCursor, whyReset, type Cursor } from './cursor.ts';
import { openStreams, type Streams, type Wanted } from './stream.ts';
import { startTail } from './tail.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const db = opened(
  () => openDatabase(database, { url: harness.databaseUrl('events'), poolSize: 8, name: 'events test' }),
  (db) => db.close(),
);
const store = openLogStore(db);
const log = openLog({ name: 'events', format: 'json', level: 'silent' });

test.before(() => store.makePartitions());

type Event = NonNullable<StreamEventsResponse['event']>;

function entry(conversationId: string | null, type: number, event: Event, more: Partial<NewEntry> = {}): NewEntry {
  const eventId = randomUUID();
  const body = encode(StreamEventsResponse, { cursor: '', eventId, at: new Date(0), event });
  return { eventId, conversationId, userId: null, type, body, ...more };
}

function message(conversationId: string, text = ''): NewEntry {
  const value = { conversationId, userId: text, seq: 1n };
  return entry(conversationId, 22, { $case: 'messageRead', value });
}

function joined(conversationId: string, userId: string): NewEntry {
  const value = { conversationId, userId, addedBy: userId };
  return entry(conversationId, 24, { $case: 'memberJoined', value }, { joins: [userId] });
}

function left(conversationId: string, userId: string): NewEntry {
  return entry(conversationId, 25, { $case: 'memberLeft', value: { conversationId, userId } }, { leaves: [userId] });
}

function created(conversationId: string, members: string[]): NewEntry {
  const metadata = { name: '', description: '' };
  return createdEntry({ conversationId, type: 2, members, metadata, createdAt: new Date(0) });
}

/** The messages of a stream, one by one. */
async function* listening(streams: Streams, wanted: Wanted, signal: AbortSignal): AsyncGenerator<StreamEventsResponse> {
  for await (const told of streams.stream(wanted, signal)) {
    if ('event' in told) yield told;
    else for (const { bytes } of told) yield StreamEventsResponse.decode(bytes);
  }
}

/** Streams of a process of its own, with the time that its tail has. */
async function openProcess(options: { heartbeatMs?: number; ageMs?: number; maxStreams?: number } = {}) {
  const tail = await startTail({ store, log });
  const presence = openPresence({ processes: { presence: async () => {} }, store });
  const usual = { maxStreams: 100, heartbeatMs: 60_000, ageMs: 600_000 };
  const streams = openStreams({ store, tail, presence, ...usual, ...options });
  return { tail, streams };
}

const everything = (userId: string, cursor?: Cursor): Wanted => ({
  userId,
  cursor,
  conversationIds: [],
  types: [],
  ephemeral: false,
  presenceIds: [],
  expiresAt: undefined,
});

test('a cursor has one spelling, and says why it can not be gone on from', (t) => {
  for (const cursor of [
    { epoch: 0, position: 0 },
    { epoch: 2 ** 32 - 1, position: 2 ** 47 },
  ]) {
    t.deepEqual(readCursor(cursorText(cursor)), cursor);
  }
  for (const wrong of ['', 'AAAA', `${cursorText({ epoch: 1, position: 1 })}=`, '*'.repeat(14), 'A'.repeat(200)]) {
    t.is(t.throws(() => readCursor(wrong), { instanceOf: HubError })?.reason, 'CURSOR_INVALID');
  }
  const head = { epoch: 7, lastId: 20, removedTo: 10 };
  t.is(whyReset({ epoch: 7, position: 10 }, head), undefined);
  t.is(whyReset({ epoch: 7, position: 20 }, head), undefined);
  t.is(whyReset({ epoch: 7, position: 9 }, head), 'expired');
  t.is(whyReset({ epoch: 7, position: 21 }, head), 'future');
  t.is(whyReset({ epoch: 8, position: 15 }, head), 'epoch changed');
});

test.serial(
  'append: ids have no gaps and no twins, however many append at once, and are seen in their order',
  async (t) => {
    const conversation = randomUUID();
    const before = (await store.head()).lastId;
    const batches = Array.from({ length: 20 }, () => Array.from({ length: 5 }, () => message(conversation)));
    const seen: number[] = [];
    let isDone = false;
    const reading = (async () => {
      let last = before;
      while (!isDone) {
        for (const { id } of await store.after(last, 100)) seen.push((last = id));
      }
    })();
    // Each batch twice, as the bus brings it again to another replica.
    await Promise.all([...batches, ...batches].map((batch) => store.append(batch)));
    await eventually(
      'all are read',
      () => seen.length,
      (count) => count >= 100,
    );
    isDone = true;
    await reading;
    t.deepEqual(
      seen,
      Array.from({ length: 100 }, (_, index) => before + index + 1),
    );
    t.is((await store.head()).lastId, before + 100);
  },
);

test.serial('partitions: days that are over go, and whoever has a cursor from then is told', async (t) => {
  const user = randomUUID();
  const conversation = randomUUID();
  await store.append([created(conversation, [user, randomUUID()]), message(conversation)]);
  const { epoch, lastId } = await store.head();
  // As if these had happened the day before yesterday.
  await db.sql(
    `create table if not exists log_2020_01_01 partition of log for values from ('2020-01-01') to ('2020-01-02')`,
  );
  await db.sql(`update log set day = '2020-01-01' where id <= $1`, [lastId]);
  await store.append([message(conversation)]);
  t.is(await store.dropPartitions(new Date('2020-01-02T12:00:00Z')), 1);
  t.is(await store.dropPartitions(new Date('2020-01-02T12:00:00Z')), 0);
  const head = await store.head();
  t.is(head.removedTo, lastId);

  const { tail, streams } = await openProcess();
  t.teardown(() => tail.stop());
  const signal = new AbortController().signal;
  const page = await streams.list(everything(user, { epoch, position: lastId - 1 }), { limit: 10, waitMs: 0 }, signal);
  t.is(page.events[0]?.event?.$case, 'reset');
  const rest = await streams.list(everything(user, { epoch, position: lastId }), { limit: 10, waitMs: 0 }, signal);
  t.deepEqual(
    rest.events.map(({ event }) => event?.$case),
    ['messageRead'],
  );
});

test.serial('a page is bounded in bytes, and the rest comes behind it', async (t) => {
  const [user, conversation] = [randomUUID(), randomUUID()];
  const { epoch, lastId } = await store.head();
  const large = Array.from({ length: 10 }, () => message(conversation, 'x'.repeat(400_000)));
  await store.append([
    created(conversation, [user, randomUUID()]),
    ...large,
    message(conversation, 'y'.repeat(1_500_000)),
  ]);
  const { tail, streams } = await openProcess();
  t.teardown(() => tail.stop());
  const told: string[] = [];
  let cursor: Cursor = { epoch, position: lastId };
  for (let pages = 0; ; pages += 1) {
    const page = await streams.list(everything(user, cursor), { limit: 500, waitMs: 0 }, new AbortController().signal);
    told.push(...page.events.map(({ eventId }) => eventId));
    cursor = readCursor(page.cursor);
    if (!page.more) {
      t.true(pages >= 5);
      break;
    }
  }
  t.is(told.length, 12);
  t.deepEqual(
    told.slice(1, 11),
    large.map(({ eventId }) => eventId),
  );
});

test.serial('a stream says that it is alive, ends when it is old, and all end when the process does', async (t) => {
  const user = randomUUID();
  const { tail, streams } = await openProcess({ heartbeatMs: 50, ageMs: 400 });
  t.teardown(() => tail.stop());
  const kinds: (string | undefined)[] = [];
  for await (const told of listening(streams, everything(user), new AbortController().signal)) {
    kinds.push(told.event?.$case);
  }
  t.is(kinds[0], 'hello');
  t.is(kinds.at(-1), 'reconnect');
  t.true(kinds.slice(1, -1).length >= 3);
  t.true(kinds.slice(1, -1).every((kind) => kind === 'heartbeat'));

  const other = await openProcess();
  t.teardown(() => other.tail.stop());
  const iterator = listening(other.streams, everything(user), new AbortController().signal);
  await iterator.next();
  const next = iterator.next();
  other.streams.stop();
  t.is((await next).value?.event?.$case, 'reconnect');
  t.true((await iterator.next()).done);
});

test.serial('a stream whose token expires ends then, and says so before', async (t) => {
  const { tail, streams } = await openProcess();
  t.teardown(() => tail.stop());
  const wanted = { ...everything(randomUUID()), expiresAt: Date.now() + 300 };
  const kinds: (string | undefined)[] = [];
  for await (const told of listening(streams, wanted, new AbortController().signal)) kinds.push(told.event?.$case);
  t.deepEqual(kinds, ['hello', 'reconnect']);
});

test.serial('who takes nothing costs a MiB at most, and is told all of it later', async (t) => {
  const [user, conversation] = [randomUUID(), randomUUID()];
  await store.append([created(conversation, [user, randomUUID()])]);
  const { tail, streams } = await openProcess();
  t.teardown(() => tail.stop());
  const abort = new AbortController();
  const iterator = listening(streams, everything(user), abort.signal);
  await iterator.next();
  const first = message(conversation);
  const hearing = iterator.next();
  tail.appended(await store.append([first]));
  t.is((await hearing).value?.eventId, first.eventId);
  const batches = Array.from({ length: 8 }, () =>
    Array.from({ length: 5 }, () => message(conversation, 'x'.repeat(100_000))),
  );
  for (const batch of batches) tail.appended(await store.append(batch));
  const { lastId } = await store.head();
  await eventually(
    'the tail has read all',
    () => tail.position,
    (position) => position >= lastId,
  );
  const told: string[] = [];
  while (told.length < 40) {
    const { eventId } = (await iterator.next()).value as StreamEventsResponse;
    if (eventId !== '') told.push(eventId);
  }
  t.deepEqual(
    told,
    batches.flat().map(({ eventId }) => eventId),
  );
  abort.abort();
  await iterator.return(undefined);
});

/** What may happen, to one conversation of two people of whom one listens. */
type Step = 'message' | 'elsewhere' | 'join' | 'leave' | 'cut' | 'other replica' | 'pause' | 'poll';

test.serial('whatever happens, a client that resumes is told exactly what it could see, in order', async (t) => {
  t.timeout(240_000);
  const steps = fc.constantFrom<Step>('message', 'elsewhere', 'join', 'leave', 'cut', 'other replica', 'pause', 'poll');
  const processes = [await openProcess(), await openProcess()];
  t.teardown(() => Promise.all(processes.map(({ tail }) => tail.stop())));

  await fc.assert(
    fc.asyncProperty(fc.array(steps, { minLength: 1, maxLength: 25 }), async (program) => {
      const [reader, other, conversation, elsewhere] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
      const { epoch, lastId } = await store.head();
      let cursor: Cursor = { epoch, position: lastId };
      let replica = 0;
      let isMember = true;
      const expected: string[] = [];
      const told: string[] = [];
      let abort = new AbortController();
      let reading = Promise.resolve();

      async function append(entry: NewEntry, isSeen: boolean): Promise<void> {
        const appended = await store.append([entry]);
        if (isSeen) expected.push(entry.eventId);
        // One process has appended it, the other one is told of it.
        const [writer, reading] = processes as [(typeof processes)[0], (typeof processes)[0]];
        writer.tail.appended(appended);
        reading.tail.grown(appended.head);
      }
      function connect(): void {
        abort = new AbortController();
        const { signal } = abort;
        const { streams } = processes[replica]!;
        reading = (async () => {
          for await (const { eventId, cursor: next, event } of listening(streams, everything(reader, cursor), signal)) {
            if (event?.$case === 'reset') throw new Error('There was no hole');
            if (signal.aborted) return;
            if (eventId !== '') told.push(eventId);
            if (next !== '') cursor = readCursor(next);
          }
        })();
      }
      async function cut(): Promise<void> {
        abort.abort();
        await reading;
      }

      await append(created(conversation, [reader, other]), true);
      await append(created(elsewhere, [other, randomUUID()]), false);
      connect();
      for (const step of program) {
        if (step === 'message') await append(message(conversation), isMember);
        else if (step === 'elsewhere') await append(message(elsewhere), false);
        else if (step === 'join' && !isMember) await append(joined(conversation, reader), (isMember = true));
        else if (step === 'leave' && isMember) {
          isMember = false;
          await append(left(conversation, reader), true);
        } else if (step === 'cut' || step === 'other replica') {
          await cut();
          if (step === 'other replica') replica = 1 - replica;
          connect();
        } else if (step === 'pause') await new Promise((resolve) => setTimeout(resolve, 3));
        else if (step === 'poll') {
          await cut();
          const { signal } = new AbortController();
          const page = await processes[replica]!.streams.list(
            everything(reader, cursor),
            { limit: 3, waitMs: 0 },
            signal,
          );
          told.push(...page.events.map(({ eventId }) => eventId));
          cursor = readCursor(page.cursor);
          connect();
        }
      }
      await eventually(
        'all is told',
        () => told.length,
        (count) => count >= expected.length,
        5_000,
      ).catch(() => {});
      await cut();
      t.deepEqual(told, expected, program.join(' '));
    }),
    { numRuns: 60 },
  );
});
