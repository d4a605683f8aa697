/**
 * Calls `begin`, and then moves the clock of this process forward by `ms` until what it began has ended: as a process sees it that was too
 * busy to look at its timers. No other test may run meanwhile.
 */
export async function behindTime<T>(ms: number, begin: () => Promise<T>): Promise<T> {
  const { now } = Date;
  try {
    const work = begin();
    Date.now = () => now() + ms;
    return await work;
  } finally {
    Date.now = now;
  }
}
