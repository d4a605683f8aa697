import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import { maxChangesInPage, onStandingChange, type Change, type Standings } from './standings.ts';

/** What has changed after a cursor. */
export interface Page {
  cursor: bigint;
  more: boolean;
  standings: { userId: string; admin: boolean; disabled: boolean }[];
  revokedKeyIds: string[];
}

/** Tells what changes of users and API keys to those who wait for it. */
export interface StandingFeed {
  /**
   * What has changed after a cursor: at once where that is 0 or something has, otherwise as soon as something does, or after 20 s.
   *
   * @throws HubError UNAVAILABLE `TOO_BUSY` if too many wait, or this process is about to stop
   */
  after(cursor: bigint, signal: AbortSignal): Promise<Page>;
  /** Answers all waiting calls, and refuses new ones. */
  stop(): Promise<void>;
}

export interface FeedLimits {
  /** How many may wait at once. */
  waiting: number;
  /** How long one waits at most. */
  maxWaitMs: number;
  /** Milliseconds between two looks at the database, unless this process has changed something. */
  pause: number;
}

const defaultLimits: FeedLimits = { waiting: 300, maxWaitMs: 20_000, pause: 500 };
/** While nobody waits. */
const untilWoken = 60_000;
/** The cursor after an empty feed. */
const beginning = 1n;

interface Waiter {
  cursor: bigint;
  answer(changes: readonly Change[], more: boolean): void;
}

/** All waiting calls share one query, so the load on the database doesn't depend on their number. */
export function openStandingFeed({
  standings,
  log,
  limits = defaultLimits,
}: {
  standings: Pick<Standings, 'changesAfter'>;
  log: Logger;
  limits?: FeedLimits;
}): StandingFeed {
  const waiters = new Set<Waiter>();
  /** The last number that was seen. */
  let head = beginning;
  let isStopped = false;

  async function look(): Promise<void> {
    const least = [...waiters].reduce((least, { cursor }) => (cursor < least ? cursor : least), head);
    const changes = await standings.changesAfter(least);
    see(changes);
    const more = changes.length === maxChangesInPage;
    for (const waiter of waiters) {
      const news = changes.filter(({ number }) => number > waiter.cursor);
      if (news.length > 0) waiter.answer(news, more);
    }
  }

  function see(changes: readonly Change[]): void {
    const last = changes.at(-1)?.number ?? head;
    if (last > head) head = last;
  }

  const looking = repeat('The look at standings', log, async () => {
    if (waiters.size === 0) return untilWoken;
    await look();
    return limits.pause;
  });
  const forget = onStandingChange(looking.wake);

  return {
    async after(cursor, signal) {
      if (isStopped) throw refusal('This process is about to stop');
      if (cursor < head || cursor === 0n) {
        const changes = await standings.changesAfter(cursor);
        see(changes);
        if (changes.length > 0 || cursor === 0n) return pageOf(cursor, changes, changes.length === maxChangesInPage);
      }
      if (waiters.size >= limits.waiting) throw refusal('Too many wait for standings');
      signal.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<Page>();
      const waiter: Waiter = { cursor, answer: (changes, more) => resolve(pageOf(cursor, changes, more)) };
      const leave = () => resolve(pageOf(cursor, [], false));
      const timer = setTimeout(leave, limits.maxWaitMs);
      signal.addEventListener('abort', leave);
      waiters.add(waiter);
      if (isStopped) leave();
      // The others are looked for already.
      if (waiters.size === 1) looking.wake();
      try {
        return await promise;
      } finally {
        clearTimeout(timer);
        signal.removeEventListener('abort', leave);
        waiters.delete(waiter);
      }
    },

    async stop() {
      isStopped = true;
      forget();
      for (const waiter of waiters) waiter.answer([], false);
      await looking.stop();
    },
  };
}

function pageOf(cursor: bigint, changes: readonly Change[], more: boolean): Page {
  return {
    cursor: changes.at(-1)?.number ?? (cursor > beginning ? cursor : beginning),
    more,
    standings: changes.flatMap(({ user }) => (user === undefined ? [] : [user])),
    revokedKeyIds: changes.flatMap(({ apiKeyId }) => (apiKeyId === undefined ? [] : [apiKeyId])),
  };
}

function refusal(message: string): HubError {
  return new HubError('UNAVAILABLE', 'TOO_BUSY', message, { retryAfter: 1 });
}
