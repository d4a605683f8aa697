import { HubError } from '#lib/errors.ts';
import { Shares } from '#lib/shares.ts';

/** Lets so many work at once and so many more wait, however many calls each client makes. */
export interface Turns {
  /**
   * Runs `work` when the turn of its client has come.
   *
   * @param client whom it is for: those that have the same share a turn in each round
   * @throws HubError UNAVAILABLE `TOO_BUSY` if the client has its share of the places, or none is left; CANCELLED if `signal` ends
   *   the wait
   */
  take<T>(client: string, signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

/** @param limits how many may work at once, and how many may wait beside them */
export function openTurns({ atOnce, waiting }: { atOnce: number; waiting: number }): Turns {
  const places = new Shares(atOnce + waiting);
  const round = new Round();
  let running = 0;

  async function enter(client: string, signal: AbortSignal): Promise<void> {
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
    const next = round.next();
    if (next === undefined) running -= 1;
    else next();
  }

  return {
    async take(client, signal, work) {
      if (signal.aborted) throw goneAway();
      const giveBack = places.take(client);
      if (giveBack === undefined) throw tooBusy();
      try {
        await enter(client, signal);
        try {
          return await work();
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
 * Who waits, client by client: each round has one of every client, in the order in which they came. So who comes waits for one of
 * each other client at the most, and not for all that another one has queued. This is round-robin fair queueing (J. Nagle, RFC 970,
 * "On Packet Switches With Infinite Storage"); since one password takes as long as another to hash, it needs no weights.
 */
class Round {
  /** The next client comes first. None is here that has nobody waiting. */
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
      // What else the client has waits for the next round.
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
