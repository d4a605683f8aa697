import cluster from 'node:cluster';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { AggregatorRegistry, collectDefaultMetrics, Counter, Gauge, Histogram, register } from 'prom-client';
import { port, text, type Config } from './config.ts';
import { within } from './deadline.ts';
import type { Readiness } from './readiness.ts';
import { listenFailure } from './starting.ts';

/** Settings that every process takes for its metrics. */
export const metricsSettings = {
  METRICS_PORT: port()
    .optional()
    .describe(
      'port to serve Prometheus metrics on, at /metrics, beside /live and /ready; 0 takes a free one. Not set, there are none',
    ),
  METRICS_HOST: text()
    .default('127.0.0.1')
    .describe('address to serve metrics on: they are for everybody who reaches it'),
};

/**
 * Metrics are declared where what they count is done, once for a process. A label may only have values that the code or the
 * configuration limits: names of RPCs, topics, channels, never an id or what a client sent.
 */
const prefix = 'chat4all_';

/** Seconds: from what a cache answers to the longest deadline. */
const durations = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Values that labels may have, by the labels' names. */
export type LabelValues<Label extends string> = Readonly<Record<Label, readonly string[]>>;

/**
 * Counts what has happened.
 *
 * @param labels their names; or, where all values of each are known already, these: then the counter begins with all of them
 */
export function counter<Label extends string>(
  name: string,
  help: string,
  labels: readonly Label[] | LabelValues<Label> = [],
): Counter<Label> {
  if (isNames(labels)) return new Counter({ name: prefix + name, help, labelNames: labels });
  const made = new Counter({ name: prefix + name, help, labelNames: Object.keys(labels) as Label[] });
  beginAtZero(made, labels);
  return made;
}

function isNames<Label extends string>(labels: readonly Label[] | LabelValues<Label>): labels is readonly Label[] {
  return Array.isArray(labels);
}

/**
 * Lets a counter show each combination of these values, with 0 where nothing was counted so far. To a monitor what appears with its first
 * event has never risen: whoever learns which values there can be says so before the first one. A label that is left out has none.
 */
export function beginAtZero<Label extends string>(counter: Counter<Label>, values: Partial<LabelValues<Label>>): void {
  let combinations: Partial<Record<Label, string>>[] = [{}];
  for (const label of Object.keys(values) as Label[]) {
    combinations = combinations.flatMap((each) => values[label]!.map((value) => ({ ...each, [label]: value })));
  }
  for (const labels of combinations) counter.inc(labels as Record<Label, string>, 0);
}

/** Shows how much of something there is now. */
export function gauge<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  return new Gauge({ name: prefix + name, help, labelNames });
}

/** Shows how long something takes, in seconds. */
export function durationHistogram<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  return new Histogram({ name: prefix + name, help, labelNames, buckets: durations });
}

/**
 * Shows how much there is of something that all processes see alike, such as rows of a table: a monitor takes the maximum of what they say,
 * since a sum would count it as often as there are processes.
 */
export function sharedGauge<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  const shown = new Gauge({
    name: prefix + name,
    help: `${help}. The same in all processes: take the maximum, not the sum`,
    labelNames,
    aggregator: 'max',
  });
  // Without labels there would be a 0 where nobody knows.
  if (labelNames.length === 0) shown.remove();
  return shown;
}

/** Tells a value of a gauge, by its labels. */
export type Tell = <Label extends string>(gauge: Gauge<Label>, labels: Record<Label, string>, value: number) => void;

/** Milliseconds. */
const sampling = {
  every: 10_000,
  /** That those who are asked may take: a value that comes later is missing, until the next time. */
  limit: 2_000,
};

/** What looks up values. */
const samplers = new Set<{ look: () => Promise<void> }>();
let isServed = false;

/**
 * Has `work` tell the values of gauges every 10 s, as long as metrics are served, however often somebody looks: a monitor more costs the
 * database nothing. What it can't tell is missing until it can.
 *
 * @returns what ends that; what was told is not shown any more then
 */
export function sample(work: (tell: Tell) => Promise<void>): () => void {
  let forget: (() => void)[] = [];
  const clear = () => {
    for (const each of forget) each();
    forget = [];
  };
  let isOver = false;
  async function look(): Promise<void> {
    const told: (() => void)[] = [];
    const tell: Tell = (gauge, labels, value) =>
      void told.push(() => {
        gauge.set(labels, value);
        forget.push(() => gauge.remove(labels));
      });
    const late = () => new Error(`no answer within ${sampling.limit} ms`);
    const isKnown = await within(sampling.limit, work(tell), late).then(
      () => true,
      () => false,
    );
    if (isOver) return;
    clear();
    if (isKnown) for (const show of told) show();
  }
  const sampler = { look };
  samplers.add(sampler);
  if (isServed) void look();
  return () => {
    isOver = true;
    samplers.delete(sampler);
    clear();
  };
}

/** How a process is, for those who watch over it. */
export interface Watched {
  /** Whether it is about to stop. */
  isEnding(): boolean;
  /** What `/ready` says. */
  readiness(): Promise<Readiness>;
}

/**
 * Serves this process's metrics, and those of Node itself, where a port is set: of a process with workers theirs, added up. Beside them
 * `/live`, whether the process runs and isn't about to stop, and `/ready`, whether it and all that it needs work.
 *
 * @returns the port
 * @throws StartError or ConfigError if nothing can be served there
 */
export async function serveMetrics(
  config: Config<typeof metricsSettings>,
  watched: Watched,
): Promise<number | undefined> {
  const { METRICS_PORT: at, METRICS_HOST: host } = config;
  if (at === undefined) return undefined;
  // Made in a worker, it answers the primary, which has the port.
  const ofWorkers = new AggregatorRegistry();
  if (cluster.isWorker) {
    collectDefaultMetrics();
    return undefined;
  }
  const pages = new Map<string, () => Promise<{ status?: number; type?: string; body: string }>>([
    [
      '/metrics',
      async () => {
        const hasWorkers = Object.keys(cluster.workers ?? {}).length > 0;
        const body = await (hasWorkers ? ofWorkers.clusterMetrics() : register.metrics());
        return { type: register.contentType, body };
      },
    ],
    [
      '/live',
      async () => {
        const status = watched.isEnding() ? 'stopping' : 'live';
        return { status: status === 'live' ? 200 : 503, body: JSON.stringify({ status }) };
      },
    ],
    [
      '/ready',
      async () => {
        const readiness = await watched.readiness();
        return { status: readiness.status === 'ready' ? 200 : 503, body: JSON.stringify(readiness) };
      },
    ],
  ]);
  const server = createServer({ requestTimeout: 5_000, headersTimeout: 5_000 }, (request, response) => {
    const answer = pages.get(URL.parse(request.url ?? '', 'http://metrics')?.pathname ?? '');
    // What is no URL leads nowhere, either.
    if (answer === undefined) return void response.writeHead(404).end();
    if (request.method !== 'GET') return void response.writeHead(405, { Allow: 'GET' }).end();
    answer().then(
      ({ status = 200, type = 'application/json', body }) => {
        response.writeHead(status, { 'Content-Type': type, 'Cache-Control': 'no-store' }).end(body);
      },
      () => response.writeHead(500).end(),
    );
  });
  // It says how the process does, so it lasts as long as the process.
  server.unref();
  server.listen(at, host);
  try {
    await once(server, 'listening');
  } catch (error) {
    throw listenFailure(error as Error, { host: 'METRICS_HOST', port: 'METRICS_PORT' }, { host, port: at });
  }
  collectDefaultMetrics();
  if (!isServed) {
    isServed = true;
    const lookAtAll = () => void Promise.all([...samplers].map(({ look }) => look()));
    lookAtAll();
    setInterval(lookAtAll, sampling.every).unref();
  }
  return (server.address() as AddressInfo).port;
}
