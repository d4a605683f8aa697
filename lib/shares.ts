/**
 * A limited number of places, shared fairly by clients of which nobody knows how many there will be.
 *
 * A client gets one more place while it holds fewer than are still free. So one client alone gets half of all places, two get a third
 * each, n get 1/(n + 1) each, and a client that holds none finds a place until there are about as many clients as places, however
 * greedy the others are. This is the dynamic threshold, with a factor of 1, by which switches share their buffers (Choudhury and
 * Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking 6(2), 1998).
 */
export class Shares {
  readonly #places: number;
  #used = 0;
  /** How many places each client holds. */
  readonly #placesOf = new Map<string, number>();

  /** @param places at least 2: with a single place no client could get a share */
  constructor(places: number) {
    this.#places = places;
  }

  /** How many places are in use. */
  get used(): number {
    return this.#used;
  }

  get isFull(): boolean {
    return this.#used >= this.#places;
  }

  /**
   * Takes a place for a client: a user, or a network of addresses (`clientOf`) where it isn't known who calls.
   *
   * @returns what gives the place back, once; undefined if the client has its share already, or no place is free
   */
  take(client: string): (() => void) | undefined {
    const held = this.#placesOf.get(client) ?? 0;
    if (held >= this.#places - this.#used) return undefined;
    this.#used += 1;
    this.#placesOf.set(client, held + 1);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#used -= 1;
      const left = (this.#placesOf.get(client) as number) - 1;
      if (left === 0) this.#placesOf.delete(client);
      else this.#placesOf.set(client, left);
    };
  }
}
