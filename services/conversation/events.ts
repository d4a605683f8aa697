import { setTimeout as wait } from 'node:timers/promises';
import { MessageAccepted } from '#gen/chat4all/message/v1/events.ts';
import type { Bus, ReceivedEvent } from '#lib/bus/bus.ts';
import { isTransient } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { latestActivity } from './conversation.ts';
import type { Store } from './store.ts';

export interface ActivityOptions {
  openBus: () => Promise<Bus>;
  store: Pick<Store, 'recordActivity'>;
  log: Logger;
}

const retryDelay = 1_000;

/**
 * Follows the messages that are accepted, so that the conversation with the newest one is listed first. Only that order
 * needs the bus: while it is away, the service starts and works without.
 *
 * @throws what `openBus` throws, unless it is transient
 */
export async function followActivity({ openBus, store, log }: ActivityOptions): Promise<{ stop(): Promise<void> }> {
  const stopped = new AbortController();
  let bus: Bus | undefined;

  async function follow(): Promise<boolean> {
    try {
      bus ??= await openBus();
      await bus.consume({
        topics: ['message_processing'],
        group: 'conversation',
        handle: async (events) => store.recordActivity(latestActivity(events.flatMap(activityOf))),
      });
      return true;
    } catch (error) {
      if (!isTransient(error)) throw error;
      log.warn({ err: error }, 'the order of conversations stands still until the bus is back');
      return false;
    }
  }

  async function keepTrying(): Promise<void> {
    do {
      await wait(retryDelay, undefined, { signal: stopped.signal }).catch(() => {});
    } while (!stopped.signal.aborted && !(await follow()));
  }

  let trying = Promise.resolve();
  if (!(await follow())) {
    trying = keepTrying().catch((error: unknown) => {
      log.error({ err: error }, "the order of conversations stands still: the bus can't be read");
    });
  }
  return {
    async stop() {
      stopped.abort();
      await trying;
      await bus?.stop();
    },
  };
}

function activityOf(event: ReceivedEvent) {
  if (event.type !== 'chat4all.message.v1.MessageAccepted') return [];
  const { conversationId, acceptedAt } = MessageAccepted.decode(event.value);
  return acceptedAt === undefined ? [] : [{ conversationId, at: acceptedAt }];
}
