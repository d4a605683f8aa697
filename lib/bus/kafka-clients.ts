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

interface Used<Client> {
  client: Client;
  connected: Promise<void>;
  /** What is done with it, as long as those who asked for it wait. */
  awaited: Set<Promise<unknown>>;
  /** The same until it has ended, which may be later. */
  working: Set<Promise<unknown>>;
}

/** A client that connects at its first use and is replaced after a failure: those of kafkajs don't always recover. */
export function replaceable<Client extends { connect(): Promise<void>; disconnect(): Promise<void> }>(
  make: () => Client,
) {
  let current: Used<Client> | undefined;
  let closed = false;

  /**
   * Closes the connections of a client, and does so again behind all that is still being done with it: a client of kafkajs that was
   * disconnected opens new connections for that, and leaves them open.
   */
  async function discard({ client, connected, working }: Used<Client>): Promise<void> {
    const disconnect = () => client.disconnect().catch(() => {});
    const closing = disconnect()
      .then(() => Promise.allSettled([connected, ...working]))
      .then(disconnect);
    await waitAtMost(disconnectTimeoutMs, closing);
  }

  return {
    /** @throws HubError UNAVAILABLE `BUS_UNAVAILABLE`, within `timeoutMs` */
    async use<T>(timeoutMs: number, work: (client: Client) => Promise<T>): Promise<T> {
      if (closed) throw unavailable(new Error('the bus was stopped'));
      if (current === undefined) {
        const client = make();
        current = { client, connected: client.connect(), awaited: new Set(), working: new Set() };
      }
      const used = current;
      const working = used.connected.then(() => work(used.client));
      used.working.add(working);
      const isDone = () => void used.working.delete(working);
      working.then(isDone, isDone);
      const awaited = answersWithin(timeoutMs, working);
      used.awaited.add(awaited);
      try {
        return await awaited;
      } catch (error) {
        if (current === used) current = undefined;
        // Other work on this client has its own timeout and may still succeed, so the client is closed after it.
        void Promise.allSettled(used.awaited).then(() => discard(used));
        throw error;
      } finally {
        used.awaited.delete(awaited);
      }
    },
    async close(): Promise<void> {
      closed = true;
      const last = current;
      current = undefined;
      if (last !== undefined) await discard(last);
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
