import { within } from './deadline.ts';
import type { Logger } from './log.ts';
import { repeat } from './loop.ts';

/** A user's rights now, which override those in a token that was issued earlier. */
export interface Standing {
  admin: boolean;
  /** All credentials of the user are refused. */
  disabled: boolean;
}

/** Changes of users and API keys since a cursor. */
export interface Changes {
  /** The cursor for the next request. */
  cursor: bigint;
  /** Whether more changes are available already. */
  more: boolean;
  standings: readonly ({ userId: string } & Standing)[];
  /** UUIDs of API keys that are not valid any more. */
  revokedKeyIds: readonly string[];
}

/**
 * The standings of all users whose role or status has changed since the oldest valid token was issued. While the auth service is
 * unavailable, the last known ones count.
 */
export interface Standings {
  /** Undefined if the user's tokens are up to date. */
  of(userId: string): Standing | undefined;
  /** Set just after the process has started: fulfilled once the standings are known, or after a second. Never rejects. */
  readonly coming: Promise<void> | undefined;
  stop(): Promise<void>;
}

export interface StandingsOptions {
  /**
   * Long poll for changes. Cursor 0 is answered at once with everything that valid tokens may not know; another one waits a while for
   * changes.
   */
  changesAfter: (cursor: bigint, signal: AbortSignal) => Promise<Changes>;
  onRevoked: (keyIds: readonly string[]) => void;
  /** Called with users who are disabled: soon after each was, and again whenever all standings are read. */
  onDisabled: (userIds: readonly string[]) => void;
  log: Logger;
  /** How often all standings are read again, in milliseconds: those that no valid token needs any more are dropped then. */
  readAgain?: number;
}

const defaultReadAgainMs = 600_000;
/** How long the first calls of a process wait for the first answer. */
const maxFirstWaitMs = 1_000;
/** An answer without changes that comes sooner than this is followed by a pause. */
const shortWaitMs = 1_000;
const pauseAfterShortWaitMs = 250;

/** Follows the changes until it is stopped. */
export function followStandings({
  changesAfter,
  onRevoked,
  onDisabled,
  log,
  readAgain = defaultReadAgainMs,
}: StandingsOptions): Standings {
  let known = new Map<string, Standing>();
  /** Replaces `known` once it is complete. */
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
      // Starts from cursor 0, which is answered at once: that shows at once that the auth service is available again.
      readAgainAt = 0;
      throw error;
    }
    for (const { userId, admin, disabled } of changes.standings) {
      const standing = { admin, disabled };
      known.set(userId, standing);
      anew?.set(userId, standing);
    }
    onRevoked(changes.revokedKeyIds);
    const disabled = changes.standings.filter((standing) => standing.disabled).map(({ userId }) => userId);
    if (disabled.length > 0) onDisabled(disabled);
    const isNews = changes.cursor !== cursor;
    cursor = changes.cursor;
    if (changes.more) return 0;
    if (anew !== undefined) {
      known = anew;
      anew = undefined;
      // Jitter, so that not all processes ask at the same moment.
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
