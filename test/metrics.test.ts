import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { parse } from 'yaml';
import { serveMetrics } from '#lib/metrics.ts';
import { readinessOf } from '#lib/readiness.ts';
import { problemsOf } from '../dev/documents.ts';
import { eventually } from './eventually.ts';
import { ended, openConversation, send, startFlowMesh, type Person } from './flows/meshes.ts';
import { kafkaIsThere } from './harness.ts';
import { opened } from './opened.ts';
import { readQuery, readSeries, selects, type Query, type Selector, type Series } from './promql.ts';

const root = path.resolve(import.meta.dirname, '..');
const monitoring = path.join(root, 'monitoring');
const read = (file: string) => readFile(path.join(monitoring, file), 'utf8');

const promtool = (process.env['PATH'] ?? '')
  .split(path.delimiter)
  .map((folder) => path.join(folder, 'promtool'))
  .find((file) => existsSync(file));
const needsPromtool = promtool !== undefined || process.env['CI'] === 'true' ? test.serial : test.serial.skip;
const runPromtool = async (...args: string[]) => promisify(execFile)(promtool ?? 'promtool', args, { cwd: monitoring });

const served = opened(async () => {
  const readiness = async () => readinessOf({ dependencies: {}, optional: {} });
  const at = { METRICS_PORT: 0, METRICS_HOST: '127.0.0.1' };
  return { port: (await serveMetrics(at, { isEnding: () => false, readiness }))! };
});
const mesh = opened(
  () => startFlowMesh(kafkaIsThere ? 'kafka' : 'embedded', { people: 2 }),
  (mesh) => mesh.stop(),
);
const metrics = async () => (await fetch(`http://127.0.0.1:${served.port}/metrics`)).text();

test.serial('every counter of the hub shows a 0 before the first event that it counts', async (t) => {
  const samples = async () => {
    const text = await metrics();
    const counters = [...text.matchAll(/^# TYPE (chat4all_\w+) counter$/gm)].map(([, name]) => name!);
    return new Map(
      counters.map((name) => [name, text.split('\n').filter((line) => new RegExp(`^${name}[ {]`).test(line))]),
    );
  };
  const empty = async () => [...(await samples())].filter(([, lines]) => lines.length === 0).map(([name]) => name);
  await eventually('all of them have a sample', empty, (names) => names.length === 0);

  const all = await samples();
  for (const line of [
    'chat4all_messages_ended_total{status="failed"} 0',
    'chat4all_messages_refused_total{channel="whatsapp",reason="CHANNEL_OVERLOADED"} 0',
    'chat4all_deliveries_total{channel="instagram",status="delivered"} 0',
    'chat4all_delivery_attempts_total{channel="whatsapp"} 0',
    'chat4all_tool_invocations_total{status="timeout"} 0',
    'chat4all_rpc_handled_total{rpc="chat4all.message.v1.MessageService/SendMessage",code="UNAVAILABLE"} 0',
    'chat4all_http_requests_total{method="POST",route="/v1/messages",status="503"} 0',
    'chat4all_http_refused_total{of="calls",why="full"} 0',
    'chat4all_bus_published_total{topic="message_processing"} 0',
    'chat4all_bus_dead_letters_total{topic="message_processing",group="router"} 0',
    'chat4all_assistant_turns_total{outcome="failed"} 0',
    'chat4all_webhook_pauses_total{reason="failing"} 0',
    'chat4all_tool_circuits_opened_total 0',
  ]) {
    const name = /^\w+/.exec(line)![0];
    t.true(all.get(name)?.includes(line), `${line} in\n${all.get(name)?.slice(0, 20).join('\n')}`);
  }
});

test.serial('a message that is delivered is counted once at each stage, with its age', async (t) => {
  const [sender, recipient] = mesh.people as [Person, Person];
  const conversationId = await openConversation([sender, recipient]);
  const messageId = await send(sender, conversationId, { channels: ['whatsapp'] });
  await ended(sender, messageId);
  const stages = [
    'chat4all_message_routed_age_seconds_count 1',
    'chat4all_delivery_attempted_age_seconds_count{channel="whatsapp"} 1',
    'chat4all_message_ended_age_seconds_count{status="delivered"} 1',
    'chat4all_message_ended_age_seconds_bucket{le="60",status="delivered"} 1',
  ];
  const missing = async () => {
    const lines = new Set((await metrics()).split('\n'));
    return stages.filter((line) => !lines.has(line));
  };
  t.deepEqual(await eventually('each stage has counted it', missing, ({ length }) => length === 0), []);
});

/** What runs where Prometheus is: the series of the mesh with the labels of its target, and `up`. */
async function scraped(): Promise<Series[]> {
  interface ScrapeConfig {
    job_name: string;
    static_configs: { targets: string[]; labels: Record<string, string> }[];
  }
  const { scrape_configs: scrapes } = parse(await read('prometheus/prometheus.yml')) as {
    scrape_configs: ScrapeConfig[];
  };
  const [{ job_name: job, static_configs: targets }] = scrapes as [ScrapeConfig];
  const { targets: addresses, labels } = targets[0]!;
  const own = [{ metric: 'up', labels: {}, value: '1' }, ...readSeries(await metrics())];
  return own.map((each) => ({ ...each, labels: { ...each.labels, ...labels, job, instance: addresses[0]! } }));
}

/** A query of the dashboard or of an alert, and the labels that are shown with its result. */
interface Written {
  where: string;
  text: string;
  shown: string[];
}

const labelsIn = (template: string, pattern: RegExp) => [...template.matchAll(pattern)].map(([, label]) => label!);

async function dashboardQueries(): Promise<Written[]> {
  interface Panel {
    title: string;
    targets?: { expr: string; legendFormat: string }[];
  }
  const { panels } = JSON.parse(await read('grafana/chat4all.json')) as { panels: Panel[] };
  return panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr, legendFormat }) => ({
      where: title,
      text: expr.replaceAll('$__rate_interval', '1m').replaceAll('$service', '.*'),
      shown: labelsIn(legendFormat, /\{\{(\w+)\}\}/g),
    })),
  );
}

interface Alert {
  alert: string;
  expr: string;
  labels: { severity: string };
  annotations: { summary: string; description: string; runbook: string };
}

async function readAlerts(): Promise<Alert[]> {
  const { groups } = parse(await read('prometheus/alerts.yml')) as { groups: { rules: Alert[] }[] };
  return groups.flatMap(({ rules }) => rules);
}

/** Metrics of Kafka's own clients: there are none where PostgreSQL is the bus. */
const isMissing = ({ selectors }: Query) =>
  !kafkaIsThere && selectors.some(({ metric }) => metric === 'chat4all_kafka_requests_total');

test.serial('each query of the dashboard and of the alerts finds what the hub says, by names and labels', async (t) => {
  const alerts = (await readAlerts()).map(({ alert, expr, annotations }) => ({
    where: alert,
    text: expr,
    shown: labelsIn(Object.values(annotations).join(), /\$labels\.(\w+)/g),
  }));
  const written = [...(await dashboardQueries()), ...alerts];
  const series = await eventually('what is looked up is there', scraped, (all) =>
    ['outbox_events', 'dead_letters_waiting', 'deliveries_waiting', 'bus_lag_events', 'ready'].every((name) =>
      all.some(({ metric }) => metric === `chat4all_${name}`),
    ),
  );
  const byMetric = Map.groupBy(series, ({ metric }) => metric);
  const foundBy = (selector: Selector) =>
    (byMetric.get(selector.metric) ?? []).filter((each) => selects(selector, each));
  const problems = written.flatMap(({ where, text, shown }) => {
    const query = readQuery(text);
    if (isMissing(query)) return [];
    const empty = query.selectors.filter((selector) => foundBy(selector).length === 0);
    const labels = new Set(query.selectors.flatMap(foundBy).flatMap((each) => Object.keys(each.labels)));
    const unknown = [...query.groupedBy, ...shown].filter((label) => !labels.has(label));
    return [
      ...empty.map((selector) => `${where}: nothing is selected by ${JSON.stringify(selector)}`),
      ...unknown.map((label) => `${where}: nothing has the label ${label}`),
    ];
  });
  t.deepEqual(problems, []);
});

test('each alert says how bad it is, what it means, and on which page to go on', async (t) => {
  const alerts = await readAlerts();
  const pages = new Map(
    await Promise.all(
      [...new Set(alerts.map(({ annotations }) => annotations.runbook.split('#')[0]!))].map(
        async (page) => [page, await readFile(path.join(root, page), 'utf8')] as const,
      ),
    ),
  );
  for (const { alert, labels, annotations } of alerts) {
    t.true(['critical', 'warning'].includes(labels.severity), alert);
    t.true(annotations.summary.length > 0 && annotations.description.length > 0, alert);
    const links = new Map([...pages, ['alerts.md', `[${alert}](${annotations.runbook})`]]);
    const found = problemsOf(links, (file) => links.has(file)).filter((problem) => problem.startsWith('alerts.md'));
    t.deepEqual(found, [], alert);
  }
  const tested = await read('prometheus/alerts.test.yml');
  t.deepEqual(
    alerts.map(({ alert }) => alert).filter((name) => !tested.includes(`alertname="${name}"`)),
    [],
    'alerts.test.yml has all of them',
  );
});

needsPromtool('promtool: the files are as Prometheus reads them, and each alert fires when it should', async (t) => {
  await runPromtool('check', 'config', 'prometheus/prometheus.yml');
  await runPromtool('test', 'rules', 'prometheus/alerts.test.yml');
  t.pass();
});

needsPromtool('promtool: each query of the dashboard has a result where the hub is at work', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-promtool-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const series = await scraped();
  const queries = (await dashboardQueries())
    .map(({ text }) => ({ text, query: readQuery(text) }))
    .filter(({ query }) => !isMissing(query));
  const isRead = new Set(queries.flatMap(({ query }) => query.selectors.map(({ metric }) => metric)));
  const tests = [
    {
      interval: '15s',
      // As if each had grown by one from scrape to scrape.
      input_series: series
        .filter(({ metric }) => isRead.has(metric))
        .map(({ metric, labels, value }) => ({
          series: `${metric}{${Object.entries(labels)
            .map(([name, quoted]) => `${name}="${quoted}"`)
            .join(',')}}`,
          values: `${value === 'Nan' ? 0 : value}+1x20`,
        })),
      promql_expr_test: queries.map(({ text }) => ({
        expr: `count(${text}) > bool 0`,
        eval_time: '5m',
        exp_samples: [{ labels: '{}', value: 1 }],
      })),
    },
  ];
  const file = path.join(folder, 'dashboard.test.json');
  await writeFile(file, JSON.stringify({ evaluation_interval: '15s', tests }));
  await runPromtool('test', 'rules', file);
  t.pass();
});
