import test from 'ava';
import { v4 as uuid } from 'uuid';
import type { BusEvent } from '#lib/bus/bus.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { loadConfig } from '#lib/config.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../eventually.ts';
import { opened } from '../opened.ts';
import { openRest, type MessageDetails, type Problem, type Rest } from '../rest.ts';
import {
  breakTable,
  deliveryLine,
  deliveryLines,
  ended,
  openConversation,
  openedMeshes,
  send,
  type FlowMesh,
  type Person,
} from './meshes.ts';

interface DeadLetter {
  id: string;
  topic: string;
  group: string;
  reason: string;
  attempts: number;
  message_id: string;
  channel: string;
  state: string;
  replayed_by: string;
  request_id: string;
}

interface DeadLetterPage {
  dead_letters: DeadLetter[];
  total: number;
}

interface Replayed {
  replayed: number;
  messages: number;
  settled: number;
  open: number;
  remaining: number;
}

interface Audit {
  balanced: boolean;
  messages: { accepted: number; delivered: number; failed: number; in_flight: number };
  deliveries: { accepted: number; delivered: number; failed: number; in_flight: number };
  gaps_total: number;
  mismatched_total: number;
  outbox_events: number;
  dead_letters_waiting: number;
  lag_known: boolean;
  lag: { topic: string; group: string; events: number; partitions: { partition: number; events: number }[] }[];
}

const meshes = openedMeshes(['embedded', 'kafka'], { people: 3 });

/** Publishes on the bus of a mesh, as if it came from one of its services. */
async function publish(mesh: FlowMesh, topic: string, event: BusEvent): Promise<void> {
  const env =
    mesh.bus === 'kafka'
      ? {
          KAFKA_BROKERS: process.env.TEST_KAFKA_BROKERS,
          BUS_PREFIX: `${new URL(mesh.adminDatabaseUrl).pathname.slice(1)}.`,
        }
      : { BUS_DATABASE_URL: mesh.databaseUrl('bus') };
  const log = openLog({ name: 'test', format: 'json', level: 'silent' });
  const bus = await openBus(loadConfig(busSettings, env), { log, clientId: 'test' });
  await bus.publish(topic, [event]);
  await bus.stop();
}

const lettersPath = '/v1/admin/dead-letters';

function letters(admin: Rest, query: string, count: number): Promise<DeadLetterPage> {
  return eventually(
    `${count} dead letters (${query})`,
    () => admin.get<DeadLetterPage>(`${lettersPath}?${query}`),
    ({ total }) => total === count,
  );
}

const replay = (admin: Rest, what: object) => admin.post<Replayed>(`${lettersPath}/replay`, what);

for (const mesh of meshes) {
  const admin = opened(async () => openRest(mesh.url, await mesh.userToken({ ...mesh.people[0]!, admin: true })));
  const { bus, people } = mesh;
  const [user1, user2, user3] = people as [Person, Person, Person];

  test.serial(
    `${bus}: what a channel gave up is replayed once its cause is gone, and nothing is sent twice`,
    async (t) => {
      const began = new Date();
      const mend = await breakTable(mesh, 'connectors.deliveries', `new.channel = 'whatsapp'`);
      const conversation = await openConversation([user1, user2, user3]);
      const id = await send(user1, conversation, { channels: ['whatsapp', 'instagram'] });
      const failed = await ended(user2, id);
      t.is(failed.status, 'failed');
      t.deepEqual(
        failed.deliveries.map(({ channel, status }) => [channel, status]),
        [
          ['instagram', 'delivered'],
          ['whatsapp', 'failed'],
          ['instagram', 'delivered'],
          ['whatsapp', 'failed'],
        ],
      );

      const { dead_letters: found } = await letters(admin, `message_id=${id}&state=waiting`, 1);
      for (const letter of found) {
        t.like(letter, {
          topic: 'whatsapp_outgoing',
          group: 'whatsapp_connector',
          message_id: id,
          channel: 'whatsapp',
        });
        t.is(letter.attempts, 5);
        t.regex(letter.reason, /broken on purpose/);
      }
      const one = await admin.get<{ dead_letter: DeadLetter; decoded: Record<string, unknown>; value: string }>(
        `${lettersPath}/${found[0]!.id.toUpperCase()}`,
      );
      t.deepEqual(one.dead_letter, found[0]);
      t.like(one.decoded, { message_id: id, channel: 'whatsapp', payload: { text: 'Oi' } });
      t.truthy(one.value);

      t.like(await replay(admin, { message_id: id }), { replayed: 1, messages: 1, settled: 0, open: 0, remaining: 0 });
      t.is((await ended(user1, id)).status, 'failed', 'the cause is still there');
      await letters(admin, `message_id=${id}&state=waiting`, 1);
      await letters(admin, `message_id=${id}`, 2);

      await mend();
      const window = { channel: 'whatsapp', from: began, to: new Date(Date.now() + 60_000) };
      t.like(await replay(admin, window), { replayed: 1, messages: 1, remaining: 0 });
      const delivered = await ended(user3, id);
      t.is(delivered.status, 'delivered');
      t.deepEqual(
        delivered.history.map(({ status, note }) => [status, note.replace(/:.*/, '')]),
        [
          ['accepted', ''],
          ['in_transit', ''],
          ['failed', '2 of 4 deliveries failed'],
          ['accepted', 'replayed by user1'],
          ['in_transit', ''],
          ['failed', '2 of 4 deliveries failed'],
          ['accepted', 'replayed by user1'],
          ['in_transit', ''],
          ['delivered', ''],
        ],
      );
      t.deepEqual(
        deliveryLines(mesh, id).toSorted(),
        [user2, user3]
          .flatMap(({ userId }) => [deliveryLine(id, userId, 'Instagram'), deliveryLine(id, userId, 'WhatsApp')])
          .toSorted(),
        'each delivery was made once',
      );
      const ids = (await letters(admin, `message_id=${id}&state=replayed`, 2)).dead_letters.map((letter) => letter.id);
      t.like(await replay(admin, { ids }), { replayed: 0, messages: 0, settled: 2, open: 0 });
      t.is(deliveryLines(mesh, id).length, 4);
    },
  );

  test.serial(`${bus}: what the router gave up is replayed once, also by two at once`, async (t) => {
    const mend = await breakTable(mesh, 'router.routes', 'true');
    const conversation = await openConversation([user1, user2]);
    const id = await send(user1, conversation, { channels: ['all'] });
    t.is((await ended(user1, id)).status, 'failed');
    const { dead_letters: found } = await letters(admin, `message_id=${id}`, 1);
    t.like(found[0], { topic: 'message_processing', group: 'router', channel: '', state: 'waiting' });
    await mend();
    const both = await Promise.all([replay(admin, { message_id: id }), replay(admin, { message_id: id })]);
    t.is(both[0].replayed + both[1].replayed, 1);
    const delivered = await ended(user2, id);
    t.is(delivered.status, 'delivered');
    t.is(delivered.history.filter(({ note }) => note === 'replayed by user1').length, 1);
    t.is(deliveryLines(mesh, id).length, 2);
  });

  test.serial(`${bus}: an event that nobody can read is listed as it is, and published again as it was`, async (t) => {
    const event = {
      id: 'no uuid',
      type: 'chat4all.router.v1.DeliveryRequested',
      key: uuid(),
      value: Buffer.from([255, 0, 1]),
      requestId: `poison-${uuid()}`,
    };
    await publish(mesh, 'instagram_outgoing', event);
    const { dead_letters: found } = await letters(admin, 'topic=instagram_outgoing', 1);
    t.like(found[0], { message_id: '', channel: 'instagram', request_id: event.requestId, state: 'waiting' });
    t.regex(found[0]!.reason, /UNREADABLE_EVENT/);
    const one = await admin.get<{ decoded: unknown; value: string }>(`${lettersPath}/${found[0]!.id}`);
    t.is(one.decoded, null);
    t.deepEqual(Buffer.from(one.value, 'base64'), event.value);
    t.like(await replay(admin, { ids: [found[0]!.id] }), { replayed: 1, messages: 0 });
    await letters(admin, 'topic=instagram_outgoing&state=waiting', 1);
    await letters(admin, 'channel=Instagram', 2);
  });

  test.serial(`${bus}: only an administrator may look, replay and audit`, async (t) => {
    for (const path of [lettersPath, `${lettersPath}/${uuid()}`, '/v1/admin/audit']) {
      await user1.rest.refused(403, 'GET', path);
    }
    await user1.rest.refused(403, 'POST', `${lettersPath}/replay`, { json: { channel: 'whatsapp' } });
    await mesh.anonymous.refused(401, 'GET', lettersPath);
    const wrong = async (method: string, path: string, json?: object): Promise<Problem> =>
      admin.refused(400, method, path, json && { json });
    t.deepEqual((await wrong('POST', `${lettersPath}/replay`, {})).field_errors, {
      ids: ['is required, or message_id, channel, topic, from or to'],
    });
    const backwards = 'from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z';
    for (const path of [lettersPath, '/v1/admin/audit']) {
      t.truthy((await wrong('GET', `${path}?${backwards}`)).field_errors!.from);
    }
    const many = await wrong('GET', `${lettersPath}?limit=101&offset=-1&state=lost&message_id=7`);
    t.deepEqual(Object.keys(many.field_errors!).toSorted(), ['limit', 'message_id', 'offset', 'state']);
    t.is((await admin.refused(404, 'GET', `${lettersPath}/${uuid()}`)).error_code, 'DEAD_LETTER_NOT_FOUND');
  });

  test.serial(`${bus}: the books of all that was accepted balance`, async (t) => {
    const conversation = await openConversation([user1, user2]);
    const sent = await Promise.all(Array.from({ length: 20 }, () => send(user1, conversation, { channels: ['all'] })));
    const last = await Promise.all(sent.map((id) => ended(user1, id)));
    t.true(last.every(({ status }: MessageDetails) => status === 'delivered'));
    const audit = await eventually(
      'nothing waits any more',
      () => admin.get<Audit>('/v1/admin/audit'),
      (found) => found.lag_known && found.outbox_events === 0 && found.lag.every(({ events }) => events === 0),
    );
    t.like(audit, { balanced: true, gaps_total: 0, mismatched_total: 0, lag_known: true });
    t.like(audit.messages, { accepted: 22, delivered: 22, failed: 0, in_flight: 0 });
    t.like(audit.deliveries, { accepted: 4 + 2 + 40, delivered: 46, failed: 0, in_flight: 0 });
    t.is(audit.dead_letters_waiting, 1, 'the one that nobody can read');
    t.deepEqual(
      audit.lag.map(({ topic, group, partitions }) => [topic, group, partitions.length]),
      [
        ['message_processing', 'router', 8],
        ['message_status', 'message', 8],
        ['message_changes', 'events', 8],
        ['instagram_outgoing', 'instagram_connector', 8],
        ['whatsapp_outgoing', 'whatsapp_connector', 8],
      ],
    );
    const before = await admin.get<Audit>('/v1/admin/audit?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z');
    t.like(before, { balanced: true, messages: { accepted: 0 } });
  });
}
