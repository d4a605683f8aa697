import cluster from 'node:cluster';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { AggregatorRegistry, collectDefaultMetrics, Counter, Gauge, Histogram, register } from 'prom-client';
import { port, text, type Config } from './config.ts';
import { within } from './deadline.ts';

/** Settings that every process takes for its metrics. */
export const metricsSettings = {
  METRICS_PORT: port()
    .optional()
    .describe('port to serve Prometheus metrics on, at /metrics; 0 takes a free one. Not set, there are none'),
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

/** Counts what has happened. */
export function counter<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  return new Counter({ name: prefix + name, help, labelNames });
}

/** Shows how much of something there is now. */
export function gauge<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  return new Gauge({ name: prefix + name, help, labelNames });
}

/** Shows how long something takes, in seconds. */
export function durationHistogram<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  return new Histogram({ name: prefix + name, help, labelNames, buckets: durations });
}

/** Tells a value of a gauge, by its labels. */
export type Tell<Label extends string> = (labels: Record<Label, string>, value: number) => void;

/** Milliseconds that those who are asked for values may take: a value that comes later is missing. */
const askLimit = 2_000;

/** A gauge whose values are asked for each time that somebody looks: it costs nothing in between. */
export function askedGauge<Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) {
  const asked = new Set<(tell: Tell<Label>) => Promise<void>>();
  const shown = new Gauge({
    name: prefix + name,
    help,
    labelNames,
    async collect() {
      shown.reset();
      // Without labels there would be a 0 where nobody knows.
      if (labelNames.length === 0) shown.remove();
      const tell: Tell<Label> = (labels, value) => shown.set(labels, value);
      const late = () => new Error(`no answer within ${askLimit} ms`);
      // What can't be told now is missing: that is how a monitor sees it, too.
      await Promise.allSettled([...asked].map((work) => within(askLimit, work(tell), late)));
    },
  });
  return {
    /** Asks `work`, too. Returns what ends that. */
    ask(work: (tell: Tell<Label>) => Promise<void>): () => void {
      asked.add(work);
      return () => void asked.delete(work);
    },
  };
}

/**
 * Serves this process's metrics, and those of Node itself, where a port is set: of a process with workers theirs, added up.
 *
 * @returns the port
 */
export async function serveMetrics(config: Config<typeof metricsSettings>): Promise<number | undefined> {
  const { METRICS_PORT: at, METRICS_HOST: host } = config;
  if (at === undefined) return undefined;
  // Made in a worker, it answers the primary, which has the port.
  const ofWorkers = new AggregatorRegistry();
  if (cluster.isWorker) {
    collectDefaultMetrics();
    return undefined;
  }
  const server = createServer({ requestTimeout: 5_000, headersTimeout: 5_000 }, (request, response) => {
    // What is no URL leads nowhere, either.
    if (URL.parse(request.url ?? '', 'http://metrics')?.pathname !== '/metrics')
      return void response.writeHead(404).end();
    if (request.method !== 'GET') return void response.writeHead(405, { Allow: 'GET' }).end();
    const hasWorkers = Object.keys(cluster.workers ?? {}).length > 0;
    (hasWorkers ? ofWorkers.clusterMetrics() : register.metrics()).then(
      (body) => response.writeHead(200, { 'Content-Type': register.contentType }).end(body),
      () => response.writeHead(500).end(),
    );
  });
  // It says how the process does, so it lasts as long as the process.
  server.unref();
  server.listen(at, host);
  try {
    await once(server, 'listening');
  } catch (error) {
    throw new Error(`Can't serve metrics on ${host}:${at}: ${(error as Error).message}`, { cause: error });
  }
  collectDefaultMetrics();
  return (server.address() as AddressInfo).port;
}
