import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { EventType, StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import { openDatabase } from '#lib/database.ts';
import { encode } from '#lib/encode.ts';
import { openLog } from '#lib/log.ts';
import { openEndpoints, laptopHosts } from '#lib/public-endpoint.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { startReceiver, type Receiver } from '../../../test/webhook-receiver.ts';
import { openLogStore, type NewEntry } from '../log/log-store.ts';
import { openProcesses } from '../processes.ts';
import { database } from '../database.ts';
import { fieldOf } from '../wire.ts';
import { openAttemptsStore } from './attempts-store.ts';
import { openEndpointsStore } from './endpoints-store.ts';
import { usualSchedule, type Schedule } from './schedule.ts';
import { openWebhooks, type Webhooks } from './webhooks.ts';
import { openWorkStore } from './work-store.ts';

/** Deliveries with shorter times, to receivers that misbehave. Each test has a harness, so that no replica does the work of another test. */

const quick: Schedule = {
  ...usualSchedule,
  timeoutMs: 1_000,
  retry: { firstMs: 100, maxMs: 200 },
  giveUpMs: 60_000,
  failuresBeforeHold: 1_000,
  leaseMs: 1_500,
  renewMs: 300,
  pollMs: 100,
};

const logger = openLog({ name: 'test', format: 'json', level: 'silent' });

async function world(t: ExecutionContext) {
  const hub = await openHarness();
  t.teardown(() => hub.stop());
  const db = openDatabase(database, { url: hub.databaseUrl('events'), poolSize: 4, name: 'test' });
  t.teardown(() => db.close());
  const log = openLogStore(db);
  await log.makePartitions();
  const endpoints = openEndpointsStore(db);
  const attempts = openAttemptsStore(db);
  const receiver: Receiver = await startReceiver();
  t.teardown(() => receiver.stop());
  const userId = uuid();
  let seq = 0n;

  /** Word that somebody has read in a conversation. */
  function read(conversationId: string): NewEntry {
    const eventId = uuid();
    seq += 1n;
    const event = StreamEventsResponse.fromPartial({
      eventId,
      at: new Date(),
      event: { $case: 'messageRead', value: { conversationId, userId, seq } },
    });
    const type = fieldOf[EventType.EVENT_TYPE_MESSAGE_READ];
    return { eventId, conversationId, userId: null, type, body: encode(StreamEventsResponse, event) };
  }

  return {
    hub,
    db,
    log,
    endpoints,
    attempts,
    receiver,
    userId,
    read,
    /** A conversation that the user is a member of. */
    async conversation(): Promise<string> {
      const id = uuid();
      await log.adopt([{ conversationId: id, memberIds: [userId] }]);
      return id;
    },
    create: (path = '/hook') =>
      endpoints.create(userId, { url: `${receiver.url}${path}`, types: [], conversationIds: [] }),
    /** A process that delivers. */
    replica(schedule: Partial<Schedule> = {}, allowed: readonly string[] = laptopHosts): Webhooks {
      const processes = openProcesses(db);
      const webhooks = openWebhooks({
        database: db,
        log,
        writing: log,
        grown: () => {},
        processes,
        endpoints: openEndpoints(allowed),
        retention: 86_400_000,
        logger,
        schedule: { ...quick, ...schedule },
      });
      t.teardown(async () => {
        await webhooks.stop();
        processes.stop();
      });
      return webhooks;
    },
  };
}

const seqOf = ({ event }: Receiver['received'][number]) =>
  (event.data['message_read'] as { seq: number } | undefined)?.seq ?? 0;
const conversationOf = ({ event }: Receiver['received'][number]) =>
  (event.data['message_read'] as { conversation_id: string } | undefined)?.conversation_id;

test.serial(
  'what fails comes again until it is taken, in the order of its conversation, while other conversations go on',
  async (t) => {
    const { log, receiver, read, conversation, create, replica, attempts } = await world(t);
    const { id } = await create();
    const [bad, good] = [await conversation(), await conversation()];
    let failures = 0;
    receiver.answer = (response, one) => {
      const fails = conversationOf(one) === bad && failures < 6;
      if (fails) failures += 1;
      // Each way to fail in turn: an error, a broken connection, no answer at all, a redirect.
      if (!fails) response.writeHead(200).end('ok');
      else if (failures % 4 === 1) response.writeHead(500).end();
      else if (failures % 4 === 2) response.destroy();
      else if (failures % 4 === 0) response.writeHead(302, { location: `${receiver.url}/redirected` }).end();
    };
    replica();
    for (let round = 0; round < 5; round += 1) await log.append([read(bad), read(good)]);
    const taken = () => receiver.received.filter(({ ended }) => ended < Infinity);
    await eventually(
      'all of the good one are there',
      () => taken().filter((one) => conversationOf(one) === good).length,
      (n) => n >= 5,
    );
    t.true(failures < 6, 'the good one did not wait for the bad one');
    await eventually(
      'all of the bad one, too',
      () => taken().filter((one) => conversationOf(one) === bad).length,
      (n) => n >= 11,
    );
    const order = (which: string) =>
      taken()
        .filter((one) => conversationOf(one) === which)
        .map(seqOf);
    t.deepEqual(order(good), [2, 4, 6, 8, 10]);
    t.deepEqual(order(bad), [1, 1, 1, 1, 1, 1, 1, 3, 5, 7, 9]);
    t.is(receiver.on('/redirected').length, 0);
    const listed = await eventually(
      'the attempts are recorded',
      () => attempts.list(id, undefined, 100),
      (all) => all.length === 16,
    );
    const errors = listed.map(({ error }) => error).filter((error) => error !== '');
    t.is(errors.length, 6);
    t.true(
      errors.some((error) => /No answer within 1 s/.test(error)),
      errors.join(),
    );
    t.true(
      errors.some((error) => /redirects are not followed/.test(error)),
      errors.join(),
    );
  },
);

test.serial('of a conversation one request is open at a time, however many events there are', async (t) => {
  const { log, receiver, read, conversation, create, replica } = await world(t);
  await create();
  const [busy, other] = [await conversation(), await conversation()];
  receiver.answer = async (response) => {
    await sleep(5);
    response.writeHead(204).end();
  };
  replica();
  for (let round = 0; round < 4; round += 1) await log.append(Array.from({ length: 30 }, () => read(busy)));
  await log.append([read(other)]);
  await eventually(
    'all are there',
    () => receiver.received.length,
    (count) => count >= 121,
  );
  const ofBusy = receiver.received.filter((one) => conversationOf(one) === busy);
  t.deepEqual(
    ofBusy.map(seqOf),
    Array.from({ length: 120 }, (_, place) => place + 1),
  );
  t.true(receiver.most <= 2);
  const place = receiver.received.findIndex((one) => conversationOf(one) === other);
  t.true(place < 110, `the other conversation did not wait for all of the busy one, but came as number ${place}`);
});

test.serial('two replicas deliver each event once between them', async (t) => {
  const { log, receiver, read, conversation, create, replica } = await world(t);
  for (const path of ['/a', '/b', '/c']) await create(path);
  const one = await conversation();
  // A lease that outlasts whatever else the machine does meanwhile.
  replica({ leaseMs: 20_000 });
  replica({ leaseMs: 20_000 });
  for (let round = 0; round < 5; round += 1) {
    await log.append([read(one), read(one)]);
    await sleep(50);
  }
  for (const path of ['/a', '/b', '/c']) {
    await eventually(
      `all of ${path}`,
      () => receiver.on(path).length,
      (count) => count >= 10,
    );
    t.deepEqual(receiver.on(path).map(seqOf), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  }
});

test.serial('the work of a process that was killed is taken over once its lease is over', async (t) => {
  const { db, log, receiver, read, conversation, create, replica } = await world(t);
  const { id } = await create();
  const one = await conversation();
  await log.append([read(one), read(one)]);
  // A process that takes the work, and is heard of no more.
  const [taken] = await openWorkStore(db).claim(1, 1_500);
  t.is(taken?.work.id, id);
  const began = performance.now();
  replica();
  await eventually(
    'both are there',
    () => receiver.received.length,
    (count) => count >= 2,
  );
  t.true(performance.now() - began > 1_000);
  t.deepEqual(receiver.received.map(seqOf), [1, 2]);
});

test.serial('Retry-After is honoured, for all that the endpoint is sent', async (t) => {
  const { log, receiver, read, conversation, create, replica } = await world(t);
  await create();
  const [one, other] = [await conversation(), await conversation()];
  receiver.answer = (response) => {
    if (receiver.received.length === 1) response.writeHead(429, { 'retry-after': '2' }).end();
    else response.writeHead(204).end();
  };
  replica();
  await log.append([read(one)]);
  await eventually(
    'the first has come',
    () => receiver.received.length,
    (count) => count >= 1,
  );
  await sleep(300);
  await log.append([read(other)]);
  await eventually(
    'all have come',
    () => receiver.received.length,
    (count) => count >= 3,
  );
  const [first, second] = receiver.received;
  t.true(second!.began - first!.began > 1_900, String(second!.began - first!.began));
});

test.serial(
  'an endpoint that answers 410 is disabled, and one that fails for long is paused; the owner is told in the log',
  async (t) => {
    const { log, receiver, read, conversation, create, replica, endpoints, userId } = await world(t);
    const gone = await create('/gone');
    const failing = await create('/failing');
    await create('/good');
    const one = await conversation();
    receiver.answer = (response, { path }) =>
      void response.writeHead(path === '/gone' ? 410 : path === '/failing' ? 503 : 204).end();
    replica({ giveUpMs: 1_000 });
    await log.append([read(one)]);
    const statusOf = async (id: string) => (await endpoints.get(userId, id)).status;
    await eventually(
      'it is disabled',
      () => statusOf(gone.id),
      (status) => status === 'disabled',
    );
    await eventually(
      'it is paused',
      () => statusOf(failing.id),
      (status) => status === 'paused',
    );
    t.is(receiver.on('/gone').length, 1);
    t.true(receiver.on('/failing').length > 3);
    const told = await eventually(
      'the owner is told of both at the endpoint that works',
      () => receiver.on('/good').filter(({ event }) => event.type === 'webhook.paused'),
      (events) => events.length === 2,
    );
    const reasons = new Map(
      told.map(({ event }) => {
        const { webhook_id: id, reason } = event.data['webhook_paused'] as Record<string, string>;
        return [id, reason];
      }),
    );
    t.deepEqual(
      reasons,
      new Map([
        [gone.id, 'gone'],
        [failing.id, 'failing'],
      ]),
    );
    const count = receiver.on('/failing').length;
    await sleep(500);
    t.is(receiver.on('/failing').length, count);
    // Resumed, it goes on from where it stopped.
    receiver.answer = (response) => void response.writeHead(204).end();
    await endpoints.resume(userId, failing.id, false);
    await eventually(
      'what had failed has come',
      () =>
        receiver
          .on('/failing')
          .slice(count)
          .map(({ event }) => event.type),
      (types) => types.includes('message.read'),
    );
  },
);

test.serial(
  'an event that is never taken is given up after its time, and the next ones of its conversation come',
  async (t) => {
    const { log, receiver, read, conversation, create, replica, attempts } = await world(t);
    const { id } = await create();
    const [poisoned, well] = [await conversation(), await conversation()];
    receiver.answer = (response, one) => void response.writeHead(seqOf(one) === 1 ? 500 : 204).end();
    replica({ giveUpMs: 1_200 });
    await log.append([read(poisoned), read(poisoned)]);
    // Others go well meanwhile, so that the endpoint is not the one that fails.
    const others = (async () => {
      for (let round = 0; round < 12; round += 1) {
        await log.append([read(well)]);
        await sleep(150);
      }
    })();
    await eventually(
      'the second has come',
      () => receiver.received.map(seqOf),
      (seqs) => seqs.includes(2),
    );
    await others;
    const given = await eventually(
      'it is recorded',
      () => attempts.list(id, undefined, 100),
      (all) => all.some(({ outcome }) => outcome === 3),
    );
    t.is(given.filter(({ outcome }) => outcome === 3).length, 1);
  },
);

test.serial('a huge answer is not read, and a name at a private address is not asked', async (t) => {
  const { log, receiver, read, conversation, create, replica, attempts, endpoints, userId } = await world(t);
  const { id } = await create();
  let sent = 0;
  receiver.answer = (response) => {
    response.writeHead(200);
    const piece = Buffer.alloc(64 * 1024);
    const more = () => {
      while (sent < 512 * 1024 * 1024 && !response.destroyed) {
        sent += piece.length;
        if (!response.write(piece)) {
          response.once('drain', more);
          return;
        }
      }
    };
    more();
  };
  // A name that is allowed when the webhook is made and leads to a private address when it is asked.
  const inside = await endpoints.create(userId, { url: 'http://localhost:9/', types: [], conversationIds: [] });
  replica({}, ['127.0.0.1']);
  await log.append([read(await conversation())]);
  const delivered = await eventually(
    'it counts as delivered',
    () => attempts.list(id, undefined, 10),
    (all) => all.length > 0,
  );
  t.is(delivered[0]!.outcome, 1);
  t.true(sent < 64 * 1024 * 1024, String(sent));
  const refused = await eventually(
    'the other is refused',
    () => attempts.list(inside.id, undefined, 10),
    (all) => all.length > 0,
  );
  t.true(
    ['The address of the host is not a public one', 'connect ECONNREFUSED 127.0.0.1:9'].includes(refused[0]!.error),
    refused[0]!.error,
  );
});

test.serial('a webhook whose events are not kept any more is told by a reset, and goes on', async (t) => {
  const { db, log, receiver, read, conversation, create, replica, endpoints, userId } = await world(t);
  const { id } = await create();
  const one = await conversation();
  await endpoints.pause(userId, id);
  await log.append([read(one), read(one)]);
  await db.sql(`update heads set removed_to = 1 where name = 'log'`);
  await db.sql('delete from log where id = 1');
  await endpoints.resume(userId, id, false);
  replica();
  await eventually(
    'it is told',
    () => receiver.received.map(({ event }) => event.type),
    (types) => types.includes('reset'),
  );
  await log.append([read(one)]);
  await eventually(
    'it goes on',
    () => receiver.received.map(seqOf),
    (seqs) => seqs.includes(3),
  );
  const [reset] = receiver.received;
  t.deepEqual(reset!.event.data['reset'], { reason: 'expired' });
  t.is(reset!.event.data['event_id'], reset!.headers['webhook-id']);
});

test.serial('old attempts are removed, and those of an endpoint beyond what is kept', async (t) => {
  const { attempts, create } = await world(t);
  const { id } = await create();
  const { v7 } = await import('uuid');
  const old = Date.now() - 10 * 86_400_000;
  const attempt = (at: number) => ({
    id: v7({ msecs: at }),
    eventId: uuid(),
    type: 'ping',
    at: new Date(at),
    durationMs: 1,
    statusCode: 204,
    outcome: 1 as const,
    error: '',
    number: 1,
    nextAt: null,
  });
  await attempts.add(id, attempt(old));
  await attempts.add(id, attempt(Date.now()));
  t.is(await attempts.sweep(new Date(old + 1_000), 100), 1);
  t.is((await attempts.list(id, undefined, 100)).length, 1);
});

test.serial(
  'who marks endpoints and who keeps them lock them in one order, so that neither waits for the other',
  async (t) => {
    const { db, log, create, conversation, read } = await world(t);
    const store = openWorkStore(db);
    await store.mark(1_000);
    const ids: string[] = [];
    for (let number = 0; number < 5; number += 1) ids.push((await create(`/${number}`)).id);
    await log.append([read(await conversation())]);
    const [{ id: first }] = (await db.sql<{ id: string }>('select id from endpoints order by id limit 1')) as [
      { id: string },
    ];
    // Now it is the last one where the table is read from its beginning.
    await db.sql('update endpoints set url = url, lease_by = id where id = $1', [first]);
    await db.sql('update endpoints set lease_by = id where id <> $1', [first]);
    await db.sql('update endpoints set url = url where id = $1', [first]);

    const held = ids.map((id) => ({ id, lease: id }));
    for (const work of [() => store.mark(1_000), () => store.renew(held, 60_000)]) {
      let waiting: Promise<unknown> | undefined;
      await db.transaction(async (transaction) => {
        await transaction.sql('select 1 from endpoints where id = $1 for update', [first]);
        waiting = work();
        await eventually(
          'it waits for the first endpoint',
          () =>
            db.sql(`select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`),
          (rows) => rows.length > 0,
        );
        const free = await db.sql('select 1 from endpoints where id <> $1 for update skip locked', [first]);
        t.is(free.length, ids.length - 1);
      });
      await waiting;
    }
  },
);
