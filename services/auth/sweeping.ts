import { hubDate } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, type Loop } from '#lib/loop.ts';
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

const sweep = { every: 60_000, batch: 1_000, pause: 100 };
const day = 86_400_000;
/** Milliseconds that API keys are shown for that were revoked or have expired. */
const apiKeysShown = 90 * day;

/** Deletes what has expired, a batch of each kind at a time. */
export function startSweeping(options: SweepingOptions): Loop {
  const { store, standings, log, failureLimit, tokenLifetimes, kept } = options;
  return repeat('sweeping away what has expired', log, async () => {
    const now = hubDate();
    const before = (milliseconds: number) => new Date(now.getTime() - milliseconds);
    await standings.noteLifetimes(tokenLifetimes, now);
    const swept = [
      await standings.sweep(now, sweep.batch),
      await store.sweepSessions(now, sweep.batch),
      await store.sweepFailures(failuresCountFrom(now, failureLimit), sweep.batch),
      await store.sweepRefreshTokens(before(kept.refreshTokens), sweep.batch),
      await store.sweepRegistrations(before(kept.registrations), sweep.batch),
      await store.sweepResetRequests(before(kept.resetRequests), sweep.batch),
      await store.sweepResetTokens(now, sweep.batch),
      await store.sweepApiKeys(before(apiKeysShown), sweep.batch),
      await store.sweepAuditEvents(before(kept.auditEvents), sweep.batch),
    ];
    return Math.max(...swept) === sweep.batch ? sweep.pause : sweep.every;
  });
}
