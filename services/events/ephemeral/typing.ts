import type { StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import { BoundedMap } from '#lib/bounded-map.ts';
import { hubDate } from '#lib/clock.ts';
import type { Processes } from '../processes.ts';
import type { Tail } from '../streams/tail.ts';

/** Clients repeat it every 4 s; what comes sooner than this is left out. */
const pauseMs = 2_000;
const shownForMs = 8_000;
const maxRemembered = 10_000;

export interface Typing {
  /** Tells the other members of a conversation that somebody is writing. */
  tell(conversationId: string, userId: string): Promise<void>;
  /** Somebody is writing, as this process or another one was told. */
  heard(conversationId: string, userId: string): void;
}

/** Who is typing: told at once, to those who listen at that moment, and kept nowhere. */
export function openTyping({ processes, tail }: { processes: Pick<Processes, 'typing'>; tail: Tail }): Typing {
  const last = new BoundedMap<string, number>(maxRemembered);
  return {
    async tell(conversationId, userId) {
      const key = `${conversationId} ${userId}`;
      const now = performance.now();
      if (now - (last.get(key) ?? Number.NEGATIVE_INFINITY) < pauseMs) return;
      last.set(key, now);
      await processes.typing(conversationId, userId);
    },

    heard(conversationId, userId) {
      const message: StreamEventsResponse = {
        cursor: '',
        eventId: '',
        at: hubDate(),
        event: { $case: 'typing', value: { conversationId, userId, forMs: shownForMs } },
      };
      for (const follower of tail.followersIn(conversationId)) {
        if (follower.userId !== userId)
          follower.pushEphemeral(conversationId, `typing ${conversationId} ${userId}`, message);
      }
    },
  };
}
