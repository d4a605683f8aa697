import cluster from 'node:cluster';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { AggregatorRegistry, collectDefaultMetrics, Counter, Gauge, Histogram, register } from 'prom-client';
import { port, text, type Config } from './config.ts';
import { within } from './deadline.ts';
import type { Readiness } from './readiness.ts';
import { listenFailure } from './starting.ts';

/** Settings of every process's metrics. */
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
 * Each metric is declared next to the code that it measures, once per process. The values of labels must be limited by the code or the
 * configuration: names of RPCs, topics and channels, never an id or what a client sent.
 */
const prefix = 'chat4all_';

/** In seconds, from an answer out of a cache to the longest deadline. */
const durations = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
/** In seconds, from a message that meets nothing on its way to one that has waited past the usual deadline. */
const ages = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60];
const sizes = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000];

/** The possible values of each label. */
export type LabelValues<Label extends string> = Readonly<Record<Label, readonly string[]>>;

/**
 * A counter.
 *
 * @param labels their names; or, where all values are known in advance, the values by name: then every combination begins at 0
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
 * Makes a counter show all combinations of these values, with 0 where nothing has been counted. For a monitor, a series that appears with
 * its first event has never risen: so the values should be declared as soon as they are known. A label that is left out gets no value.
 */
export function beginAtZero<Label extends string>(counter: Counter<Label>, values: Partial<LabelValues<Label>>): void {
  let combinations: Partial<Record<Label, string>>[] = [{}];
  for (const label of Object.keys(values) as Label[]) {
    combinations = combinations.flatMap((each) => values[label]!.map((value) => ({ ...each, [label]: value })));
  }
  for (const labels of combinations) counter.inc(labels as Record<Label, string>, 0);
}

/** A gauge. */
export function gauge<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  return new Gauge({ name: prefix + name, help, labelNames });
}

/** A histogram of durations, in seconds. */
export function durationHistogram<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  return new Histogram({ name: prefix + name, help, labelNames, buckets: durations });
}

/** A histogram of how old something is when a stage has handled it, in seconds. */
export function ageHistogram<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  return new Histogram({ name: prefix + name, help, labelNames, buckets: ages });
}

/** A histogram of how many items are handled together. */
export function sizeHistogram<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  return new Histogram({ name: prefix + name, help, labelNames, buckets: sizes });
}

/**
 * A gauge of something that all processes measure alike, such as the rows of a table. Monitors take the maximum over processes: a sum would
 * count it once per process.
 */
export function sharedGauge<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  const shown = new Gauge({
    name: prefix + name,
    help: `${help}. The same in all processes: take the maximum, not the sum`,
    labelNames,
    aggregator: 'max',
  });
  // A gauge without labels would show 0 while its value is unknown.
  if (labelNames.length === 0) shown.remove();
  return shown;
}

/** A metric for its documentation. */
export interface DeclaredMetric {
  type: string;
  help: string;
  labels: readonly string[];
}

/**
 * A metric that the code loaded so far declares, by its name without the prefix.
 *
 * @throws Error if there is none
 */
export function declaredMetric(name: string): DeclaredMetric {
  const metric = register.getSingleMetric(prefix + name);
  if (metric === undefined) throw new Error(`There is no metric ${prefix}${name}`);
  // What each kind has, and the types leave out.
  const { type, help, labelNames } = metric as unknown as { type: string; help: string; labelNames: string[] };
  return { type, help, labels: labelNames };
}

const ready = gauge(
  'ready',
  'Whether /ready of this process answers that it and what it needs work: 1 if so, otherwise 0',
);
const readyName = `${prefix}ready`;
// Until the first look it would show 0.
ready.remove();

/** Sets a value of a gauge. */
export type Tell = <Label extends string>(gauge: Gauge<Label>, labels: Record<Label, string>, value: number) => void;

const sampling = {
  everyMs: 10_000,
  /** Values that take longer than this are missing until the next sample. */
  timeoutMs: 2_000,
};
/** A process that doesn't know by then isn't ready. Less than what a sample may take. */
const readyWithinMs = 1_500;

const samplers = new Set<{ look: () => Promise<void> }>();
let isServed = false;

/**
 * Calls `work` every 10 s to set gauges, as long as metrics are served and however often they are scraped, so that further monitors cost
 * the database nothing. Values that `work` fails to set are missing until it sets them again.
 *
 * @returns a function that ends the sampling and removes the values
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
    const timedOut = () => new Error(`no answer within ${sampling.timeoutMs} ms`);
    const isKnown = await within(sampling.timeoutMs, work(tell), timedOut).then(
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

/** The state of a process, for monitors. */
export interface Watched {
  /** Whether it is about to stop. */
  isEnding(): boolean;
  /** The answer of `/ready`. */
  readiness(): Promise<Readiness>;
}

/**
 * Serves the metrics of this process and of Node, if a port is set; in a process with workers, the sums over the workers. Also serves
 * `/live`, whether the process runs and isn't about to stop, and `/ready`, whether it and its dependencies work.
 *
 * @returns the port
 * @throws StartError or ConfigError if the address can't be listened on
 */
export async function serveMetrics(
  config: Config<typeof metricsSettings>,
  watched: Watched,
): Promise<number | undefined> {
  const { METRICS_PORT: at, METRICS_HOST: host } = config;
  if (at === undefined) return undefined;
  // In a worker the registry answers the primary, which serves the metrics.
  const ofWorkers = new AggregatorRegistry();
  if (cluster.isWorker) {
    collectDefaultMetrics();
    // It is the primary that says this, of all of them.
    register.removeSingleMetric(readyName);
    return undefined;
  }
  const pages = new Map<string, () => Promise<{ status?: number; type?: string; body: string }>>([
    [
      '/metrics',
      async () => {
        const hasWorkers = Object.keys(cluster.workers ?? {}).length > 0;
        const body = hasWorkers
          ? `${await ofWorkers.clusterMetrics()}\n${await register.getSingleMetricAsString(readyName)}\n`
          : await register.metrics();
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
    // Also for a target that is no valid URL.
    if (answer === undefined) return void response.writeHead(404).end();
    if (request.method !== 'GET') return void response.writeHead(405, { Allow: 'GET' }).end();
    answer().then(
      ({ status = 200, type = 'application/json', body }) => {
        response.writeHead(status, { 'Content-Type': type, 'Cache-Control': 'no-store' }).end(body);
      },
      () => response.writeHead(500).end(),
    );
  });
  // Metrics are served until the process ends, and don't keep it running.
  server.unref();
  server.listen(at, host);
  try {
    await once(server, 'listening');
  } catch (error) {
    throw listenFailure(error as Error, { host: 'METRICS_HOST', port: 'METRICS_PORT' }, { host, port: at });
  }
  collectDefaultMetrics();
  sample(async (tell) => {
    const isReady = await within(readyWithinMs, watched.readiness(), () => new Error('no answer')).then(
      ({ status }) => status === 'ready',
      () => false,
    );
    tell(ready, {}, Number(isReady));
  });
  if (!isServed) {
    isServed = true;
    const lookAtAll = () => void Promise.all([...samplers].map(({ look }) => look()));
    lookAtAll();
    setInterval(lookAtAll, sampling.everyMs).unref();
  }
  return (server.address() as AddressInfo).port;
}
