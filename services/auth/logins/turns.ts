import { BoundedMap } from '#lib/bounded-map.ts';
import { HubError } from '#lib/errors.ts';
import { Shares } from '#lib/shares.ts';

/** Limits how many logins are checked and how many wait, with a fair share for each client. */
export interface Turns {
  /**
   * Runs `work` once it is its client's turn.
   *
   * @param client the address: calls with the same one share a turn in each round
   * @param user the user that the caller claims to be
   * @throws HubError UNAVAILABLE `TOO_BUSY` if the client has its share of the places, or none is left; CANCELLED if `signal` ends
   *   the wait
   */
  take<T>(client: string, user: string, signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

/** About 100 bytes each. The oldest is forgotten first: its client then counts as a stranger. */
const rememberedSuccesses = 10_000;

/**
 * A client whose last login as the same user succeeded is known; all others are strangers. Strangers have their own queue and places, and get
 * at most every other turn while a known client waits. So however many addresses guess passwords, a known client waits for few of them. This
 * is the idea of device cookies (OWASP, "Slow Down Online Guessing Attacks with Device Cookies") without the cookie.
 *
 * @param limits how many may work at once, and how many others may wait beside them
 */
export function openTurns({ atOnce, waiting }: { atOnce: number; waiting: number }): Turns {
  const lane = () => ({ places: new Shares(atOnce + waiting), round: new Round() });
  const known = lane();
  const strangers = lane();
  const successes = new BoundedMap<string, true>(rememberedSuccesses);
  let isForKnown = true;
  let running = 0;

  async function enter(round: Round, client: string, signal: AbortSignal): Promise<void> {
    if (running < atOnce) {
      running += 1;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const go = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        round.remove(client, go);
        reject(goneAway());
      };
      round.add(client, go);
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  function exit(): void {
    for (const lane of isForKnown ? [known, strangers] : [strangers, known]) {
      const next = lane.round.next();
      if (next === undefined) continue;
      isForKnown = lane === strangers;
      next();
      return;
    }
    running -= 1;
  }

  return {
    async take(client, user, signal, work) {
      if (signal.aborted) throw goneAway();
      const success = `${client} ${user}`;
      const { places, round } = successes.has(success) ? known : strangers;
      const giveBack = places.take(client);
      if (giveBack === undefined) throw tooBusy();
      try {
        await enter(round, client, signal);
        try {
          const done = await work();
          successes.set(success, true);
          return done;
        } catch (error) {
          successes.delete(success);
          throw error;
        } finally {
          exit();
        }
      } finally {
        giveBack();
      }
    },
  };
}

/**
 * A queue for each client, served round-robin: a call waits for at most one call of each other client, however many another client has
 * queued. This is fair queueing (J. Nagle, RFC 970, "On Packet Switches With Infinite Storage"); since all passwords take equally long to hash,
 * it needs no weights.
 */
class Round {
  /** The next client is first. Clients with an empty queue are removed. */
  readonly #clients = new Map<string, Set<() => void>>();

  add(client: string, go: () => void): void {
    const queue = this.#clients.get(client);
    if (queue === undefined) this.#clients.set(client, new Set([go]));
    else queue.add(go);
  }

  remove(client: string, go: () => void): void {
    const queue = this.#clients.get(client);
    if (queue?.delete(go) === true && queue.size === 0) this.#clients.delete(client);
  }

  /** Takes out whose turn it is; undefined if nobody waits. */
  next(): (() => void) | undefined {
    for (const [client, queue] of this.#clients) {
      const [go] = queue as Set<() => void> & Iterable<() => void, undefined>;
      // The rest of its queue goes to the end.
      this.#clients.delete(client);
      if (go !== undefined) queue.delete(go);
      if (queue.size > 0) this.#clients.set(client, queue);
      return go;
    }
    return undefined;
  }
}

function tooBusy(): HubError {
  return new HubError('UNAVAILABLE', 'TOO_BUSY', 'Too many logins at once: try again in a moment', { retryAfter: 2 });
}

function goneAway(): HubError {
  return new HubError('CANCELLED', 'CANCELLED', 'The caller has stopped waiting');
}
