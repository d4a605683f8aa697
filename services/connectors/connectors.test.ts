import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { v4 as uuid } from 'uuid';
import { ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { DeliveryAttempted, DeliveryEnded } from '#gen/chat4all/message/v1/events.ts';
import { MessageStatus, PayloadType, Priority } from '#gen/chat4all/message/v1/message.ts';
import { DeliveryRequested } from '#gen/chat4all/router/v1/events.ts';
import type { BusEvent, ReceivedEvent } from '#lib/bus/bus.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { loadConfig } from '#lib/config.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError, isTransient } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { attempting, type Job } from './attempt.ts';
import type { Connector, DeliveryContext, DeliveryToMake, Receipt } from './connector.ts';
import { connectorContract, sampleDelivery } from './contract.ts';
import type { Failure } from './delivery.ts';
import type { DeliveringOptions } from './batch.ts';
import { delivering, giveUp } from './events.ts';
import { installedConnectors } from './installed.ts';
import { receiving } from './receipts.ts';
import { Slots } from './slots.ts';
import { database as definition } from './database.ts';
import { openStore, type Store } from './store.ts';

const installed = await installedConnectors();
const harness = opened(openHarness, (harness) => harness.stop());
const log = openLog({ name: 'connectors', format: 'json', level: 'silent' });
const db = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('connectors'), poolSize: 8, name: 'connectors test' }),
  (db) => db.close(),
);
const store = openStore(db);

const lines: Record<string, (delivery: { messageId: string; recipientId: string }) => string> = {
  whatsapp: ({ messageId, recipientId }) =>
    `INFO: Mensagem ${messageId} enviada para o usuário ${recipientId} no WhatsApp`,
  instagram: ({ messageId, recipientId }) =>
    `INFO: Mensagem ${messageId} enviada para o usuário ${recipientId} no Instagram`,
};

for (const connector of installed) {
  connectorContract(test, connector, { folder: connector.name, line: lines[connector.name] });
}

test('the installed connectors are found in their folders, by name', (t) => {
  const names = installed.map(({ name }) => name);
  t.deepEqual(names, names.toSorted());
  // There may be more of them: a new folder is all that a new network needs.
  t.true(names.includes('instagram') && names.includes('whatsapp'));
});

test('a folder whose connector has another name, or none, is named at the start', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-connectors-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const install = async (name: string, text: string) => {
    await mkdir(path.join(folder, name));
    await writeFile(path.join(folder, name, 'index.ts'), text);
  };
  await install('sms', `export const connector = { name: 'sms', title: 'SMS' };`);
  await mkdir(path.join(folder, 'migrations'));
  t.deepEqual(
    (await installedConnectors(folder)).map(({ name }) => name),
    ['sms'],
  );
  await install('mail', `export const connector = { name: 'sms', title: 'Mail' };`);
  await t.throwsAsync(installedConnectors(folder), { message: /connectors\/mail\/index\.ts must export/ });
});

test.serial('each line of a delivery is the same in the text log', async (t) => {
  for (const connector of installed.filter(({ name }) => name in lines)) {
    const destination = new PassThrough({ encoding: 'utf8' });
    const text = openLog({ name: 'connectors', format: 'text', level: 'info', destination });
    const delivery = sampleDelivery();
    await connector.start();
    await connector.deliver(delivery, {
      idempotencyKey: uuid(),
      replay: 0,
      signal: new AbortController().signal,
      log: text,
    });
    await connector.stop();
    text.info('the end');
    let written = '';
    for await (const chunk of destination) {
      written += chunk;
      if (written.includes('the end')) break;
    }
    const line = lines[connector.name]!(delivery);
    t.is(written.split('\n').filter((each) => each.includes(line)).length, 1, written);
  }
});

/** A network that does what `answer` says, and remembers what it was asked. */
function network(
  answer: (
    delivery: DeliveryToMake,
    context: DeliveryContext,
    attempt: number,
  ) => Promise<'taken' | void> | 'taken' | void,
) {
  const asked: { delivery: DeliveryToMake; key: string }[] = [];
  const connector: Connector = {
    name: 'net',
    title: 'Net',
    async start() {},
    async stop() {},
    async deliver(delivery, context) {
      asked.push({ delivery, key: context.idempotencyKey });
      return answer(delivery, context, asked.filter((each) => each.key === context.idempotencyKey).length);
    },
  };
  return { connector, asked, messages: () => asked.map(({ delivery }) => delivery.messageId) };
}

const away = (retryAfter?: number) => new HubError('UNAVAILABLE', 'NET_AWAY', 'Net is away', { retryAfter });
const inMilliseconds = (milliseconds: number) => new Date(Date.now() + milliseconds);

/** Tries a delivery once. */
function tryOnce(connector: Connector, given: Partial<DeliveryToMake> = {}, before: Partial<Job> = {}) {
  const job = { idempotencyKey: uuid(), replay: 0, attempts: 0, error: '', callId: 'call', ...before };
  return attempting({ connector, log, timeout: 10_000 })({ delivery: sampleDelivery(given), ...job });
}

test('attempt: a network that is away is to be tried again later, and each attempt counts', async (t) => {
  const net = network(() => {
    throw away();
  });
  const before = Date.now();
  const first = await tryOnce(net.connector);
  t.like(first, { happening: 'park', attempt: { attempts: 1, error: 'Net is away' } });
  const tenth = await tryOnce(net.connector, {}, { attempts: 9 });
  t.like(tenth, { happening: 'park', attempt: { attempts: 10 } });
  const waits = [first, tenth].map((result) => (result.happening === 'park' ? +result.attempt.nextAt - before : 0));
  t.true(waits[0]! >= 50 && waits[1]! >= 1_500, 'the wait grows');
  const told = await tryOnce(
    network(() => {
      throw away(20);
    }).connector,
  );
  t.true(told.happening === 'park' && +told.attempt.nextAt - before >= 20_000, 'not sooner than the network says');
});

test('attempt: a refusal is final, and its message is the reason', async (t) => {
  const net = network(() => {
    throw new HubError('FAILED_PRECONDITION', 'BLOCKED', 'The recipient has blocked\0 you');
  });
  const { outcome } = (await tryOnce(net.connector)) as Failure;
  t.like(outcome, { delivered: false, attempts: 1, error: 'The recipient has blocked you' });
});

test('attempt: a bug of a connector is a failure that shows no internal text', async (t) => {
  const net = network(() => {
    throw new TypeError('x is undefined');
  });
  const { outcome } = (await tryOnce(net.connector)) as Failure;
  t.like(outcome, { delivered: false, attempts: 1, error: 'Net failed in an unexpected way' });
});

test('attempt: past the deadline nothing is tried, and the last answer is the reason', async (t) => {
  const net = network(() => {});
  const late = { deliverBy: inMilliseconds(0) };
  const { outcome } = (await tryOnce(net.connector, late)) as Failure;
  t.like(outcome, { delivered: false, attempts: 0, error: 'The delivery deadline had passed' });
  const again = (await tryOnce(net.connector, late, { attempts: 3, error: 'Net is away' })) as Failure;
  t.like(again.outcome, {
    attempts: 3,
    error: 'The delivery deadline had passed; the last answer was: Net is away',
  });
  t.is(net.asked.length, 0);
});

test('attempt: it has failed where the wait for the next one would end after the deadline', async (t) => {
  const net = network(() => {
    throw away(20);
  });
  const { outcome } = (await tryOnce(net.connector, { deliverBy: inMilliseconds(10_000) })) as Failure;
  t.like(outcome, { delivered: false, attempts: 1 });
  t.like(outcome, { error: 'The delivery deadline had passed; the last answer was: Net is away' });
});

test('attempt: a network that never answers is called off, at the deadline at the latest', async (t) => {
  const signals: AbortSignal[] = [];
  const net = network((_delivery, context) => {
    signals.push(context.signal);
    return new Promise(() => {});
  });
  const { outcome } = (await tryOnce(net.connector, { deliverBy: inMilliseconds(100) })) as Failure;
  t.like(outcome, {
    delivered: false,
    attempts: 1,
    error: 'The delivery deadline had passed; the last answer was: Net did not answer in time',
  });
  const job = { delivery: sampleDelivery(), idempotencyKey: uuid(), replay: 0, attempts: 0, error: '', callId: 'call' };
  const hasty = attempting({ connector: net.connector, log, timeout: 50 });
  t.like(await hasty(job), { happening: 'park', attempt: { attempts: 1, error: 'Net did not answer in time' } });
  t.true(signals.every(({ aborted }) => aborted));
});

/** An event that asks for a delivery over the channel `net`. */
function requested(given: Partial<DeliveryRequested> = {}, channel = 'net'): ReceivedEvent {
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

const requestOf = (event: ReceivedEvent) => DeliveryRequested.decode(event.value);
const messagesOf = (events: readonly ReceivedEvent[]) => events.map((event) => requestOf(event).messageId);

const isOf =
  (name: string) =>
  ({ type }: BusEvent): boolean =>
    type === `chat4all.message.v1.${name}`;

/**
 * A worker on a channel, with the reports that it publishes; it leaves what it parks to others. `handled` does as the bus: again, while
 * the failure is transient.
 */
function worker(connector: Connector, given: Partial<DeliveringOptions> = {}) {
  const reports: BusEvent[] = [];
  const handle = delivering({
    connector,
    store,
    attempt: attempting({ connector, log, timeout: 10_000 }),
    slots: new Slots(100),
    lanes: { wake() {}, adopt() {} },
    loads: { count() {}, countBehind() {} },
    owner: uuid(),
    stopping: new AbortController().signal,
    // However slow the machine is: nothing is parked because a batch takes long.
    lease: 60_000,
    maxBatchMs: 30_000,
    async publish(topic, events) {
      if (topic === 'message_status') reports.push(...events);
    },
    ...given,
  });
  return {
    reports,
    ended: () => reports.filter(isOf('DeliveryEnded')).map(({ value }) => DeliveryEnded.decode(value)),
    attempted: () => reports.filter(isOf('DeliveryAttempted')).map(({ value }) => DeliveryAttempted.decode(value)),
    handle,
    async handled(events: readonly ReceivedEvent[]) {
      for (;;) {
        try {
          return await handle(events);
        } catch (error) {
          if (!isTransient(error)) throw error;
          await sleep(20);
        }
      }
    },
  };
}

test('delivering: each delivery is made, recorded and reported, in order', async (t) => {
  const net = network(() => {});
  const { handle, reports, ended } = worker(net.connector);
  const conversationId = uuid();
  const events = Array.from({ length: 20 }, (_, index) => requested({ conversationId, seq: BigInt(index + 1) }));
  await handle(events);

  t.deepEqual(net.messages(), messagesOf(events));
  t.like(net.asked[0]!.delivery, { content: { type: 'text', text: 'Olá' }, priority: 'high', seq: 1n });
  t.is(ended().length, events.length);
  t.like(
    ended(),
    events.map(requestOf).map(({ messageId, recipientId }) => ({
      messageId,
      recipientId,
      channel: 'net',
      status: MessageStatus.MESSAGE_STATUS_DELIVERED,
      attempts: 1,
      error: '',
    })),
  );
  t.deepEqual(
    reports.map(({ key, requestId, type }) => ({ key, requestId, type })),
    events.map(({ key, requestId }) => ({ key, requestId, type: 'chat4all.message.v1.DeliveryEnded' })),
  );
  const [recorded] = await store.listEnded(requestOf(events[0]!).messageId);
  t.like(recorded, { delivered: true, attempts: 1, error: '', endedAt: ended()[0]!.at });
});

test('delivering: the same batch again delivers nothing and reports the same', async (t) => {
  const net = network(({ seq }) => {
    if (seq === 2n) throw new HubError('FAILED_PRECONDITION', 'BLOCKED', 'Blocked');
  });
  const events = [requested(), requested({ seq: 2n }), requested()];
  const [first, second] = [worker(net.connector), worker(net.connector)];
  await first.handle([...events, ...events]);
  await second.handle(events);
  t.is(net.asked.length, 3);
  const byId = (reports: BusEvent[]) => reports.toSorted((a, b) => (a.id < b.id ? -1 : 1));
  t.is(first.reports.length, 3);
  t.deepEqual(byId(second.reports), byId(first.reports));
  t.is(first.ended().find((each) => each.error !== '')?.error, 'Blocked');
});

test('delivering: conversations go on beside each other, each in its own order', async (t) => {
  const [slow, quick] = [uuid(), uuid()];
  const recipientId = uuid();
  const done = Promise.withResolvers<void>();
  const net = network(async ({ conversationId, seq }) => {
    if (conversationId === slow && seq === 1n) await done.promise;
    if (conversationId === quick && seq === 3n) done.resolve();
  });
  const events = [1n, 2n, 3n].flatMap((seq) => [
    requested({ conversationId: slow, recipientId, seq }),
    requested({ conversationId: quick, recipientId, seq }),
  ]);
  await worker(net.connector).handle(events);
  for (const conversationId of [slow, quick]) {
    const seqs = net.asked.filter(({ delivery }) => delivery.conversationId === conversationId);
    t.deepEqual(
      seqs.map(({ delivery }) => delivery.seq),
      [1n, 2n, 3n],
    );
  }
});

test('delivering: what has ended is reported while a slow delivery goes on', async (t) => {
  const [slow, quick] = [requested(), requested()];
  const reported = Promise.withResolvers<void>();
  const net = network(async ({ messageId }) => {
    if (messageId === requestOf(slow).messageId) await reported.promise;
  });
  const published: string[] = [];
  const { handle } = worker(net.connector, {
    async publish(_topic, events) {
      published.push(...events.map((event) => DeliveryEnded.decode(event.value).messageId));
      reported.resolve();
    },
  });
  await handle([slow, quick]);
  t.deepEqual(published, [requestOf(quick).messageId, requestOf(slow).messageId]);
});

test('delivering: past its deadline a delivery fails and is never made', async (t) => {
  const net = network(() => {});
  const { handle, ended } = worker(net.connector);
  await handle([requested({ deliverBy: inMilliseconds(-1) })]);
  t.is(net.asked.length, 0);
  t.like(ended()[0], {
    status: MessageStatus.MESSAGE_STATUS_FAILED,
    attempts: 0,
    error: 'The delivery deadline had passed',
  });
});

test('delivering: two processes with the same batch make each delivery once, in order', async (t) => {
  const net = network(() => sleep(5));
  const conversations = [uuid(), uuid(), uuid()];
  const recipientId = uuid();
  const events = Array.from({ length: 30 }, (_, index) =>
    requested({ conversationId: conversations[index % 3]!, recipientId }),
  );
  const workers = [worker(net.connector), worker(net.connector), worker(net.connector)];
  await Promise.all(workers.map((each) => each.handled(events)));
  t.deepEqual(net.messages().toSorted(), messagesOf(events).toSorted());
  for (const conversationId of conversations) {
    t.deepEqual(
      net.asked
        .filter((each) => each.delivery.conversationId === conversationId)
        .map((each) => each.delivery.messageId),
      events
        .map(requestOf)
        .filter((each) => each.conversationId === conversationId)
        .map((each) => each.messageId),
    );
  }
  for (const { reports } of workers) t.is(new Set(reports.map(({ id }) => id)).size, events.length);
});

test('delivering: one process that is given a batch twice at once makes each delivery once', async (t) => {
  const net = network(() => sleep(5));
  const events = [requested(), requested()];
  const { handle } = worker(net.connector);
  await Promise.all([handle(events), handle(events)]);
  t.is(net.asked.length, 2);
});

const claimOf = (event: ReceivedEvent) => ({ ...requestOf(event), idempotencyKey: event.id });

test('delivering: behind a delivery that another process makes, its lane waits and others go on', async (t) => {
  const net = network(() => {});
  const lane = { conversationId: uuid(), recipientId: uuid() };
  const [theirs, behind, other] = [requested(lane), requested(lane), requested()];
  t.deepEqual(await store.claim([claimOf(theirs)], uuid(), 60_000), [
    { state: 'claimed', idempotencyKey: theirs.id, attempts: 0, isBehind: false },
  ]);
  const { handle, ended } = worker(net.connector);
  const error = await t.throwsAsync(handle([theirs, behind, other]));
  t.true(isTransient(error));
  t.deepEqual(net.messages(), messagesOf([other]));
  t.is(ended().length, 1);

  const { messageId, recipientId } = requestOf(theirs);
  const outcome = { delivered: true, attempts: 1, error: '', endedAt: new Date(), replay: 0 };
  await store.record([{ messageId, recipientId, channel: 'net', ...outcome }]);
  await handle([theirs, behind, other]);
  t.deepEqual(net.messages(), messagesOf([other, behind]));
});

test('delivering: the claim of a process that crashed runs out, and the next one uses the same key', async (t) => {
  const net = network(() => {});
  const first = requested();
  await store.claim([claimOf(first)], uuid(), 100);
  const again = { ...first, id: uuid() };
  const { handled, ended } = worker(net.connector);
  await handled([again]);
  t.deepEqual(
    net.asked.map(({ key }) => key),
    [first.id],
  );
  t.is(ended()[0]!.status, MessageStatus.MESSAGE_STATUS_DELIVERED);
});

/** The store, with some of it replaced. */
const storeWith = (given: Partial<Store>): Store => ({ ...store, ...given });
const databaseAway = () => new HubError('UNAVAILABLE', 'DATABASE_UNAVAILABLE', 'away');

test('delivering: a process that was frozen for longer than its claim begins nothing when it wakes up', async (t) => {
  const lane = { conversationId: uuid(), recipientId: uuid() };
  const events = [requested(lane), requested(lane)];
  const lease = 1_000;
  const net = network(() => {
    // Nothing else of the process runs meanwhile.
    for (const until = performance.now() + lease; performance.now() < until;);
  });
  const frozen = worker(net.connector, { lease });
  const claimed = frozen.handle(events).catch((error: unknown) => error);
  const takingOver = worker(net.connector, { lease });
  await sleep(lease / 2);
  await takingOver.handled(events.slice(1));
  t.deepEqual(net.messages(), messagesOf(events));
  t.true(isTransient(await claimed), 'what is lost to another process is not acknowledged');
});

test('delivering: an outcome that could not be recorded is recorded when the batch comes again', async (t) => {
  const event = requested();
  const net = network(() => {});
  let failures = 0;
  const failing = storeWith({
    async record(ended) {
      if (failures++ === 0) throw databaseAway();
      return store.record(ended);
    },
  });
  const { handle, handled, ended } = worker(net.connector, { store: failing });
  await t.throwsAsync(handle([event]), { message: 'away' });
  await handled([event]);
  t.is(net.asked.length, 1);
  t.is(ended().length, 1);
  t.is((await store.listEnded(requestOf(event).messageId)).length, 1);
});

test('delivering: a report that could not be published is published when the batch comes again', async (t) => {
  const event = requested();
  const net = network(() => {});
  const reports: BusEvent[] = [];
  let failures = 0;
  const { handle } = worker(net.connector, {
    async publish(_topic, events) {
      if (failures++ === 0) throw new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'away');
      reports.push(...events);
    },
  });
  await t.throwsAsync(handle([event]), { message: 'away' });
  await handle([event]);
  t.is(net.asked.length, 1);
  t.is(reports.length, 1);
});

test('delivering: told to stop, it begins nothing more and leaves the rest to others at once', async (t) => {
  const lane = { conversationId: uuid(), recipientId: uuid() };
  const events = [requested(lane), requested(lane)];
  const stop = new AbortController();
  const net = network(() => stop.abort());
  const stopped = worker(net.connector, { stopping: stop.signal, lease: 60_000 });
  t.true(isTransient(await t.throwsAsync(stopped.handle(events))));
  t.deepEqual(net.messages(), messagesOf(events.slice(0, 1)));
  t.is(stopped.reports.length, 1);
  await worker(net.connector).handled(events);
  t.deepEqual(net.messages(), messagesOf(events));
});

/** What a network that has taken deliveries reports of them. */
function reporting() {
  const reports: BusEvent[] = [];
  const receive = receiving({
    connector: { name: 'net', title: 'Net' },
    store,
    log,
    publish: async (_topic, events) => void reports.push(...events),
  });
  const receipt = (event: ReceivedEvent, status: Receipt['status'], given: Partial<Receipt> = {}): Receipt => {
    const { messageId, recipientId } = requestOf(event);
    return { messageId, recipientId, idempotencyKey: event.id, status, reason: '', ...given };
  };
  return { receive, receipt, reports, ended: () => reports.map(({ value }) => DeliveryEnded.decode(value)) };
}

test('delivering: what the network only took stays open, and is not made again', async (t) => {
  const net = network(() => 'taken');
  const [first, second] = [requested(), requested()];
  const { handle, reports } = worker(net.connector);
  await handle([first, second]);
  await handle([first, second]);
  await worker(net.connector).handle([first]);
  t.is(net.asked.length, 2);
  t.deepEqual(reports, []);
  t.deepEqual(await store.listEnded(requestOf(first).messageId), []);
});

test('delivering: what the network took is asked for again, with its key, when the message is replayed', async (t) => {
  const net = network(() => 'taken');
  const event = requested();
  const { handle } = worker(net.connector);
  await handle([event]);
  await handle([again(event, 1)]);
  await handle([again(event, 1), event]);
  t.deepEqual(
    net.asked.map(({ key }) => key),
    [event.id, event.id],
  );
  const { receive, receipt, ended } = reporting();
  await receive([receipt(event, 'delivered')]);
  t.like(ended(), [{ replay: 1, status: MessageStatus.MESSAGE_STATUS_DELIVERED }]);
});

test('receiving: that an earlier round failed ends no later one, however often it is said; that it was delivered does', async (t) => {
  const net = network(() => 'taken');
  const [failing, good, both] = [requested(), requested(), requested()];
  const { handle } = worker(net.connector);
  await handle([failing, good, both]);
  const { receive, receipt, ended } = reporting();
  const late = receipt(failing, 'failed');
  await receive([late, receipt(good, 'failed')]);
  t.is(ended().length, 2);
  await handle([failing, good, both].map((event) => again(event, 1)));
  await receive([late, late, receipt(both, 'failed')]);
  t.is(ended().length, 2, 'the second round goes on');
  const second = { replay: 1 };
  await receive([
    late,
    receipt(failing, 'delivered', second),
    receipt(good, 'delivered'),
    receipt(both, 'failed', second),
  ]);
  const outcome = (event: ReceivedEvent) =>
    ended()
      .filter(({ messageId, replay }) => messageId === requestOf(event).messageId && replay === 1)
      .map(({ status }) => status === MessageStatus.MESSAGE_STATUS_DELIVERED);
  t.deepEqual([failing, good, both].map(outcome), [[true], [true], [false]]);
});

test('receiving: the first report that ends a delivery counts, whatever comes twice, late or in another order', async (t) => {
  const net = network(() => 'taken');
  const [good, bad, odd] = [requested(), requested(), requested()];
  const { handle } = worker(net.connector);
  await handle([good, bad, odd]);
  const { receive, receipt, reports, ended } = reporting();

  await receive([receipt(good, 'sent'), receipt(bad, 'sent')]);
  t.deepEqual(reports, []);
  await receive([receipt(good, 'delivered'), receipt(bad, 'failed', { reason: 'Blocked\0' }), receipt(odd, 'read')]);
  const told = (event: ReceivedEvent) =>
    ended()
      .filter(({ messageId }) => messageId === requestOf(event).messageId)
      .map(({ status, error }) => [status === MessageStatus.MESSAGE_STATUS_DELIVERED, error]);
  t.deepEqual(told(good), [[true, '']]);
  t.deepEqual(told(bad), [[false, 'Blocked']]);
  t.deepEqual(told(odd), [[true, '']]);
  // Reports of several conversations come in any order.
  t.like(
    reports.find(({ key }) => key === good.key),
    { requestId: good.requestId },
  );

  await receive([receipt(good, 'failed'), receipt(bad, 'delivered'), receipt(odd, 'sent'), receipt(odd, 'failed')]);
  t.deepEqual(told(good), [[true, ''], [true, '']]); // prettier-ignore
  t.deepEqual(told(bad), [[false, 'Blocked'], [false, 'Blocked']]); // prettier-ignore
  t.deepEqual(told(odd), [[true, ''], [true, '']]); // prettier-ignore
  t.is(new Set(reports.map(({ id }) => id)).size, 3, 'a repeated report is the same event');
});

test('receiving: a report that comes before the delivery is on record ends it; one with another key does not', async (t) => {
  const [quick, wrong, unknown] = [requested(), requested(), requested()];
  const { receive, receipt, ended } = reporting();
  const net = network(async ({ messageId }) => {
    if (messageId === requestOf(quick).messageId) await receive([receipt(quick, 'delivered')]);
    return 'taken' as const;
  });
  const { handle } = worker(net.connector);
  await handle([quick, wrong]);
  t.like(ended(), [{ messageId: requestOf(quick).messageId, attempts: 1 }]);
  await receive([receipt(wrong, 'delivered', { idempotencyKey: uuid() }), receipt(unknown, 'delivered')]);
  t.is(ended().length, 1);
  await handle([quick, wrong]);
  t.is(net.asked.length, 2);
});

test('delivering: an event that can not be read has no effect, and says what is wrong with it', async (t) => {
  const net = network(() => {});
  const { handle, reports } = worker(net.connector);
  const bad: [ReceivedEvent, RegExp][] = [
    [{ ...requested(), type: 'x' }, /its type is x/],
    [{ ...requested(), value: Buffer.from([255]) }, /it is no chat4all/],
    [{ ...requested(), id: 'x' }, /its id/],
    [{ ...requested(), key: uuid() }, /conversation_id/],
    [requested({ messageId: 'x' }), /message_id/],
    [requested({ recipientId: 'x' }), /recipient_id/],
    [requested({ channel: 'other' }), /its channel is "other"/],
    [requested({ payload: undefined }), /payload/],
    [requested({ deliverBy: undefined }), /deliver_by/],
  ];
  for (const [event, message] of bad) {
    await t.throwsAsync(handle([requested(), event]), { instanceOf: HubError, message });
  }
  t.is(net.asked.length, 0);
  t.is(reports.length, 0);
});

test('giveUp: whoever waits for a delivery that was given up learns why', async (t) => {
  const event = requested();
  const { messageId, recipientId } = requestOf(event);
  const reports: BusEvent[] = [];
  const publish = async (_topic: string, events: readonly BusEvent[]) => void reports.push(...events);
  await giveUp('net', publish)(event, new Error('internal text'));
  await giveUp('net', publish)({ ...event, value: Buffer.from([255]) }, new Error('internal text'));
  t.is(reports.length, 1);
  t.like(DeliveryEnded.decode(reports[0]!.value), {
    messageId,
    recipientId,
    status: MessageStatus.MESSAGE_STATUS_FAILED,
    error: 'Something went wrong while it was delivered',
  });
});

test('record: the first outcome of a delivery stands', async (t) => {
  const event = requested();
  const { messageId, recipientId } = requestOf(event);
  await store.claim([claimOf(event)], uuid(), 1_000);
  const key = { messageId, recipientId, channel: 'net' };
  const failed = { ...key, delivered: false, attempts: 0, error: 'late', endedAt: new Date(), replay: 0 };
  const delivered = { ...key, delivered: true, attempts: 1, error: '', endedAt: inMilliseconds(1_000), replay: 0 };
  t.deepEqual(await store.record([failed]), [failed]);
  t.deepEqual(await store.record([delivered]), [failed]);
});

/** The same delivery in a later round, as the router asks for it. */
function again(event: ReceivedEvent, replay: number): ReceivedEvent {
  return { ...event, id: uuid(), value: DeliveryRequested.encode({ ...requestOf(event), replay }).finish() };
}

test('replay: what failed is tried again with its key, what was delivered is only reported again', async (t) => {
  let isBlocked = true;
  const [good, bad] = [requested(), requested()];
  const net = network(({ messageId }) => {
    if (isBlocked && messageId === requestOf(bad).messageId) throw new HubError('ABORTED', 'BLOCKED', 'Blocked');
  });
  const { handle, ended } = worker(net.connector);
  await handle([good, bad]);
  await handle([again(good, 1), again(bad, 1)]);
  isBlocked = false;
  await handle([again(good, 2), again(bad, 2)]);
  await handle([again(good, 3), again(bad, 3)]);

  const keysOf = (event: ReceivedEvent) =>
    net.asked.filter(({ delivery }) => delivery.messageId === requestOf(event).messageId).map(({ key }) => key);
  t.deepEqual(keysOf(good), [good.id]);
  t.deepEqual(keysOf(bad), [bad.id, bad.id, bad.id]);
  const told = (event: ReceivedEvent) =>
    ended()
      .filter(({ messageId }) => messageId === requestOf(event).messageId)
      .map(({ replay, status }) => [replay, status === MessageStatus.MESSAGE_STATUS_DELIVERED]);
  t.deepEqual(told(good), [[0, true], [1, true], [2, true], [3, true]]); // prettier-ignore
  t.deepEqual(told(bad), [[0, false], [1, false], [2, true], [3, true]]); // prettier-ignore
});

test('replay: of several rounds in one batch only the last is made; an earlier one that comes late does nothing', async (t) => {
  const net = network(() => {});
  const { handle, ended } = worker(net.connector);
  const first = requested({ deliverBy: inMilliseconds(-1) });
  const second = {
    ...again(first, 1),
    value: DeliveryRequested.encode({ ...requestOf(first), replay: 1, deliverBy: inMilliseconds(25_000) }).finish(),
  };
  await handle([first, second]);
  t.is(net.asked.length, 1);
  t.deepEqual(
    ended().map(({ replay, error }) => [replay, error]),
    [[1, '']],
  );

  const other = requested();
  const claim = { ...claimOf(other), replay: 1 };
  t.like(await store.claim([claim], uuid(), 60_000), [{ state: 'claimed' }]);
  t.deepEqual(await store.claim([claimOf(other)], uuid(), 60_000), [{ state: 'superseded' }]);
  await handle([other]);
  t.is(net.asked.length, 1);
  const key = { messageId: claim.messageId, recipientId: claim.recipientId, channel: 'net' };
  const failed = { ...key, delivered: false, attempts: 1, error: 'late', endedAt: new Date(), replay: 0 };
  await store.record([failed]);
  t.deepEqual(await store.listEnded(claim.messageId), [], 'a failure of an earlier round ends nothing');
  await store.record([{ ...failed, delivered: true, error: '' }]);
  t.like(await store.listEnded(claim.messageId), [{ delivered: true }]);
});

test.serial('the connectors deliver what comes over the bus, and answer for it over gRPC', async (t) => {
  const connectors = await harness.startService('connectors');
  const client = harness.client(ConnectorsServiceService, connectors.address, {
    token: await harness.serviceToken('message', 'connectors'),
  });
  const administrator = harness.client(ConnectorsServiceService, connectors.address, {
    token: await harness.userToken({ userId: uuid(), username: 'boss', admin: true }),
  });
  t.deepEqual(await client.listChannels({}), {
    channels: installed.map(({ name, title }) => ({ name, title, backlog: 0n, drainRate: 0, waitMs: 0n })),
  });

  const bus = await openBus(loadConfig(busSettings, { BUS_DATABASE_URL: harness.databaseUrl('bus') }), {
    log,
    clientId: 'test',
  });
  t.teardown(() => bus.stop());
  const [messageId, conversationId, recipientId] = [uuid(), uuid(), uuid()];
  const channels = ['instagram', 'whatsapp'];
  const reported = new Set<string>();
  const all = Promise.withResolvers<void>();
  await bus.consume({
    topics: ['message_status'],
    group: 'test',
    async handle(events) {
      for (const { value } of events) {
        const report = DeliveryEnded.decode(value);
        if (report.status === MessageStatus.MESSAGE_STATUS_DELIVERED) reported.add(report.channel);
      }
      if (reported.size === channels.length) all.resolve();
    },
  });
  for (const channel of channels) {
    const event = requested({ messageId, conversationId, recipientId }, channel);
    const { topic, partition: _, ...published } = event;
    await bus.publish(topic, [published, published]);
  }
  await all.promise;

  const { attempts } = await administrator.listAttempts({ messageId: messageId.toUpperCase() });
  t.is(attempts.length, channels.length);
  t.like(
    attempts,
    channels.map((channel) => ({ recipientId, channel, delivered: true, attempts: 1, error: '' })),
  );
  await connectors.stop();
  const written = connectors.lines.map((text) => JSON.parse(text) as Record<string, string>);
  for (const channel of channels) {
    const found = written.filter(({ msg }) => msg === lines[channel]!({ messageId, recipientId }));
    t.is(found.length, 1);
    t.like(found[0], { request_id: `request of ${messageId}`, message_id: messageId });
  }
});
