import bcrypt from 'bcrypt';
import type { Hashing } from './hashing.ts';

/** Passwords as bcrypt keeps them. */
export interface Passwords {
  hash(password: string): Promise<string>;
  /**
   * Whether the password has this hash; never without a hash (there is no such user). A wrong password takes the same time for every user,
   * existing or not: that of the highest cost among all hashes.
   */
  matches(password: string, hash: string | undefined): Promise<boolean>;
  /** Whether a hash was made with another cost than hashes are made with now. */
  isOutdated(hash: string): boolean;
}

export interface PasswordOptions {
  /** log2 of the number of rounds; each step doubles the time. */
  cost: number;
  /** The highest cost among the stored hashes: the setting may have been higher once. */
  highest?: number | undefined;
  hashing: Pick<Hashing, 'hash' | 'compare'>;
}

export function openPasswords({ cost, highest = cost, hashing }: PasswordOptions): Passwords {
  const salt = bcrypt.genSaltSync(cost).slice(-saltLength);
  /** A hash that no password has: comparing with it does all the work. */
  const nobody = (rounds: number) => `$2b$${String(rounds).padStart(2, '0')}$${salt}${'.'.repeat(sumLength)}`;
  let highestCost = Math.max(cost, highest);

  return {
    hash: (password) => hashing.hash(password, cost),
    async matches(password, hash) {
      const own = hash === undefined ? undefined : costOf(hash);
      if (hash === undefined || own === undefined) {
        await hashing.compare(password, nobody(highestCost));
        return false;
      }
      highestCost = Math.max(highestCost, own);
      if (await hashing.compare(password, hash)) return true;
      // Each step does twice the work of the one before: together with the first comparison as much as one at the highest cost.
      for (let more = own; more < highestCost; more += 1) await hashing.compare(password, nobody(more));
      return false;
    },
    isOutdated: (hash) => costOf(hash) !== cost,
  };
}

/** Characters of a salt, and of the sum behind it. */
const saltLength = 22;
const sumLength = 31;

/** The cost in a hash of bcrypt; undefined if it is none. */
function costOf(hash: string): number | undefined {
  const [, cost] = /^\$2[aby]\$(\d\d)\$/.exec(hash) ?? [];
  return cost === undefined ? undefined : Number(cost);
}
