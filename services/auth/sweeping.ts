import { hubDate } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { sweep, type Loop } from '#lib/loop.ts';
import { failuresCountFrom, type FailureLimit } from './auth.ts';
import type { Standings } from './standings/standings.ts';
import type { Store } from './store.ts';

export interface SweepingOptions {
  store: Store;
  standings: Standings;
  log: Logger;
  failureLimit: FailureLimit;
  /** Milliseconds that the tokens live that are issued now. */
  tokenLifetimes: readonly number[];
  /** Milliseconds that things are kept for: refresh tokens after they expired, registrations, requests for mails, audit events. */
  kept: { refreshTokens: number; registrations: number; resetRequests: number; auditEvents: number };
}

const sizes = { batchSize: 1_000, everyMs: 60_000, pauseMs: 100 };
const day = 86_400_000;
/** Milliseconds that API keys are shown for that were revoked or have expired. */
const apiKeysShown = 90 * day;

/** Deletes what has expired, a batch of each kind at a time. */
export function startSweeping(options: SweepingOptions): Loop {
  const { store, standings, log, failureLimit, tokenLifetimes, kept } = options;
  return sweep('sweeping away what has expired', log, sizes, async (batchSize) => {
    const now = hubDate();
    const before = (milliseconds: number) => new Date(now.getTime() - milliseconds);
    await standings.noteLifetimes(tokenLifetimes, now);
    const swept = [
      await standings.sweep(now, batchSize),
      await store.sweepSessions(now, batchSize),
      await store.sweepFailures(failuresCountFrom(now, failureLimit), batchSize),
      await store.sweepRefreshTokens(before(kept.refreshTokens), batchSize),
      await store.sweepRegistrations(before(kept.registrations), batchSize),
      await store.sweepResetRequests(before(kept.resetRequests), batchSize),
      await store.sweepResetTokens(now, batchSize),
      await store.sweepApiKeys(before(apiKeysShown), batchSize),
      await store.sweepAuditEvents(before(kept.auditEvents), batchSize),
    ];
    return Math.max(...swept);
  });
}
