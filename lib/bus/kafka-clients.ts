import { logLevel, type logCreator, type RequestEvent } from 'kafkajs';
import { waitAtMost } from '../deadline.ts';
import type { Logger } from '../log.ts';
import { counter } from '../metrics.ts';
import { answersWithin, unavailable } from './publishing.ts';

/** How the clients of kafkajs retry by themselves; times in milliseconds. */
export const retry = { retries: 3, initialRetryTime: 100, maxRetryTime: 1_000 };

export const disconnectTimeoutMs = 5_000;

const requests = counter('kafka_requests_total', 'Requests to Kafka, by their name in its protocol', {
  // The requests of every process that publishes and consumes.
  api: [
    'ApiVersions',
    'CreateTopics',
    'DescribeCluster',
    'Fetch',
    'GroupCoordinator',
    'Heartbeat',
    'InitProducerId',
    'JoinGroup',
    'LeaveGroup',
    'ListOffsets',
    'Metadata',
    'OffsetCommit',
    'OffsetFetch',
    'Produce',
    'SyncGroup',
  ],
});
/** Counts a request of a client of kafkajs. */
export const countRequest = ({ payload }: RequestEvent) => requests.inc({ api: payload.apiName });

/** A client that connects at its first use and is replaced after a failure: those of kafkajs don't always recover. */
export function replaceable<Client extends { connect(): Promise<void>; disconnect(): Promise<void> }>(
  make: () => Client,
) {
  let current: { client: Client; connected: Promise<void>; running: Set<Promise<unknown>> } | undefined;
  let closed = false;

  async function discard(client: Client): Promise<void> {
    await waitAtMost(
      disconnectTimeoutMs,
      client.disconnect().catch(() => {}),
    );
  }

  return {
    /** @throws HubError UNAVAILABLE `BUS_UNAVAILABLE`, within `timeoutMs` */
    async use<T>(timeoutMs: number, work: (client: Client) => Promise<T>): Promise<T> {
      if (closed) throw unavailable(new Error('the bus was stopped'));
      if (current === undefined) {
        const client = make();
        current = { client, connected: client.connect(), running: new Set() };
      }
      const used = current;
      const running = answersWithin(
        timeoutMs,
        used.connected.then(() => work(used.client)),
      );
      used.running.add(running);
      try {
        return await running;
      } catch (error) {
        if (current === used) current = undefined;
        // Other work on this client has its own timeout and may still succeed, so the client is closed after it.
        void Promise.allSettled(used.running).then(() => discard(used.client));
        throw error;
      } finally {
        used.running.delete(running);
      }
    },
    async close(): Promise<void> {
      closed = true;
      const last = current;
      current = undefined;
      if (last !== undefined) await discard(last.client);
    },
  };
}

/**
 * Writes the log of kafkajs to ours, at level debug: it reports normal events (a rebalance, the restart of a broker) as errors and
 * warnings, and failures of calls are reported by their callers.
 */
export function logTo(log: Logger): logCreator {
  return () =>
    ({ namespace, level, log: { message, broker, groupId, error } }) => {
      const line = { kafkajs: namespace, broker, groupId, error: error as unknown };
      if (level === logLevel.ERROR) log.debug(line, message);
      else log.trace(line, message);
    };
}
