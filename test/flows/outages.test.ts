import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { startKafka } from '../../dev/engines/kafka.ts';
import { startPostgres } from '../../dev/engines/postgres.ts';
import { eventually } from '../eventually.ts';
import { kafkaIsThere } from '../harness.ts';
import { opened, openedFolder } from '../opened.ts';
import type { MessageDetails } from '../rest.ts';
import { startProcessHub, startSenders, type ProcessHub, type Senders } from './hubs.ts';
import {
  deliveryLine,
  deliveryLines,
  ended,
  everyDeliveryLine,
  everyMessage,
  messageOf,
  openConversation,
  startFlowMesh,
  type Person,
} from './meshes.ts';

/** Long enough that nothing fails in this time, whatever is away. */
const patient = { DELIVERY_DEADLINE: '3m' };
const shortDeadline = 5_000;
const outageLength = 15_000;
/** How soon sends are refused once the bus is away. */
const noticeLimit = 5_000;
const testLimit = 150_000;

const root = openedFolder('chat4all-outages-');

async function folder(name: string): Promise<string> {
  const made = path.join(root, name);
  await mkdir(made);
  return made;
}

async function startHub(name: string, env: Record<string, string>): Promise<ProcessHub> {
  return startProcessHub(await folder(name), { ...patient, ...env });
}

/** Kafka and PostgreSQL that are not the hub's own, a hub on them, and a mesh with a short deadline on the same Kafka. */
async function startOnRealEngines() {
  await using starting = new AsyncDisposableStack();
  let [kafka, postgres] = await Promise.all([
    startKafka({ dataDir: path.join(root, 'kafka') }),
    startPostgres({ dataDir: path.join(root, 'postgres') }),
  ]);
  starting.defer(() => kafka.stop());
  starting.defer(() => postgres.stop());
  const brokers = { KAFKA_BROKERS: kafka.brokers };
  const [hub, mesh] = await Promise.all([
    startHub('real', { ...brokers, DATABASE_URL: postgres.adminUrl, BUS_PREFIX: 'hub.' }).then((hub) =>
      starting.adopt(hub, () => hub.stop()),
    ),
    startFlowMesh('kafka', { env: { ...brokers, DELIVERY_DEADLINE: `${shortDeadline}ms` } }).then((mesh) =>
      starting.adopt(mesh, () => mesh.stop()),
    ),
  ]);

  const ready = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
  const begins = Promise.all(ready.map(({ promise }) => promise)).then(async () => {
    await kafka.kill();
    return Date.now();
  });
  const ends = begins.then(async () => {
    await sleep(outageLength);
    const at = Date.now();
    kafka = await startKafka({ dataDir: path.join(root, 'kafka'), port: kafka.port });
    return at;
  });
  const started = starting.move();
  return {
    hub,
    mesh,
    stop: () => started.disposeAsync(),
    /** Kafka goes away once both tests are ready for it; both moments are told in milliseconds since the epoch. */
    outage: { readyHub: ready[0].resolve, readyMesh: ready[1].resolve, begins, ends },
    async restartPostgres() {
      await postgres.kill();
      postgres = await startPostgres({ dataDir: path.join(root, 'postgres'), port: postgres.port });
    },
  };
}

const embedded = opened(
  () => startHub('embedded', {}),
  (hub) => hub.stop(),
);
const real = kafkaIsThere ? opened(startOnRealEngines, (real) => real.stop()) : undefined;

/** Everything accepted is there once, in order, delivered once; and whoever repeats a delivery is another process. */
async function nothingIsLost(t: ExecutionContext, hub: ProcessHub, { accepted, reader }: Senders): Promise<void> {
  let count = 0;
  for (const [conversationId, sent] of accepted) {
    const last = await ended(reader, sent.at(-1)!.messageId);
    t.is(last.status, 'delivered');
    const messages = await everyMessage(reader, conversationId);
    t.deepEqual(
      messages.map(({ message_id: messageId }) => messageId).toSorted(),
      sent.map(({ messageId }) => messageId).toSorted(),
    );
    t.deepEqual(
      messages.map(({ seq }) => seq),
      messages.map((_, index) => index + 1),
    );
    for (const { message_id: messageId, to } of messages) {
      const { status, history, deliveries } = await ended(reader, messageId);
      t.is(status, 'delivered');
      t.deepEqual(
        history.map((change) => change.status),
        ['accepted', 'in_transit', 'delivered'],
      );
      t.deepEqual(
        deliveries.map((delivery) => [delivery.recipient, delivery.channel, delivery.status]),
        to.map((recipient) => [recipient, 'whatsapp', 'delivered']),
      );
      count += 1;
    }
  }
  const lines = await hub.lines();
  const told = everyDeliveryLine(lines);
  t.is(told.size, count);
  for (const sent of accepted.values()) for (const { messageId } of sent) t.true(told.has(messageId));
  const byProcess = lines
    .filter((line) => line.includes('INFO: Mensagem '))
    .map((line) => JSON.parse(line) as { pid: number; msg: string })
    .map(({ pid, msg }) => `${pid} ${msg}`);
  t.is(new Set(byProcess).size, byProcess.length);
  t.log(`${count} messages, ${byProcess.length - count} delivered again after a crash`);
}

test('embedded: what is killed starts again, PostgreSQL included, and nothing accepted is lost', async (t) => {
  t.timeout(testLimit);
  const senders = await startSenders(embedded.people);
  t.is((await senders.oneMore()).status, 'delivered');
  for (const names of [['router'], ['connectors'], ['message', 'conversation'], ['postgres']]) {
    await Promise.all(names.map((name) => embedded.kill(name)));
    t.is((await senders.oneMore()).status, 'delivered', `after the end of ${names.join(' and ')}`);
  }
  await senders.stop();
  await nothingIsLost(t, embedded, senders);
});

if (real !== undefined) {
  const { hub, mesh, outage, restartPostgres } = real;

  test('kafka: away for 15 s under load, sends are refused and reads go on; back, all is delivered; and so after other crashes', async (t) => {
    t.timeout(testLimit);
    t.teardown(outage.readyHub);
    const senders = await startSenders(hub.people);
    const { attempts, reader } = senders;
    t.is((await senders.oneMore()).status, 'delivered');

    outage.readyHub();
    const begun = await outage.begins;
    const [conversationId] = senders.accepted.keys();
    let isOver = false;
    const ends = outage.ends.finally(() => (isOver = true));
    let reads = 0;
    const ready = async () => (await fetch(`${hub.url}/ready`)).status;
    t.is(await eventually('/ready tells it', ready, (status) => status === 503), 503);
    while (!isOver) {
      await everyMessage(reader, conversationId!);
      await reader.rest.get('/v1/conversations');
      reads += 1;
      await sleep(100);
    }
    const back = await ends;
    t.true(reads > 20);
    const during = attempts.filter(({ at }) => at > begun + noticeLimit && at < back);
    t.true(during.length > 20);
    t.deepEqual(
      during.filter(({ status, retryAfter }) => status !== 503 || !(retryAfter! >= 1)),
      [],
    );
    t.is((await senders.oneMore()).status, 'delivered');
    t.is(await eventually('/ready tells it', ready, (status) => status === 200), 200);

    await Promise.all(['router', 'connectors', 'message'].map((name) => hub.kill(name)));
    t.is((await senders.oneMore()).status, 'delivered', 'after the end of all that consumes');
    await restartPostgres();
    t.is((await senders.oneMore()).status, 'delivered', 'after a restart of PostgreSQL');
    await senders.stop();
    await nothingIsLost(t, hub, senders);
  });

  test('kafka: away for longer than the deadline, what was accepted fails with that reason and is never delivered late', async (t) => {
    t.timeout(testLimit);
    t.teardown(outage.readyMesh);
    const [writer, other] = mesh.people as [Person, Person];
    const id = await openConversation([writer, other]);
    const sent: string[] = [];
    const sendNow = async () => {
      const json = messageOf(writer, id);
      const { status } = await writer.rest.call('POST', '/v1/messages', { json });
      if (status === 200) sent.push(json.message_id);
      return status;
    };
    // The first ones may be too early for consumers that have only just joined their groups.
    const next = async () => ((await sendNow()) === 200 ? ended(writer, sent.at(-1)!) : undefined);
    await eventually('one is delivered', next, (found) => found?.status === 'delivered', 60_000);
    sent.length = 0;

    let hasBegun = false;
    const begins = outage.begins.finally(() => (hasBegun = true));
    outage.readyMesh();
    // What is accepted until the hub notices is what the test is about.
    while ((await sendNow()) === 200 || !hasBegun) await sleep(20);
    const begun = await begins;
    const failures: MessageDetails[] = [];
    for (const messageId of sent) {
      const message = await ended(writer, messageId);
      if (message.status === 'failed') failures.push(message);
    }
    t.true(Date.now() < begun + outageLength, 'they have ended while Kafka is still away');
    t.true(failures.length > 0);
    for (const { history, deliveries } of failures) {
      const { note } = history.at(-1)!;
      t.is(note, `Not delivered within ${shortDeadline / 1000} s`);
      t.like(deliveries, { length: 1, 0: { status: 'failed', error: note } });
    }

    await outage.ends;
    // The first ones may still be too early for consumers that have not found back.
    const after = await eventually('one is delivered again', next, (found) => found?.status === 'delivered', 60_000);
    t.deepEqual(deliveryLines(mesh, after!.message_id), [deliveryLine(after!.message_id, other.userId, 'WhatsApp')]);
    // All of them are of one conversation: what came before the last one has been dealt with.
    for (const failure of failures) {
      const tellsOf = (line: string) => line.includes(`INFO: Mensagem ${failure.message_id} `);
      // What was delivered just before Kafka went away, and could not be reported any more, may have such a line.
      for (const line of mesh.services.connectors!.lines.filter(tellsOf)) {
        t.true((JSON.parse(line) as { time: number }).time < begun);
      }
      t.deepEqual(await writer.rest.get(`/v1/messages/${failure.message_id}`), failure);
    }
    t.log(`${failures.length} of ${sent.length} messages failed`);
  });
}
