import type { ServerResponse } from 'node:http';
import { RateFloor, type RateFloorOptions } from '#lib/rate-floor.ts';

/** Bytes of an answer that wait for a client, from which on no more are asked for. */
const most = 128 * 1024;

/**
 * The client's side of a body that it is sent: it says when the client has enough, and ends the connection if it takes too little.
 * Time in which there is nothing for the client doesn't count.
 */
export class Taking {
  readonly #response: ServerResponse;
  readonly #floor: RateFloor;
  readonly #onReady: () => void;
  #waiting = 0;
  #isFull = false;

  /** @param onReady the client takes more, after it has had enough */
  constructor(response: ServerResponse, least: RateFloorOptions, onReady: () => void) {
    this.#response = response;
    this.#onReady = onReady;
    this.#floor = new RateFloor(least, () => response.destroy());
    this.#floor.pause();
    response.once('close', () => this.#floor.stop());
  }

  /**
   * @param taken called when the system has the bytes, or the connection is gone
   * @returns false if no more are to come until `onReady`
   */
  write(bytes: Uint8Array, taken: () => void): boolean {
    const { length } = bytes;
    this.#waiting += length;
    this.#response.write(bytes, () => {
      taken();
      this.#floor.count(length);
      this.#waiting -= length;
      if (this.#isFull && this.#waiting < most) this.#goOn();
    });
    if (this.#waiting < most) return true;
    this.#isFull = true;
    this.#floor.resume();
    return false;
  }

  /** All of it was written. */
  end(): void {
    this.#floor.resume();
    this.#response.end();
  }

  #goOn(): void {
    if (this.#response.writableEnded) return;
    this.#isFull = false;
    this.#floor.pause();
    this.#onReady();
  }
}
