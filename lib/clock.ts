/**
 * The hub's time: what is written with a time here may be compared with it there, on a machine whose clock is another. So all of it goes
 * by one clock, the database's, however wrong a process's own is (docs/decisions/0037). `lib/database-start.ts` follows that clock; a
 * process without a database has only its own.
 *
 * Times that never leave a process, such as how long something takes, are no business of this.
 */

/** Milliseconds by which the hub's time is ahead of this process's own clock. */
let ahead = 0;

/** The hub's time now, in milliseconds since the epoch. */
export function hubTime(): number {
  return Date.now() + ahead;
}

/** The hub's time now. */
export function hubDate(): Date {
  return new Date(hubTime());
}

/** When it is `at` by the hub's time, by this process's own clock: for deadlines of calls. Milliseconds since the epoch. */
export function ownTimeOf(at: Date): number {
  return at.getTime() - ahead;
}

/**
 * Corrects the hub's time by a look at the clock that it goes by. Where that stood at the moment of the look is known only as far as
 * when it was asked for and when the answer was there: what is known already stays as it is unless it lies outside of that, and then it
 * is moved no further than it has to be. So a slow answer does no harm, and of clocks that agree nothing is corrected.
 *
 * @param shown what it showed; this and the others in milliseconds since the epoch, the others by this process's own clock
 * @returns milliseconds by which this process's own clock is ahead of it; negative if it is behind
 */
export function correctBy(shown: number, asked: number, answered: number): number {
  ahead = Math.min(Math.max(ahead, shown - answered), shown - asked);
  return -ahead;
}
