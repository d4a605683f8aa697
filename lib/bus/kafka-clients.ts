import { logLevel, type logCreator, type RequestEvent } from 'kafkajs';
import { waitAtMost } from '../deadline.ts';
import type { Logger } from '../log.ts';
import { counter } from '../metrics.ts';
import { answersWithin, unavailable } from './publishing.ts';

/** How the clients of kafkajs retry by themselves; times in milliseconds. */
export const retry = { retries: 3, initialRetryTime: 100, maxRetryTime: 1_000 };

/** Milliseconds that a client may take to disconnect. */
export const disconnectLimit = 5_000;

const requests = counter('kafka_requests_total', 'Requests to Kafka, by their name in its protocol', {
  // Those that every process makes that publishes and consumes.
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

/** A client that connects when it is first used and is replaced after a failure: kafkajs's own don't always recover. */
export function replaceable<Client extends { connect(): Promise<void>; disconnect(): Promise<void> }>(
  make: () => Client,
) {
  let current: { client: Client; connected: Promise<void>; running: Set<Promise<unknown>> } | undefined;
  let closed = false;

  async function discard(client: Client): Promise<void> {
    await waitAtMost(
      disconnectLimit,
      client.disconnect().catch(() => {}),
    );
  }

  return {
    /** @throws HubError UNAVAILABLE `BUS_UNAVAILABLE`, within `limit` milliseconds */
    async use<T>(limit: number, work: (client: Client) => Promise<T>): Promise<T> {
      if (closed) throw unavailable(new Error('the bus was stopped'));
      if (current === undefined) {
        const client = make();
        current = { client, connected: client.connect(), running: new Set() };
      }
      const used = current;
      const running = answersWithin(
        limit,
        used.connected.then(() => work(used.client)),
      );
      used.running.add(running);
      try {
        return await running;
      } catch (error) {
        if (current === used) current = undefined;
        // What others still do with it has its own limit, and may well succeed.
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
 * kafkajs's log in ours. It reports as errors and warnings what is part of a normal life (a rebalance, a broker that
 * restarts), and what fails for good is reported by the caller: so all of it is for those who look closer.
 */
export function logTo(log: Logger): logCreator {
  return () =>
    ({ namespace, level, log: { message, broker, groupId, error } }) => {
      const line = { kafkajs: namespace, broker, groupId, error: error as unknown };
      if (level === logLevel.ERROR) log.debug(line, message);
      else log.trace(line, message);
    };
}
