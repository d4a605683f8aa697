import { HubError } from '#lib/errors.ts';
import type { Claim, Ledger, Reservation } from './ledger.ts';
import { tokensReserved, toolUnavailable } from '../tools.ts';

/** How often to look whether calls have ended in other processes. */
const lookEveryMs = 200;

/**
 * Reserves tokens for a call; waits for calls of the same user that may use up what is left.
 *
 * @param maxWaitMs how long it waits
 * @param claim asked before each attempt
 * @throws HubError if the call can't begin
 */
export async function reserve(
  ledger: Pick<Ledger, 'claim' | 'nextEnd'>,
  { maxWaitMs, signal }: { maxWaitMs: number; signal: AbortSignal },
  claim: () => Claim,
): Promise<Reservation> {
  const giveUp = performance.now() + maxWaitMs;
  for (;;) {
    const wanted = claim();
    const outcome = await ledger.claim(wanted);
    if (outcome instanceof HubError) throw outcome;
    if (outcome !== 'undecided') return outcome;
    if (performance.now() >= giveUp) throw tokensReserved();
    if (signal.aborted) throw toolUnavailable('The service is stopping');
    await ledger.nextEnd(wanted.userId, lookEveryMs);
  }
}
