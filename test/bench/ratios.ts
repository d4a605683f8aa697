import type { Counters, Rows } from './counters.ts';
import { sumOf, sumsOf } from './metrics.ts';

/**
 * What a run made the hub do, in figures that don't depend on how fast the machine is. Each is a number for one message unless it says
 * otherwise, and takes in what the hub does by itself meanwhile and what the reader of the benchmark asks. What the hub doesn't count is missing.
 */
export interface Ratios {
  commits: number;
  walBytes: number;
  walSyncs: number;
  rowsInserted: number;
  rowsUpdated: number;
  /** Share of the updates that wrote no index. */
  hotShare: number;
  rowsDeleted: number;
  rowsRead: number;
  statements?: number;
  httpRequests?: number;
  rpcs?: number;
  kafkaRequests?: number;
  publications?: number;
  eventsPublished?: number;
  logLines: number;
  logBytes: number;
  /** Rows by schema. */
  rows: Record<string, Rows>;
  rpcsByName: Record<string, number>;
  kafkaRequestsByName: Record<string, number>;
  /** Events that a stage takes at once, on the average; by topic and group. */
  eventsARound: Record<string, number>;
  /** Events that are published at once, on the average; by topic. */
  eventsAPublication: Record<string, number>;
}

/** @param count of messages, or of whatever else the figures are to be for */
export function ratiosOf(counted: Counters, count: number): Ratios {
  const { metrics, rows } = counted;
  const each = (value: number) => value / Math.max(1, count);
  const eachOf = (values: Record<string, number>) => mapAll(values, each);
  const all = (of: keyof Rows) => Object.values(rows).reduce((sum, schema) => sum + schema[of], 0);
  const found = (name: keyof Ratios, value: number | undefined) => (value === undefined ? {} : { [name]: each(value) });
  const byStage = (name: string) => sumsOf(metrics, name, stageOf);
  return {
    commits: each(counted.commits),
    walBytes: each(counted.walBytes),
    walSyncs: each(counted.walSyncs),
    rowsInserted: each(all('inserted')),
    rowsUpdated: each(all('updated')),
    hotShare: all('updated') === 0 ? 1 : all('hotUpdated') / all('updated'),
    rowsDeleted: each(all('deleted')),
    rowsRead: each(all('read')),
    ...found('statements', sumOf(metrics, 'database_statements_total')),
    ...found('httpRequests', sumOf(metrics, 'http_requests_total')),
    ...found('rpcs', sumOf(metrics, 'rpc_handled_total')),
    ...found('kafkaRequests', sumOf(metrics, 'kafka_requests_total')),
    ...found('publications', sumOf(metrics, 'bus_publishes_total')),
    ...found('eventsPublished', sumOf(metrics, 'bus_published_total')),
    logLines: each(counted.logLines),
    logBytes: each(counted.logBytes),
    rows: mapAll(rows, (schema) => mapAll({ ...schema }, each) as unknown as Rows),
    rpcsByName: eachOf(sumsOf(metrics, 'rpc_handled_total', ({ rpc }) => rpc ?? '')),
    kafkaRequestsByName: eachOf(sumsOf(metrics, 'kafka_requests_total', ({ api }) => api ?? '')),
    eventsARound: average(byStage('bus_handled_total'), byStage('bus_rounds_total')),
    eventsAPublication: average(
      sumsOf(metrics, 'bus_published_total', ({ topic }) => topic ?? ''),
      sumsOf(metrics, 'bus_publishes_total', ({ topic }) => topic ?? ''),
    ),
  };
}

function stageOf({ topic, group }: Record<string, string>): string {
  return `${topic} → ${group}`;
}

/** The quotients of what has the same name; what has no rounds has none. */
function average(sums: Record<string, number>, counts: Record<string, number>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(counts).flatMap(([name, count]) => (name in sums && count > 0 ? [[name, sums[name]! / count]] : [])),
  );
}

function mapAll<T, U>(values: Readonly<Record<string, T>>, change: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, change(value)]));
}
