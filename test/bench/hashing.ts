import { availableParallelism } from 'node:os';
import bcrypt from 'bcrypt';
import { answer } from './remote.ts';

/** What the machine can hash when it does nothing else. A process of its own. */

export interface HashingArgument {
  seconds: number;
  /** log2 of the rounds. */
  cost: number;
}

/** @returns passwords compared with hashes in a second, as many at once as there are cores */
async function measure({ seconds, cost }: HashingArgument): Promise<number> {
  const hash = await bcrypt.hash('password123', cost);
  const began = performance.now();
  let compared = 0;
  const compare = async () => {
    while (performance.now() - began < seconds * 1_000) {
      await bcrypt.compare('password123', hash);
      compared += 1;
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, compare));
  return compared / ((performance.now() - began) / 1_000);
}

export const commands = { measure };

answer(commands, async () => {});
