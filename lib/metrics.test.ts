import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { observed } from './bus/observed.ts';
import type { Bus, ConsumeOptions } from './bus/bus.ts';
import { askedGauge, counter, serveMetrics } from './metrics.ts';

let port: number | undefined;
let url = '';
test.before(async () => {
  port = await serveMetrics({ METRICS_PORT: 0, METRICS_HOST: '127.0.0.1' });
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

test('without a port there are none; a port that is taken is named', async (t) => {
  t.is(await serveMetrics({ METRICS_PORT: undefined, METRICS_HOST: '127.0.0.1' }), undefined);
  const taken = serveMetrics({ METRICS_PORT: port, METRICS_HOST: '127.0.0.1' });
  await t.throwsAsync(taken, {
    message: `Can't serve metrics on 127.0.0.1:${port}: listen EADDRINUSE: address already in use 127.0.0.1:${port}`,
  });
});

test('askedGauge: shows what it is told at that moment; who fails or stops tells nothing', async (t) => {
  const shown = askedGauge('test_waiting', 'Waiting');
  t.deepEqual(await lines('test_waiting'), []);
  let waiting = 3;
  const stop = shown.ask(async (tell) => tell({}, waiting));
  shown.ask(async () => Promise.reject(new Error('away')));
  t.deepEqual(await lines('test_waiting'), ['chat4all_test_waiting 3']);
  waiting = 4;
  t.deepEqual(await lines('test_waiting'), ['chat4all_test_waiting 4']);
  stop();
  t.deepEqual(await lines('test_waiting'), []);
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
    lag: async () => [{ partition: 0, events: 7 }],
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
    'chat4all_bus_publish_failures_total{topic="away"} 1',
    'chat4all_bus_handled_total{topic="fruit",group="eaters"} 3',
    'chat4all_bus_failures_total{topic="fruit",group="eaters"} 1',
    'chat4all_bus_dead_letters_total{topic="fruit",group="eaters"} 1',
    'chat4all_bus_lag_events{topic="fruit",group="eaters",partition="0"} 7',
  ]) {
    t.true(all.includes(line), `${line} in\n${all.join('\n')}`);
  }
  await consumer.stop();
  t.deepEqual(await lines('bus_lag_events'), []);
});

test('docs/operating.md: whatever it says to watch is there under that name', (t) => {
  const root = path.resolve(import.meta.dirname, '..');
  const read = (file: string) => readFileSync(path.join(root, file), 'utf8');
  const sources = globSync('{lib,services,gateway}/**/*.ts', { cwd: root }).filter(
    (file) => !file.endsWith('.test.ts'),
  );
  const declarations = /\b(?:counter|gauge|askedGauge|durationHistogram)\(\s*'(\w+)'/g;
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
