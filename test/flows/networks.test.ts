import test, { type ExecutionContext } from 'ava';
import { eventually } from '../eventually.ts';
import {
  openRest,
  type AttemptList,
  type Effect,
  type EffectPage,
  type MessageDetails,
  type Rest,
  type Token,
} from '../rest.ts';
import { ended, openConversation, openedMeshes, send, sendPatiently, type FlowMesh, type Person } from './meshes.ts';

// However slow the machine is: this is not about how soon a message is delivered.
const env = { ADMIN_USERS: 'user5', DELIVERY_DEADLINE: '2m' };
const meshes = openedMeshes(['embedded', 'kafka'], { env });
const [hasty] = openedMeshes(['embedded'], { env: { ...env, DELIVERY_DEADLINE: '3s' } }) as [FlowMesh];

async function loginAsAdmin({ anonymous, url }: FlowMesh): Promise<Rest> {
  const credentials = { username: 'user5', password: 'password123' };
  return openRest(url, (await anonymous.post<Token>('/auth/token', credentials)).token);
}

/** Has a network behave so until the test is over. */
async function behave(t: ExecutionContext, admin: Rest, channel: string, profile: object): Promise<void> {
  const path = `/v1/admin/channels/${channel}/profile`;
  t.is((await admin.call('PUT', path, { json: profile })).status, 200);
  t.teardown(() => admin.call('DELETE', path));
}

/** What networks took of one message. */
async function effectsOf(admin: Rest, messageId: string): Promise<Effect[]> {
  return (await admin.get<EffectPage>(`/v1/admin/effects?message_id=${messageId}`)).effects;
}

const detailsOf = (reader: Person, messageId: string) => reader.rest.get<MessageDetails>(`/v1/messages/${messageId}`);

for (const mesh of meshes) {
  const { bus, people } = mesh;
  const [user1, user2, user3] = people as [Person, Person, Person];

  test.serial(`${bus}: profiles and effects are for administrators, and wrong ones are named`, async (t) => {
    const path = '/v1/admin/channels/whatsapp/profile';
    for (const [method, where, given] of [
      ['GET', path, {}],
      ['PUT', path, { json: {} }],
      ['DELETE', path, {}],
      ['GET', '/v1/admin/effects', {}],
    ] as const) {
      await user1.rest.refused(403, method, where, given);
      await mesh.anonymous.refused(401, method, where, given);
    }
    const admin = await loginAsAdmin(mesh);
    const json = { rate_limit: -1, latency: { p50_ms: 5, p99_ms: 4 }, outages: [{}], receipts: { failed: 2 } };
    const { field_errors: errors } = await admin.refused(400, 'PUT', path, { json });
    t.deepEqual(Object.keys(errors!).toSorted(), [
      'latency',
      'outages[0].from',
      'outages[0].to',
      'rate_limit',
      'receipts.failed',
    ]);
    await admin.refused(400, 'PUT', path, { json: { record: 'perhaps' } });
    const unknown = await admin.refused(404, 'PUT', '/v1/admin/channels/pigeon/profile', { json: {} });
    t.is(unknown.error_code, 'CHANNEL_NOT_FOUND');
    await admin.refused(400, 'GET', '/v1/admin/effects?limit=101');

    const empty = await admin.get(path);
    t.like(empty, { rate_limit: 0, latency: { p50_ms: 0, p99_ms: 0 }, outages: [], receipts: null, record: false });
    await behave(t, admin, 'whatsapp', { rate_limit: 80, receipts: {} });
    const set = await admin.get<{ rate_limit: number; receipts: object }>(path);
    t.like(set, { rate_limit: 80, receipts: { failed: 0, delay: { p50_ms: 0, p99_ms: 0 } } });
    t.deepEqual((await admin.call('PUT', path, { json: set })).body, set);
    t.deepEqual((await admin.call('DELETE', path)).body, empty);
  });

  test.serial(`${bus}: errors that pass are tried again until each message has had one effect, in order`, async (t) => {
    const admin = await loginAsAdmin(mesh);
    await behave(t, admin, 'whatsapp', { transient_errors: 0.5, lost_answers: 0.3, record: true });
    const id = await openConversation([user1, user2, user3]);
    const sent: string[] = [];
    for (let count = 0; count < 10; count += 1) sent.push(await send(user1, id));
    const seen = [];
    for (const messageId of sent) seen.push(await ended(user1, messageId, 60_000));
    t.true(seen.every(({ status }) => status === 'delivered'));
    const deliveries = seen.flatMap((message) => message.deliveries);
    t.true(deliveries.some(({ attempts }) => attempts > 1));
    t.true(deliveries.every(({ error, next_attempt_at: next }) => error === '' && next === null));

    const effects = (await admin.get<EffectPage>('/v1/admin/effects?channel=whatsapp&limit=100')).effects.filter(
      (effect) => effect.conversation_id === id,
    );
    t.is(effects.length, 20);
    t.true(effects.every((effect) => effect.effects === 1));
    t.true(
      effects.some(({ requests }) => requests > 1),
      'answers were lost',
    );
    for (const recipient of [user2, user3]) {
      const own = effects.filter((effect) => effect.recipient === recipient.userId);
      t.deepEqual(
        own.map((effect) => effect.message_id),
        sent,
      );
      t.deepEqual(
        own.map(({ seq }) => seq),
        sent.map((_, index) => index + 1),
      );
    }
  });

  test.serial(
    `${bus}: what a network refuses for good fails, with the reason, and other channels deliver`,
    async (t) => {
      const admin = await loginAsAdmin(mesh);
      await behave(t, admin, 'whatsapp', { final_errors: 1, record: true });
      await behave(t, admin, 'instagram', { record: true });
      const messageId = await send(user1, await openConversation([user1, user2]), { channels: ['all'] });
      const seen = await ended(user1, messageId);
      t.is(seen.status, 'failed');
      const delivery = (channel: string) => seen.deliveries.find((each) => each.channel === channel);
      t.like(delivery('whatsapp'), { status: 'failed', attempts: 1, error: 'WhatsApp refuses the message' });
      t.like(delivery('instagram'), { status: 'delivered', attempts: 1, error: '' });
      t.deepEqual(
        (await effectsOf(admin, messageId)).map(({ channel }) => channel),
        ['instagram'],
      );
    },
  );

  test.serial(`${bus}: while a network is out of order the ledger says so, and then it delivers`, async (t) => {
    const admin = await loginAsAdmin(mesh);
    const outages = [{ from: '2020-01-01T00:00:00Z', to: '2100-01-01T00:00:00Z' }];
    await behave(t, admin, 'whatsapp', { record: true, outages });
    const messageId = await send(user1, await openConversation([user1, user2]));
    const { status, deliveries } = await eventually(
      'the ledger shows attempts',
      () => detailsOf(user2, messageId),
      (message) => message.deliveries[0]!.attempts >= 3,
    );
    t.is(status, 'in_transit');
    t.like(deliveries[0], { status: 'in_transit', error: 'WhatsApp is out of order' });
    t.true(Date.parse(deliveries[0]!.next_attempt_at!) > Date.parse(deliveries[0]!.updated_at));
    t.deepEqual(await effectsOf(admin, messageId), []);

    await behave(t, admin, 'whatsapp', { record: true });
    const seen = await ended(user1, messageId);
    t.is(seen.status, 'delivered');
    t.true(seen.deliveries[0]!.attempts > 3);
    t.like(seen.deliveries[0], { error: '', next_attempt_at: null });
    t.is((await effectsOf(admin, messageId)).length, 1);
  });

  test.serial(`${bus}: whom a network sends away, or is silent about, keeps nobody else waiting`, async (t) => {
    const admin = await loginAsAdmin(mesh);
    const stranger = people[3] as Person;
    const [one, other] = [user2, user3];
    const exceptions = [
      { recipients: [one.userId], treatment: 'throttled' },
      { recipients: other.userId, treatment: 'SILENT' },
    ];
    await behave(t, admin, 'whatsapp', { record: true, exceptions });
    const path = '/v1/admin/channels/whatsapp/profile';
    t.like(await admin.get(path), {
      exceptions: [
        { recipients: [one.userId], treatment: 'throttled' },
        { recipients: [other.userId], treatment: 'silent' },
      ],
    });
    const wrong = { exceptions: [{ recipients: [], treatment: 'silent' }, { recipients: ['x'] }] };
    const { field_errors: errors } = await admin.refused(400, 'PUT', path, { json: wrong });
    t.deepEqual(Object.keys(errors!).toSorted(), [
      'exceptions[0].recipients',
      'exceptions[1].recipients[0]',
      'exceptions[1].treatment',
    ]);

    // In the same conversation, in the same partition and elsewhere.
    const group = await openConversation([user1, one, other, stranger]);
    const sent: string[] = [];
    for (let count = 0; count < 3; count += 1) sent.push(await send(user1, group));
    const deliveryOf = (details: MessageDetails, { userId }: Person) =>
      details.deliveries.find(({ recipient }) => recipient === userId)!;
    const seen = await eventually(
      'the others have it',
      () => Promise.all(sent.map((id) => detailsOf(user1, id))),
      (all) => all.every((details) => deliveryOf(details, stranger).status === 'delivered'),
    );
    for (const details of seen) {
      t.is(details.status, 'in_transit');
      for (const person of [one, other]) t.is(deliveryOf(details, person).status, 'in_transit');
    }
    const said = await eventually(
      'the ledger says why they wait',
      () => detailsOf(user1, sent[0]!),
      (details) => deliveryOf(details, one).attempts > 0,
    );
    t.is(deliveryOf(said, one).error, 'WhatsApp says that there are too many requests');
    t.truthy(deliveryOf(said, one).next_attempt_at);

    await behave(t, admin, 'whatsapp', { record: true });
    for (const id of sent) t.is((await ended(user1, id, 60_000)).status, 'delivered');
    const { effects } = await admin.get<EffectPage>('/v1/admin/effects?channel=whatsapp&limit=100');
    for (const person of [one, other, stranger]) {
      const own = effects.filter(({ conversation_id: id, recipient }) => id === group && recipient === person.userId);
      t.deepEqual(
        own.map((effect) => effect.message_id),
        sent,
      );
      t.true(own.every((effect) => effect.effects === 1));
    }
  });

  test.serial(`${bus}: a network with a limit is given no more than it takes, and gets everything`, async (t) => {
    const admin = await loginAsAdmin(mesh);
    await behave(t, admin, 'whatsapp', { rate_limit: 10, record: true });
    const ids = await Promise.all([user2, user3].map((other) => openConversation([user1, other])));
    const sent = await Promise.all(Array.from({ length: 30 }, (_, index) => sendPatiently(user1, ids[index % 2]!)));
    for (const messageId of sent) t.is((await ended(user1, messageId, 60_000)).status, 'delivered');
    const { effects } = await admin.get<EffectPage>('/v1/admin/effects?channel=whatsapp&limit=100');
    const own = effects.filter(({ conversation_id: id }) => ids.includes(id));
    t.is(own.length, 30);
    for (const id of ids) {
      t.deepEqual(
        own.filter((effect) => effect.conversation_id === id).map(({ seq }) => seq),
        Array.from({ length: 15 }, (_, index) => index + 1),
      );
    }
  });

  test.serial(`${bus}: what a network reports later ends a delivery once, in whatever order it comes`, async (t) => {
    const admin = await loginAsAdmin(mesh);
    const delay = { p50_ms: 1_000 };
    await behave(t, admin, 'whatsapp', { receipts: { delay, duplicates: 1, out_of_order: 0.5 } });
    await behave(t, admin, 'instagram', { receipts: { delay, failed: 1, duplicates: 1 } });
    const id = await openConversation([user1, user2, user3]);
    const [good, bad] = await Promise.all([send(user1, id), send(user1, id, { channels: ['instagram'] })]);
    const effects = () => effectsOf(admin, good);
    await eventually('the network has it', effects, (found) => found.length === 2);
    const delivered = await ended(user1, good);
    t.is(delivered.status, 'delivered');
    t.deepEqual(
      delivered.history.map(({ status }) => status),
      ['accepted', 'in_transit', 'delivered'],
    );
    const failed = await ended(user1, bad);
    t.is(failed.status, 'failed');
    t.true(failed.deliveries.every(({ error }) => error === 'The network could not deliver it'));
    for (const { deliveries, created_at: from } of [delivered, failed]) {
      t.true(deliveries.every((delivery) => delivery.attempts === 1));
      for (const { updated_at: to } of deliveries) t.true(Date.parse(to) - Date.parse(from) >= 500);
    }
    t.deepEqual(
      (await effects()).map(({ requests, effects: count }) => [requests, count]),
      [
        [1, 1],
        [1, 1],
      ],
    );
  });
}

test.serial('what a network reports after the deadline changes nothing that has ended', async (t) => {
  const admin = await loginAsAdmin(hasty);
  await behave(t, admin, 'whatsapp', { receipts: { late: 1, late_ms: 4_000 } });
  const [user1, user2] = hasty.people as [Person, Person];
  const messageId = await send(user1, await openConversation([user1, user2]));
  const failed = await ended(user1, messageId);
  t.is(failed.status, 'failed');
  t.regex(failed.deliveries[0]!.error, /^Not delivered within 3 s/);
  t.is((await effectsOf(admin, messageId)).length, 1);

  const attempts = async () => (await admin.get<AttemptList>(`/v1/admin/messages/${messageId}/attempts`)).attempts;
  const [attempt] = await eventually('the report comes', attempts, (found) => found.length > 0);
  t.true(attempt!.delivered);
  const later = await send(user1, await openConversation([user1, user2]), { channels: ['instagram'] });
  await ended(user1, later);
  t.deepEqual(await detailsOf(user1, messageId), failed);
});
