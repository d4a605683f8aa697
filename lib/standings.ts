import { within } from './deadline.ts';
import type { Logger } from './log.ts';
import { repeat } from './loop.ts';

/** What a user may do at present, whatever a token says that was issued before. */
export interface Standing {
  admin: boolean;
  /** Nothing of the user's is accepted. */
  disabled: boolean;
}

/** What has changed of users and API keys after a cursor. */
export interface Changes {
  /** To ask with next. */
  cursor: bigint;
  /** Whether there are more after these already. */
  more: boolean;
  standings: readonly ({ userId: string } & Standing)[];
  /** UUIDs of API keys that are not valid any more. */
  revokedKeyIds: readonly string[];
}

/**
 * The standings of all users whose role or status has changed since the oldest token was issued that is still valid. While they can't be
 * asked for, the last known ones count.
 */
export interface Standings {
  /** Undefined if what a token says is right. */
  of(userId: string): Standing | undefined;
  /** Set while the process has just started: settles once it knows the standings, or after a second. Doesn't fail. */
  readonly coming: Promise<void> | undefined;
  stop(): Promise<void>;
}

export interface StandingsOptions {
  /**
   * Asks for changes. With cursor 0 it answers at once, with all that a valid token may not know of; with another one it waits for
   * something to tell, for some time.
   */
  changesAfter: (cursor: bigint, signal: AbortSignal) => Promise<Changes>;
  onRevoked: (keyIds: readonly string[]) => void;
  log: Logger;
  /** Milliseconds after which all of them are read again: what no token needs any more is forgotten then. */
  readAgain?: number;
}

const defaultReadAgainMs = 600_000;
/** How long the first calls of a process wait for the first answer. */
const maxFirstWaitMs = 1_000;
/** An answer without changes should take longer than this. After one that came sooner there is a pause. */
const shortWaitMs = 1_000;
const pauseAfterShortWaitMs = 250;

/** Keeps asking for what has changed. */
export function followStandings({
  changesAfter,
  onRevoked,
  log,
  readAgain = defaultReadAgainMs,
}: StandingsOptions): Standings {
  let known = new Map<string, Standing>();
  /** Takes the place of `known` once it is complete. */
  let anew: Map<string, Standing> | undefined;
  let cursor = 0n;
  let readAgainAt = 0;
  const stopping = new AbortController();
  const first = Promise.withResolvers<void>();
  let coming: Promise<void> | undefined = within(maxFirstWaitMs, first.promise, () => new Error('too late'))
    .catch(() => {})
    .finally(() => (coming = undefined));

  const watching = repeat('The watch over standings', log, async () => {
    if (anew === undefined && Date.now() >= readAgainAt) {
      anew = new Map();
      cursor = 0n;
    }
    const asked = Date.now();
    let changes: Changes;
    try {
      changes = await changesAfter(cursor, stopping.signal);
    } catch (error) {
      if (stopping.signal.aborted) return 0;
      // The next request begins anew, and so is answered at once and not only after the next change: that shows that it works again.
      readAgainAt = 0;
      throw error;
    }
    for (const { userId, admin, disabled } of changes.standings) {
      const standing = { admin, disabled };
      known.set(userId, standing);
      anew?.set(userId, standing);
    }
    onRevoked(changes.revokedKeyIds);
    const isNews = changes.cursor !== cursor;
    cursor = changes.cursor;
    if (changes.more) return 0;
    if (anew !== undefined) {
      known = anew;
      anew = undefined;
      // Spread, so that not all processes ask at the same moment.
      readAgainAt = Date.now() + readAgain * (0.75 + Math.random() / 2);
      first.resolve();
    }
    return isNews || Date.now() - asked >= shortWaitMs ? 0 : pauseAfterShortWaitMs;
  });

  return {
    of: (userId) => known.get(userId),
    get coming() {
      return coming;
    },
    stop() {
      stopping.abort();
      first.resolve();
      return watching.stop();
    },
  };
}
