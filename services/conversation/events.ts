import { MessageAccepted } from '#gen/chat4all/message/v1/events.ts';
import { eventTypes, groups, topics } from '#gen/events.ts';
import type { Bus, ReceivedEvent } from '#lib/bus/bus.ts';
import { waitAtMost } from '#lib/deadline.ts';
import { HubError, isTransient } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { retryUntilDone } from '#lib/retry.ts';
import { latestActivity } from './conversation.ts';
import type { Store } from './store.ts';

export interface ActivityOptions {
  openBus: () => Promise<Bus>;
  store: Pick<Store, 'recordActivity'>;
  log: Logger;
}

export interface Following {
  /** The bus, once it was there. @throws HubError UNAVAILABLE `BUS_UNAVAILABLE` before */
  bus(): Bus;
  stop(): Promise<void>;
}

const backoff = { firstMs: 1_000, maxMs: 1_000, jitter: 0 };
const stopLimitMs = 2_000;
/** Nobody waits for the order of conversations, and each message changes it: so many changes are written together. */
const activityRounds = { interval: 1_000, batchSize: 1_000 };

/**
 * Follows accepted messages, so that the conversation with the newest message is listed first. Only that order, and the events about changes,
 * need the bus: while it is unavailable, the service starts and works without.
 *
 * @throws what `openBus` throws, unless it is transient
 */
export async function followActivity({ openBus, store, log }: ActivityOptions): Promise<Following> {
  const stopped = new AbortController();
  let bus: Bus | undefined;
  try {
    bus = await openBus();
  } catch (error) {
    if (!isTransient(error)) throw error;
  }

  async function follow(): Promise<void> {
    bus ??= await openBus();
    await bus.consume({
      topics: [topics.messageProcessing],
      group: groups.conversation,
      ...activityRounds,
      handle: async (events) => store.recordActivity(latestActivity(events.flatMap(activityOf))),
    });
  }

  const starting = retryUntilDone(follow, {
    backoff,
    signal: stopped.signal,
    onFailure: (error) => log.warn({ err: error }, 'the order of conversations stands still until the bus is back'),
  });
  return {
    bus() {
      if (bus === undefined) throw new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'The bus has not been reached yet');
      return bus;
    },
    async stop() {
      stopped.abort();
      // To open an unavailable bus may take longer than the time that is left.
      await waitAtMost(stopLimitMs, starting);
      await bus?.stop();
    },
  };
}

function activityOf(event: ReceivedEvent) {
  if (event.type !== eventTypes.MessageAccepted) return [];
  const { conversationId, acceptedAt } = MessageAccepted.decode(event.value);
  return acceptedAt === undefined ? [] : [{ conversationId, at: acceptedAt }];
}
