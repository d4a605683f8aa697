import { randomUUID } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { ConversationType } from '#gen/chat4all/conversation/v1/conversation.ts';
import {
  EventsServiceService,
  StreamEventsRequest,
  type StreamEventsResponse,
} from '#gen/chat4all/events/v1/events.ts';
import { openDatabase } from '#lib/database.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { openLogStore } from '../log/log-store.ts';
import { database } from '../database.ts';
import { createdEntry } from '../wire.ts';
import { openPresence, type Presence } from './presence.ts';

/** What a watcher is told of one conversation: each time, who else is present. */
type Told = string[][];

/** Several processes that hear each other as over PostgreSQL, and conversations. */
function openReplicas(t: ExecutionContext, count: number, { lease = 60_000 } = {}) {
  const said: string[] = [];
  const members = new Map<string, string[]>();
  const replicas: Presence[] = [];
  const deaf = new Set<Presence>();
  const network = { isDown: false };
  for (let index = 0; index < count; index += 1) {
    const replica = openPresence({
      times: { held: 1_000, back: 100, answer: 500, refresh: 150, lease },
      store: { membersOf: async (id) => members.get(id) ?? [] },
      processes: {
        async presence(what, process, userIds) {
          if (userIds.length === 0 || network.isDown) return;
          t.true(userIds.length <= 200);
          said.push(what);
          await Promise.resolve();
          for (const each of replicas) if (!deaf.has(each)) each.heard(what, process, userIds);
        },
      },
    });
    replicas.push(replica);
  }
  t.teardown(() => replicas.forEach((replica) => replica.stop()));
  return {
    replicas,
    said,
    members,
    network,
    /** As if the process had been killed. */
    kill(replica: Presence) {
      replica.stop();
      deaf.add(replica);
    },
    watch(replica: Presence, userId: string, conversationId: string): Told & Disposable {
      const told: Told = [];
      const watching = replica.watch({
        userId,
        conversationIds: [conversationId],
        tell: (_, { event }) => told.push(event?.$case === 'presence' ? event.value.userIds : []),
      });
      return Object.assign(told, { [Symbol.dispose]: () => watching[Symbol.dispose]() });
    },
  };
}

const isTold = (what: string, told: Told, expected: string[]) =>
  eventually(
    what,
    () => told.at(-1),
    (last) => last !== undefined && JSON.stringify(last.toSorted()) === JSON.stringify(expected.toSorted()),
  );

test('who is present in any process is told at first, and what changes, wherever it does', async (t) => {
  const { replicas, members, watch } = openReplicas(t, 2);
  const [one, two] = replicas as [Presence, Presence];
  members.set('talk', ['ana', 'bia', 'caio', 'davi']);
  one.enter('ana');
  one.enter('caio');
  const leave = two.enter('bia');
  const told = watch(one, 'ana', 'talk');
  await isTold('who is here, and there', told, ['bia', 'caio']);
  t.is(told.length, 1);
  two.enter('davi');
  await isTold('who has come there', told, ['bia', 'caio', 'davi']);
  leave();
  await isTold('who has gone there', told, ['caio', 'davi']);
  t.is(told.length, 3);
  // Another one is told what is known, at once.
  t.deepEqual(watch(one, 'ana', 'talk')[0]?.toSorted(), ['caio', 'davi']);
});

test('who comes back soon, here or elsewhere, has not been away', async (t) => {
  const { replicas, members, watch } = openReplicas(t, 3);
  const [one, two, three] = replicas as [Presence, Presence, Presence];
  members.set('talk', ['ana', 'bia', 'caio']);
  let leave = two.enter('bia');
  const told = watch(one, 'ana', 'talk');
  await isTold('who is here', told, ['bia']);
  for (const replica of [three, one]) {
    leave();
    leave = replica.enter('bia');
    // Longer than a change is held.
    await new Promise((resolve) => setTimeout(resolve, 1_300));
  }
  // And who says until when it will be back is waited for.
  leave(500);
  await new Promise((resolve) => setTimeout(resolve, 450));
  three.enter('bia');
  two.enter('caio');
  await isTold('the next change', told, ['bia', 'caio']);
  t.is(told.length, 2);
});

test('nothing is said as long as nobody asks, nor any more when nobody does', async (t) => {
  const { replicas, members, said, watch } = openReplicas(t, 2, { lease: 600 });
  const [one, two] = replicas as [Presence, Presence];
  members.set('talk', ['ana', 'bia']);
  two.enter('bia')();
  one.enter('ana');
  // Whatever is said is said within these.
  const pass = () => new Promise((resolve) => setTimeout(resolve, 700));
  await pass();
  t.deepEqual(said, []);
  const told = watch(one, 'ana', 'talk');
  await isTold('that nobody is here', told, []);
  told[Symbol.dispose]();
  await pass();
  said.length = 0;
  // Longer than a question is good for.
  await pass();
  two.enter('bia');
  await pass();
  t.deepEqual(said, []);
});

test('a killed process is forgotten, and what was not heard is asked for again', async (t) => {
  const { replicas, members, network, kill, watch } = openReplicas(t, 3, { lease: 600 });
  const [one, two, three] = replicas as [Presence, Presence, Presence];
  members.set('talk', ['ana', 'bia', 'caio', 'davi']);
  two.enter('bia');
  const leave = three.enter('caio');
  const told = watch(one, 'ana', 'talk');
  await isTold('both', told, ['bia', 'caio']);
  kill(two);
  await isTold('who is left', told, ['caio']);
  network.isDown = true;
  leave();
  three.enter('davi');
  await isTold('that nobody can be asked', told, []);
  network.isDown = false;
  one.missed();
  await isTold('who has come meanwhile', told, ['davi']);
});

test('only members are told, and only in conversations of 50 at most', async (t) => {
  const { replicas, members, said, watch } = openReplicas(t, 1);
  const [one] = replicas as [Presence];
  const people = Array.from({ length: 50 }, (_, index) => `user${index}`);
  members.set('talk', people);
  members.set('crowd', [...people, 'one more']);
  for (const person of people) one.enter(person);
  const stranger = watch(one, 'stranger', 'talk');
  const crowd = watch(one, 'user0', 'crowd');
  await new Promise((resolve) => setTimeout(resolve, 300));
  t.deepEqual([stranger.length, crowd.length, said.length], [0, 0, 0]);
  const told = watch(one, 'user0', 'talk');
  await isTold('all of them', told, people.slice(1));
  // A stranger who joins is told then, and everybody that there are too many.
  members.set('talk', [...people.slice(0, 49), 'stranger']);
  one.membersChanged('talk');
  await isTold('those who are there then', stranger, people.slice(0, 49));
  members.set('talk', [...people, 'stranger']);
  one.membersChanged('talk');
  await isTold('that it is not told any more', told, []);
  const before = told.length;
  one.enter('stranger');
  await new Promise((resolve) => setTimeout(resolve, 1_300));
  t.is(told.length, before);
});

const hub = opened(openHarness, (hub) => hub.stop());
opened(() => hub.startService('auth', { SEED_USERS: '2' }));
const first = opened(() => hub.startService('events'));
const second = opened(() => hub.startService('events'));
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('events'), poolSize: 2, name: 'test' }),
  (db) => db.close(),
);

test('on two replicas of the service: who is present is told to who asks, and to nobody else', async (t) => {
  const [ana, bia, conversationId] = [randomUUID(), randomUUID(), randomUUID()];
  const about = { conversationId, members: [ana, bia], createdAt: new Date(0) };
  const type = ConversationType.CONVERSATION_TYPE_PRIVATE;
  await openLogStore(db).append([createdEntry({ ...about, type, metadata: { name: '', description: '' } })]);

  async function listen(userId: string, { address }: { address: string }, request: Partial<StreamEventsRequest> = {}) {
    const token = await hub.userToken({ userId, username: `u${userId.slice(0, 8)}` });
    const { streamEvents } = hub.streams(EventsServiceService, address, { token, timeout: 120_000 });
    const told: StreamEventsResponse[] = [];
    const stopping = new AbortController();
    const reading = (async () => {
      const asked = StreamEventsRequest.fromPartial(request);
      for await (const each of streamEvents(asked, stopping.signal)) told.push(each);
    })().catch((error: unknown) => {
      if (!stopping.signal.aborted) throw error;
    });
    const end = async () => {
      stopping.abort();
      await reading;
    };
    t.teardown(end);
    await eventually('it has begun', () => told.length, Boolean);
    const presences = () =>
      told.flatMap(({ event, cursor }) => {
        if (event?.$case !== 'presence') return [];
        t.deepEqual([cursor, event.value.conversationId], ['', conversationId]);
        return [event.value.userIds];
      });
    return { presences, end };
  }

  const unasked = await listen(bia, second, { ephemeral: true });
  // Ids may come in upper case.
  const asked = await listen(ana, first, { presenceConversationIds: [conversationId.toUpperCase()] });
  const isSo = (what: string, expected: string[]) =>
    eventually(what, asked.presences, (found) => JSON.stringify(found.at(-1)) === JSON.stringify(expected));
  await isSo('bia is present', [bia]);
  await unasked.end();
  const again = await listen(bia, first);
  await again.end();
  await isSo('bia has gone', []);
  await listen(bia, second);
  await isSo('bia has come back', [bia]);
  t.deepEqual(unasked.presences(), []);
});
