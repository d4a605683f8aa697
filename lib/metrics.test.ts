import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { AggregatorRegistry, register } from 'prom-client';
import { observed } from './bus/observed.ts';
import type { Bus, ConsumeOptions } from './bus/bus.ts';
import { eventually } from '../test/eventually.ts';
import { counter, declaredMetric, sample, serveMetrics, sharedGauge } from './metrics.ts';
import { readinessOf, type PartsHealth, type Readiness } from './readiness.ts';
import { StartError } from './starting.ts';

let port: number | undefined;
let url = '';
let parts: PartsHealth = { dependencies: { file: 'up', 'file.store': 'up' }, optional: {} };
let isEnding = false;
const watched = {
  isEnding: () => isEnding,
  readiness: async () => readinessOf(parts, isEnding ? 'stopping' : undefined),
};
test.before(async () => {
  port = await serveMetrics({ METRICS_PORT: 0, METRICS_HOST: '127.0.0.1' }, watched);
  url = `http://127.0.0.1:${port}`;
});

async function lines(name: string): Promise<string[]> {
  const response = await fetch(`${url}/metrics`);
  const text = await response.text();
  return text.split('\n').filter((line) => line.startsWith(`chat4all_${name}`));
}

test('metrics are there as Prometheus reads them, those of Node too, and nothing else is', async (t) => {
  const counted = counter('test_events_total', 'Events', ['kind']);
  counted.inc({ kind: 'one' }, 2);
  const response = await fetch(`${url}/metrics`);
  t.is(response.status, 200);
  t.regex(response.headers.get('content-type')!, /^text\/plain; version=0\.0\.4/);
  const text = await response.text();
  t.regex(text, /^# TYPE chat4all_test_events_total counter$/m);
  t.regex(text, /^chat4all_test_events_total\{kind="one"\} 2$/m);
  t.regex(text, /^process_resident_memory_bytes \d+/m);
  t.is((await fetch(`${url}/`)).status, 404);
  t.is((await fetch(`${url}/metrics`, { method: 'POST' })).status, 405);
});

test('they say whether the process is ready', async (t) => {
  await eventually(
    'a look has been taken',
    () => lines('ready'),
    (shown) => shown.includes('chat4all_ready 1'),
  );
  t.pass();
});

test.serial('beside them: /live as long as it goes on, and /ready if all works that is needed', async (t) => {
  const ask = async (page: string) => {
    const response = await fetch(`${url}/${page}`);
    return { code: response.status, body: (await response.json()) as Partial<Readiness> };
  };
  t.deepEqual(await ask('live'), { code: 200, body: { status: 'live' } as object });
  t.like(await ask('ready'), { code: 200, body: { status: 'ready', features: { files: 'up' } } });
  parts = { dependencies: { ...parts.dependencies, 'file.store': 'down' }, optional: {} };
  t.is((await ask('live')).code, 200);
  const body = { status: 'not_ready', reason: 'unavailable', dependencies: { file: 'up', 'file.store': 'down' } };
  t.like(await ask('ready'), { code: 503, body: { ...body, features: { files: 'down' } } as object });
  isEnding = true;
  t.deepEqual(await ask('live'), { code: 503, body: { status: 'stopping' } as object });
  t.like(await ask('ready'), { code: 503, body: { reason: 'stopping' } });
  isEnding = false;
});

test('without a port there are none; a port that is taken is named', async (t) => {
  t.is(await serveMetrics({ METRICS_PORT: undefined, METRICS_HOST: '127.0.0.1' }, watched), undefined);
  const taken = serveMetrics({ METRICS_PORT: port, METRICS_HOST: '127.0.0.1' }, watched);
  await t.throwsAsync(taken, {
    instanceOf: StartError,
    message: `METRICS_PORT: 127.0.0.1:${port} is in use by another program`,
  });
});

test('sample: gauges show what was told last, however often somebody looks; who fails or stops tells nothing', async (t) => {
  const shown = sharedGauge('test_waiting', 'Waiting');
  const byKind = sharedGauge('test_waiting_kinds', 'Waiting', ['kind']);
  t.deepEqual(await lines('test_waiting'), []);
  let asked = 0;
  const stop = sample(async (tell) => {
    asked += 1;
    tell(shown, {}, 3);
    tell(byKind, { kind: 'one' }, 1);
  });
  const stopOther = sample(async (tell) => tell(byKind, { kind: 'other' }, 2));
  sample(async (tell) => {
    tell(byKind, { kind: 'failing' }, 5);
    throw new Error('away');
  });
  for (let times = 0; times < 3; times += 1) {
    t.deepEqual(await lines('test_waiting'), [
      'chat4all_test_waiting 3',
      'chat4all_test_waiting_kinds{kind="one"} 1',
      'chat4all_test_waiting_kinds{kind="other"} 2',
    ]);
  }
  t.is(asked, 1);
  stop();
  t.deepEqual(await lines('test_waiting'), ['chat4all_test_waiting_kinds{kind="other"} 2']);
  stopOther();
  t.deepEqual(await lines('test_waiting'), []);
});

test('sharedGauge: of several processes the largest counts, and its help says so', async (t) => {
  sharedGauge('test_shared', 'Rows').set(4);
  const metric = (await register.getMetricsAsJSON()).find(({ name }) => name === 'chat4all_test_shared')!;
  t.regex(metric.help, /^Rows\. .* take the maximum, not the sum$/);
  const merged = AggregatorRegistry.aggregate([[metric], [{ ...metric, values: [{ value: 3, labels: {} }] }]]);
  t.regex(await merged.getSingleMetricAsString('chat4all_test_shared'), /^chat4all_test_shared 4$/m);
});

test('observed: a bus counts what is published, handled, tried in vain and given up, and shows how far behind it is', async (t) => {
  let given: ConsumeOptions | undefined;
  const bus = observed({
    async publish(topic) {
      if (topic === 'away') throw new Error('away');
    },
    async consume(options) {
      given = options;
      return { stop: async () => {} };
    },
    probe: async () => {},
    lag: async () => [{ partition: 0, events: 7, next: 3 }],
    stop: async () => {},
  } satisfies Bus);
  const event = { id: '1', type: 't', key: 'k', value: Buffer.alloc(0), requestId: 'r', topic: 'fruit', partition: 0 };
  await bus.publish('fruit', [event, event]);
  await t.throwsAsync(bus.publish('away', [event]));
  let fails = true;
  const consumer = await bus.consume({
    topics: ['fruit'],
    group: 'eaters',
    async handle() {
      if (fails) throw new Error('rotten');
    },
  });
  await t.throwsAsync(given!.handle([event]), { message: 'rotten' });
  await given!.onDeadLetter!(event, new Error('rotten'));
  fails = false;
  await given!.handle([event, event, event]);

  const all = await lines('bus_');
  for (const line of [
    'chat4all_bus_published_total{topic="fruit"} 2',
    'chat4all_bus_publishes_total{topic="fruit"} 1',
    'chat4all_bus_publish_failures_total{topic="away"} 1',
    'chat4all_bus_handled_total{topic="fruit",group="eaters"} 3',
    'chat4all_bus_rounds_total{topic="fruit",group="eaters"} 1',
    'chat4all_bus_round_duration_seconds_count{topic="fruit",group="eaters"} 2',
    'chat4all_bus_failures_total{topic="fruit",group="eaters"} 1',
    'chat4all_bus_dead_letters_total{topic="fruit",group="eaters"} 1',
    'chat4all_bus_lag_events{topic="fruit",group="eaters",partition="0"} 7',
  ]) {
    t.true(all.includes(line), `${line} in\n${all.join('\n')}`);
  }
  await consumer.stop();
  t.deepEqual(await lines('bus_lag_events'), []);
});

test('declaredMetric: says what was declared', (t) => {
  counter('test_declared_total', 'What is counted', ['kind', 'end']);
  t.deepEqual(declaredMetric('test_declared_total'), {
    type: 'counter',
    help: 'What is counted',
    labels: ['kind', 'end'],
  });
  t.throws(() => declaredMetric('test_undeclared_total'), {
    message: 'There is no metric chat4all_test_undeclared_total',
  });
});

test('docs/operating.md: whatever it says to watch is there under that name', (t) => {
  const root = path.resolve(import.meta.dirname, '..');
  const read = (file: string) => readFileSync(path.join(root, file), 'utf8');
  const sources = globSync('{lib,services,gateway}/**/*.ts', { cwd: root }).filter(
    (file) => !file.endsWith('.test.ts'),
  );
  const declarations = /\b(?:counter|gauge|sharedGauge|durationHistogram|ageHistogram|sizeHistogram)\(\s*'(\w+)'/g;
  const declared = new Set(sources.flatMap((file) => [...read(file).matchAll(declarations)].map(([, name]) => name!)));
  const guide = read('docs/operating.md');
  const [, watched] = /^## What to watch\n([^]*?)^## /m.exec(guide)!;
  const named = [...watched!.matchAll(/`chat4all_(\w+)`/g)].map(([, name]) => name!);
  t.true(named.includes('outbox_age_seconds'));
  t.deepEqual(
    named.filter((name) => !declared.has(name)),
    [],
  );
  const line = /the log, `([^`]+)`/.exec(watched!)![1]!;
  t.true(
    sources.some((file) => read(file).includes(line)),
    line,
  );
});
