import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { v4 as uuid } from 'uuid';
import { loadConfig } from '#lib/config.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import type { DeliveryToMake, Receipt } from '../connector.ts';
import { connectorContract, sampleDelivery } from '../contract.ts';
import { database } from '../database.ts';
import { settings } from '../index.ts';
import { mockConnector } from './mock-connector.ts';
import {
  emptyProfile,
  isOutOfOrder,
  isRefused,
  receiptsOf,
  timeWithin,
  type Profile,
  type ReceiptProfile,
} from './profile.ts';
import { openSimulation, type Simulation } from './provider.ts';
import { openSimulationStore } from './store.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const log = openLog({ name: 'provider', format: 'json', level: 'silent' });
const db = opened(
  () => openDatabase(database, { url: harness.databaseUrl('connectors'), poolSize: 8, name: 'provider test' }),
  (db) => db.close(),
);
const store = openSimulationStore(db);
const simulations = opened(
  (): Simulation[] => [],
  (all) => Promise.all(all.map((simulation) => simulation.stop())),
);
/** A process that simulates one network, called after the test that it belongs to. */
async function simulate(channel: string, profile: Partial<Profile> = {}, random?: () => number): Promise<Simulation> {
  const simulation = await openSimulation({
    networks: [{ name: channel, title: 'Net' }],
    configured: new Map([[channel, { ...emptyProfile, ...profile }]]),
    store,
    log,
    ...(random && { random }),
  });
  simulations.push(simulation);
  return simulation;
}

/** Asks a network for a delivery, and says whether that was what took effect. */
async function ask(
  simulation: Simulation,
  channel: string,
  { delivery = sampleDelivery(), key = uuid() as string, replay = 0, signal = new AbortController().signal } = {},
) {
  let effects = 0;
  const answer = await simulation
    .provider(channel)
    .take(delivery, { idempotencyKey: key, replay, signal }, async () => void (effects += 1))
    .catch((error: unknown) => error as HubError);
  return { answer, effects, reason: answer instanceof HubError ? answer.reason : undefined, key, delivery };
}

async function effectsOf(channel: string) {
  return (await store.listEffects({ channel, after: 0n }, { limit: 100, offset: 0 }))[0];
}

for (const [channel, profile] of Object.entries<Partial<Profile>>({
  recording: { record: true },
  slow: { latency: { p50: 4, p99: 20 } },
  limited: { rateLimit: 1_000_000 },
  reporting: { receipts: receiptProfile() },
})) {
  const provider = opened(async () => (await simulate(channel, profile)).provider(channel));
  const connector = mockConnector({ name: channel, title: 'Net' }).simulatedBy(provider);
  connectorContract(test, connector, {
    folder: channel,
    line: ({ messageId, recipientId }: DeliveryToMake) =>
      `INFO: Mensagem ${messageId} enviada para o usuário ${recipientId} no Net`,
  });
}

test('latency: half of the times are below the median, and one in a hundred above the other percentile', (t) => {
  const times = Array.from({ length: 20_000 }, () => timeWithin({ p50: 40, p99: 400 }, Math.random));
  const share = (limit: number) => times.filter((time) => time > limit).length / times.length;
  t.true(Math.abs(share(40) - 0.5) < 0.03);
  t.true(share(400) > 0.004 && share(400) < 0.02);
  t.is(timeWithin({ p50: 0, p99: 0 }, Math.random), 0);
  t.is(timeWithin({ p50: 7, p99: 0 }, Math.random), 7);
});

test('outages: begin and end when they are to, and come again', (t) => {
  const isOut = (now: number, repeat: number) =>
    isOutOfOrder({ ...emptyProfile, outages: [{ from: 100, to: 150, repeat }] }, now);
  t.deepEqual(
    [99, 100, 149, 150, 1_100, 1_149, 1_150].map((now) => isOut(now, 1_000)),
    [false, true, true, false, true, true, false],
  );
  t.false(isOut(1_100, 0));
});

test('final errors: the share of deliveries that is refused, the same ones each time', (t) => {
  const keys = Array.from({ length: 5_000 }, () => uuid() as string);
  const profile = { ...emptyProfile, finalErrors: 0.2 };
  const refused = keys.filter((key) => isRefused(profile, key));
  t.true(refused.length > 850 && refused.length < 1_150, `${refused.length}`);
  t.deepEqual(
    keys.filter((key) => isRefused(profile, key)),
    refused,
  );
  t.true(keys.every((key) => isRefused({ ...profile, finalErrors: 1 }, key)));
  t.false(keys.some((key) => isRefused(emptyProfile, key)));
});

function receiptProfile(given: Partial<ReceiptProfile> = {}): ReceiptProfile {
  return { delay: { p50: 0, p99: 0 }, failed: 0, duplicates: 0, outOfOrder: 0, late: 0, lateBy: 0, ...given };
}

test('receipts: in order, doubled, in the opposite order, late, or of a failure', (t) => {
  const told = (given: Partial<ReceiptProfile>) =>
    receiptsOf(receiptProfile({ delay: { p50: 100, p99: 0 }, ...given }), () => 0.5).map(
      ({ status, delay }) => `${status} ${delay}`,
    );
  t.deepEqual(told({}), ['sent 50', 'delivered 100', 'read 150']);
  t.deepEqual(told({ duplicates: 1 }).length, 6);
  t.deepEqual(told({ outOfOrder: 1 }), ['read 50', 'delivered 100', 'sent 150']);
  t.deepEqual(told({ late: 1, lateBy: 1_000 }), ['sent 1050', 'delivered 1100', 'read 1150']);
  t.deepEqual(told({ failed: 1 }), ['sent 50', 'failed 100']);
});

test('take: a key takes effect once, whichever process is asked and however often, also at once', async (t) => {
  const simulations = await Promise.all([simulate('once', { record: true }), simulate('once', { record: true })]);
  const [key, delivery] = [uuid() as string, sampleDelivery()];
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, index) => ask(simulations[index % 2]!, 'once', { key, delivery })),
  );
  t.is(
    answers.reduce((sum, { effects }) => sum + effects, 0),
    1,
  );
  const understood = answers.filter(({ reason }) => reason !== 'BUSY');
  t.true(understood.every(({ answer }) => answer === undefined));
  const [effect, ...others] = await effectsOf('once');
  t.deepEqual(others, []);
  t.like(effect, {
    idempotencyKey: key,
    messageId: delivery.messageId,
    conversationId: delivery.conversationId,
    recipientId: delivery.recipientId,
    seq: 1n,
    requests: understood.length,
    effects: 1,
  });
});

test('take: another key for the same message is a second effect, and is seen to be one', async (t) => {
  const simulation = await simulate('twice', { record: true });
  const delivery = sampleDelivery();
  await ask(simulation, 'twice', { delivery });
  await ask(simulation, 'twice', { delivery });
  await ask(simulation, 'twice');
  t.deepEqual(
    (await effectsOf('twice')).map(({ effects }) => effects),
    [2, 2, 1],
  );
});

test('take: an answer that got lost had its effect, and the next request is told so', async (t) => {
  let random = 0;
  const simulation = await simulate('lost', { record: true, lostAnswers: 0.5 }, () => random);
  const first = await ask(simulation, 'lost');
  t.like(first, { reason: 'ANSWER_LOST', effects: 1 });
  random = 0.9;
  t.like(await ask(simulation, 'lost', first), { answer: undefined, effects: 0 });
  t.like((await effectsOf('lost'))[0], { requests: 2, effects: 1 });
});

test('take: a transient error has no effect', async (t) => {
  let random = 0;
  const simulation = await simulate('transient', { record: true, transientErrors: 0.5 }, () => random);
  const first = await ask(simulation, 'transient');
  t.like(first, { reason: 'NETWORK_ERROR', effects: 0 });
  t.is((first.answer as HubError).kind, 'UNAVAILABLE');
  t.deepEqual(await effectsOf('transient'), []);
  random = 0.9;
  t.like(await ask(simulation, 'transient', first), { answer: undefined, effects: 1 });
});

test('take: a refusal is final and has no effect, but what was taken before stays taken', async (t) => {
  const simulation = await simulate('final', { record: true });
  const first = await ask(simulation, 'final');
  await simulation.setProfile('final', { ...emptyProfile, record: true, finalErrors: 1 });
  t.like(await ask(simulation, 'final', first), { answer: undefined, effects: 0 });
  const second = await ask(simulation, 'final');
  t.like(second, { reason: 'REFUSED_BY_NETWORK', effects: 0 });
  t.is((second.answer as HubError).kind, 'FAILED_PRECONDITION');
  t.is((await effectsOf('final')).length, 1);
});

test('take: the limit is one for all processes, and says how long to wait', async (t) => {
  const limited = { record: true, rateLimit: 20 };
  const simulations = await Promise.all([simulate('limit', limited), simulate('limit', limited)]);
  const second = async () => {
    const [row] = await db.sql<{ second: number }>(
      'select floor(extract(epoch from clock_timestamp()))::int as second',
    );
    return row!.second;
  };
  const began = await second();
  const answers = await Promise.all(Array.from({ length: 100 }, (_, index) => ask(simulations[index % 2]!, 'limit')));
  const taken = answers.filter(({ answer }) => answer === undefined);
  // In most runs all of them fall into one second; a process that counted for itself would let 40 through in it.
  const most = 20 * ((await second()) - began + 1);
  t.true(taken.length >= 20 && taken.length <= most, `${taken.length} of ${most}`);
  for (const { answer, reason } of answers.filter((each) => each.answer !== undefined)) {
    t.is(reason, 'TOO_MANY_REQUESTS');
    t.true((answer as HubError).retryAfter! >= 0 && (answer as HubError).retryAfter! <= 1);
  }
  t.is((await effectsOf('limit')).length, taken.length);
});

test('take: out of order it takes nothing', async (t) => {
  const now = Date.now();
  const outages = [{ from: now - 1_000, to: now + 600_000, repeat: 0 }];
  const simulation = await simulate('down', { record: true, outages });
  t.like(await ask(simulation, 'down'), { reason: 'NETWORK_DOWN', effects: 0 });
  t.deepEqual(await effectsOf('down'), []);
});

test('take: who is excepted gets nothing, as it is said, and everybody else is served', async (t) => {
  const [throttled, down, silent] = [uuid(), uuid(), uuid()] as [string, string, string];
  const exceptions = [
    { recipientIds: [throttled.toUpperCase()], treatment: 'throttled' },
    { recipientIds: [down, throttled], treatment: 'out_of_order' },
    { recipientIds: [silent], treatment: 'silent' },
  ] as const;
  const simulation = await simulate('partial', { record: true, exceptions });
  const askFor = (recipientId: string, signal?: AbortSignal) =>
    ask(simulation, 'partial', { delivery: sampleDelivery({ recipientId }), ...(signal && { signal }) });
  const { answer, reason } = await askFor(throttled);
  t.is(reason, 'TOO_MANY_REQUESTS');
  t.is((answer as HubError).retryAfter, 1);
  t.is((await askFor(down)).reason, 'NETWORK_DOWN');
  const patience = new AbortController();
  const asked = askFor(silent, patience.signal);
  t.like(await askFor(uuid()), { effects: 1, reason: undefined });
  patience.abort();
  t.is((await asked).reason, 'DELIVERY_CANCELLED');
  t.is((await effectsOf('partial')).length, 1);
});

test('take: called off while it waits, it has no effect; called off later, it has', async (t) => {
  const simulation = await simulate('hanging', { record: true, latency: { p50: 60_000, p99: 0 } });
  const early = new AbortController();
  const asked = ask(simulation, 'hanging', { signal: early.signal });
  early.abort();
  t.like(await asked, { reason: 'DELIVERY_CANCELLED', effects: 0 });

  await simulation.setProfile('hanging', { ...emptyProfile, record: true, latency: { p50: 2_000, p99: 0 } });
  const late = new AbortController();
  const half = ask(simulation, 'hanging', { signal: late.signal });
  await eventually(
    'the network took it',
    () => effectsOf('hanging'),
    (effects) => effects.length === 1,
  );
  late.abort();
  t.like(await half, { reason: 'DELIVERY_CANCELLED', effects: 1 });
});

test('profiles: what an administrator sets holds everywhere, and after a restart, until it is reset', async (t) => {
  const [first, second] = await Promise.all([simulate('set', { record: true }), simulate('set', { record: true })]);
  await first.setProfile('set', { ...emptyProfile, finalErrors: 1 });
  t.like(await ask(first, 'set'), { reason: 'REFUSED_BY_NETWORK' });
  const asked = () => ask(second, 'set');
  await eventually('the other process knows it', asked, ({ reason }) => reason === 'REFUSED_BY_NETWORK');
  const restarted = await simulate('set', { record: true });
  t.like(await ask(restarted, 'set'), { reason: 'REFUSED_BY_NETWORK' });
  t.is((await restarted.profileOf('set')).finalErrors, 1);

  t.deepEqual(await restarted.resetProfile('set'), { ...emptyProfile, record: true });
  t.like(await ask(restarted, 'set'), { answer: undefined });
  await eventually('the other process knows it', asked, ({ answer }) => answer === undefined);
});

/** What a network reports to a process, which fails to listen `failures` times. */
function listening(simulation: Simulation, channel: string, failures = 0) {
  const heard: Receipt[] = [];
  let left = failures;
  simulation.provider(channel).reportTo(async (receipts) => {
    if (left-- > 0) throw new HubError('UNAVAILABLE', 'AWAY', 'away');
    heard.push(...receipts);
  });
  return heard;
}

test('receipts: come to any process that listens, in their order, and only once if all goes well', async (t) => {
  const receipts = receiptProfile({ delay: { p50: 20, p99: 0 } });
  const [asked, other] = await Promise.all([simulate('told', { receipts }), simulate('told', { receipts })]);
  const { answer, key, delivery } = await ask(asked, 'told');
  t.is(answer, 'taken');
  t.like(await ask(asked, 'told', { key, delivery }), { answer: 'taken', effects: 0 });
  const heard = listening(other, 'told');
  await eventually(
    'all have come',
    () => heard.length,
    (length) => length >= 3,
  );
  const { messageId, recipientId } = delivery;
  t.like(
    heard,
    ['sent', 'delivered', 'read'].map((status) => ({
      messageId,
      recipientId,
      idempotencyKey: key,
      status,
      reason: '',
    })),
  );
  const owed = async () => (await db.sql(`select id from provider_receipts where channel = 'told'`)).length;
  await eventually('none is owed any more', owed, (count) => count === 0);
  t.is(heard.length, 3);
});

test('receipts: a later round that asks for what was taken is told anew, and of which round it is told', async (t) => {
  const receipts = receiptProfile({ failed: 1 });
  const simulation = await simulate('rounds', { receipts });
  const heard = listening(simulation, 'rounds');
  const { key, delivery } = await ask(simulation, 'rounds');
  const told = (length: number) =>
    eventually(
      'all have come',
      () => heard.length,
      (found) => found >= length,
    );
  await told(2);
  for (const replay of [1, 1, 0]) {
    t.like(await ask(simulation, 'rounds', { key, delivery, replay }), { answer: 'taken', effects: 0 });
  }
  await told(4);
  const owed = async () => (await db.sql(`select id from provider_receipts where channel = 'rounds'`)).length;
  await eventually('none is owed any more', owed, (count) => count === 0);
  t.deepEqual(
    heard.map(({ status, replay }) => [status, replay]),
    [['sent', 0], ['failed', 0], ['sent', 1], ['failed', 1]], // prettier-ignore
  );
  t.like(await effectsOf('rounds'), [{ requests: 4, effects: 1 }]);
});

test('receipts: come again to whoever could not take them, and after the death of a process to another', async (t) => {
  const receipts = receiptProfile();
  const dying = await simulate('again', { receipts });
  const { key } = await ask(dying, 'again');
  await eventually(
    'they are due',
    () => store.dueReceipts(['again'], 10, 300),
    (due) => due.length === 3,
  );
  await dying.stop();
  const heard = listening(await simulate('again', { receipts }), 'again', 1);
  // The lease of a process that failed is 5 s.
  await eventually(
    'all have come',
    () => heard.length,
    (length) => length >= 3,
    30_000,
  );
  t.deepEqual(new Set(heard.map(({ idempotencyKey }) => idempotencyKey)), new Set([key]));
});

test('receipts: a network that is out of order reports nothing until it works again', async (t) => {
  const receipts = receiptProfile();
  const simulation = await simulate('silent', { receipts });
  const heard = listening(simulation, 'silent');
  const outages = [{ from: 0, to: Date.now() + 600_000, repeat: 0 }];
  await ask(simulation, 'silent');
  await eventually(
    'they have come',
    () => heard.length,
    (length) => length === 3,
  );
  const late = { ...emptyProfile, receipts: receiptProfile({ delay: { p50: 1_500, p99: 0 } }) };
  await simulation.setProfile('silent', late);
  await ask(simulation, 'silent');
  await simulation.setProfile('silent', { ...late, outages });
  await sleep(2_000);
  t.is(heard.length, 3);
  await simulation.setProfile('silent', late);
  await eventually(
    'they have come',
    () => heard.length,
    (length) => length === 6,
  );
});

test('listEffects: pages by position, also behind one, with the total', async (t) => {
  const simulation = await simulate('list', { record: true });
  const keys: string[] = [];
  for (let count = 0; count < 5; count += 1) keys.push((await ask(simulation, 'list')).key);
  const [all, total] = await store.listEffects({ channel: 'list', after: 0n }, { limit: 100, offset: 0 });
  t.is(total, 5);
  t.deepEqual(
    all.map(({ idempotencyKey }) => idempotencyKey),
    keys,
  );
  const [page] = await store.listEffects({ channel: 'list', after: 0n }, { limit: 2, offset: 1 });
  t.deepEqual(page, all.slice(1, 3));
  const [rest, left] = await store.listEffects({ after: all[2]!.position, channel: 'list' }, { limit: 9, offset: 0 });
  t.deepEqual(rest, all.slice(3));
  t.is(left, 2);
  const [own] = await store.listEffects({ messageId: all[4]!.messageId, after: 0n }, { limit: 9, offset: 0 });
  t.deepEqual(own, all.slice(4));
});

test('sweep: what is too old goes, a bounded batch at a time', async (t) => {
  const simulation = await simulate('old', { receipts: receiptProfile({ delay: { p50: 600_000, p99: 0 } }) });
  for (let count = 0; count < 3; count += 1) await ask(simulation, 'old');
  // Not so old that what sweeps in every process does it meanwhile.
  const long = new Date(Date.now() - 3_600_000);
  await db.sql(`update provider_effects set first_at = $1 where channel = 'old'`, [long]);
  await db.sql(`update provider_receipts set due_at = $1 where channel = 'old'`, [long]);
  const until = new Date(Date.now() - 1_800_000);
  t.is(await store.sweep(until, 2), 2);
  await store.sweep(until, 1_000);
  t.is(await store.sweep(until, 1_000), 0);
  t.deepEqual(await effectsOf('old'), []);
});

test('PROVIDER_PROFILES: takes profiles by channel, and names what is wrong with them', (t) => {
  const load = (text: string) =>
    loadConfig({ PROVIDER_PROFILES: settings.PROVIDER_PROFILES }, { PROVIDER_PROFILES: text });
  const { PROVIDER_PROFILES } = load(
    JSON.stringify({
      whatsapp: {
        rate_limit: 80,
        latency: { p50_ms: 40, p99_ms: 400 },
        outages: [{ from: '2026-01-01T00:00:00Z', to: '2026-01-01T00:00:05Z', repeat_ms: 60_000 }],
        receipts: {},
      },
    }),
  );
  t.deepEqual(PROVIDER_PROFILES?.get('whatsapp'), {
    ...emptyProfile,
    rateLimit: 80,
    latency: { p50: 40, p99: 400 },
    outages: [{ from: Date.UTC(2026, 0, 1), to: Date.UTC(2026, 0, 1, 0, 0, 5), repeat: 60_000 }],
    receipts: receiptProfile(),
  });
  for (const [text, message] of [
    ['{', /PROVIDER_PROFILES must be JSON/],
    ['[]', /PROVIDER_PROFILES must be a JSON object/],
    ['{"No": {}}', /PROVIDER_PROFILES names "No"/],
    ['{"whatsapp": {"rate": 80}}', /PROVIDER_PROFILES for whatsapp: .*rate/],
    ['{"whatsapp": {"rate_limit": -1}}', /PROVIDER_PROFILES for whatsapp: rate_limit must be/],
    ['{"whatsapp": {"transient_errors": 2}}', /for whatsapp: transient_errors must be/],
    ['{"whatsapp": {"latency": {"p50_ms": 40, "p99_ms": 4}}}', /for whatsapp: latency p99_ms must not be less/],
    ['{"whatsapp": {"outages": [{}]}}', /for whatsapp: outages\[0\].from is required/],
    [
      '{"whatsapp": {"outages": [{"from": "2026-01-01T00:00:05Z", "to": "2026-01-01T00:00:05Z"}]}}',
      /for whatsapp: outages\[0\] to must be after from/,
    ],
    [
      '{"whatsapp": {"outages": [{"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:05Z", "repeat_ms": 5000}]}}',
      /for whatsapp: outages\[0\] repeat_ms must be longer/,
    ],
    [
      '{"whatsapp": {"outages": [{"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59Z", "repeat_ms": 5000}]}}',
      /for whatsapp: outages\[0\] repeat_ms must be longer/,
    ],
  ] as const) {
    t.regex(t.throws(() => load(text))?.message ?? '', message);
  }
});

test('a channel in PROVIDER_PROFILES that is not simulated is named at the start', async (t) => {
  await t.throwsAsync(harness.startService('connectors', { PROVIDER_PROFILES: '{"pigeon": {}}' }), {
    message: /PROVIDER_PROFILES names no simulated channel with pigeon/,
  });
});
