import bcrypt from 'bcrypt';
import type { Hashing } from './hashing.ts';

/** Passwords as bcrypt keeps them. */
export interface Passwords {
  hash(password: string): Promise<string>;
  /**
   * Whether a hash is that of the password; of no hash (nobody has that name) nothing is. Where it isn't, the answer takes the same
   * time for everybody: that of the highest cost of which there is a hash, whichever the one has that is compared with.
   */
  matches(password: string, hash: string | undefined): Promise<boolean>;
  /** Whether a hash was made with another cost than hashes are made with now. */
  isOutdated(hash: string): boolean;
}

export interface PasswordOptions {
  /** log2 of the number of rounds; each step doubles the time. */
  cost: number;
  /** The highest cost of the hashes that there are: it may have been higher once. */
  highest?: number | undefined;
  hashing: Pick<Hashing, 'hash' | 'compare'>;
}

export function openPasswords({ cost, highest = cost, hashing }: PasswordOptions): Passwords {
  const salt = bcrypt.genSaltSync(cost).slice(-saltLength);
  /** A hash with a made-up sum: no password has it, and comparing with it does all the work. */
  const nobody = (rounds: number) => `$2b$${String(rounds).padStart(2, '0')}$${salt}${'.'.repeat(sumLength)}`;
  let longest = Math.max(cost, highest);

  return {
    hash: (password) => hashing.hash(password, cost),
    async matches(password, hash) {
      const own = hash === undefined ? undefined : costOf(hash);
      if (hash === undefined || own === undefined) {
        await hashing.compare(password, nobody(longest));
        return false;
      }
      longest = Math.max(longest, own);
      if (await hashing.compare(password, hash)) return true;
      // As much work again, then twice as much, and so on: together with the first that of one with the highest cost.
      for (let more = own; more < longest; more += 1) await hashing.compare(password, nobody(more));
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
