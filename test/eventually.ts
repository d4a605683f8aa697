import { setTimeout as sleep } from 'node:timers/promises';

const pause = 50;

/**
 * Asks again and again until what is found is as it should be, and returns that.
 *
 * @param limit milliseconds
 * @throws Error with what was found last if it isn't so within the limit
 */
export async function eventually<Found>(
  what: string,
  ask: () => Promise<Found> | Found,
  isRight: (found: Found) => boolean,
  limit = 20_000,
): Promise<Found> {
  const giveUp = Date.now() + limit;
  for (;;) {
    const found = await ask();
    if (isRight(found)) return found;
    if (Date.now() > giveUp) {
      throw new Error(`${what}: not so after ${limit} ms, but ${JSON.stringify(found)?.slice(0, 2_000)}`);
    }
    await sleep(pause);
  }
}
