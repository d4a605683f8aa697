/**
 * The hub's time. A time that one process writes may be compared on another machine, whose clock differs. So all times that leave a process
 * follow one clock, the database's, however wrong a process's own is (docs/decisions/0037). `lib/database-start.ts` follows that clock; a
 * process without a database uses its own.
 *
 * Durations, and other times that never leave a process, are measured by the process's own clock.
 */

let aheadMs = 0;

/** The hub's time now, in milliseconds since the epoch. */
export function hubTime(): number {
  return Date.now() + aheadMs;
}

/** The hub's time now. */
export function hubDate(): Date {
  return new Date(hubTime());
}

/** Converts a moment of the hub's time to this process's own clock, for deadlines of calls. In milliseconds since the epoch. */
export function ownTimeOf(at: Date): number {
  return at.getTime() - aheadMs;
}

/**
 * Corrects the hub's time by one reading of the database's clock, which was taken at some moment between the request and the answer. The
 * offset is only changed if it contradicts that, and then no further than necessary: so a slow answer does no harm, and nothing is
 * corrected while the clocks agree.
 *
 * @param shown the reading; like the other two in milliseconds since the epoch
 * @param asked when it was asked for, by this process's own clock
 * @param answered when the answer came, by this process's own clock
 * @returns by how many milliseconds this process's own clock is ahead of the database's; negative if it is behind
 */
export function correctBy(shown: number, asked: number, answered: number): number {
  aheadMs = Math.min(Math.max(aheadMs, shown - answered), shown - asked);
  return -aheadMs;
}
