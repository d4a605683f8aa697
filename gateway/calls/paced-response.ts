import type { ServerResponse } from 'node:http';
import { RateFloor, type RateFloorOptions } from '#lib/rate-floor.ts';

/** From so many bytes that wait for the client, no more are asked for. */
const maxWaitingBytes = 128 * 1024;

/**
 * A response body with backpressure, whose client has to read at least so fast, or the connection is closed. Time in which there is
 * nothing to read doesn't count.
 */
export class PacedResponse {
  readonly #response: ServerResponse;
  readonly #floor: RateFloor;
  readonly #onReady: () => void;
  #waiting = 0;
  #isFull = false;

  /** @param onReady is called when the client takes more again, after `write` returned false */
  constructor(response: ServerResponse, least: RateFloorOptions, onReady: () => void) {
    this.#response = response;
    this.#onReady = onReady;
    this.#floor = new RateFloor(least, () => response.destroy());
    this.#floor.pause();
    response.once('close', () => this.#floor.stop());
  }

  /**
   * @param taken is called when the operating system has the bytes, or the connection is gone
   * @returns false if no more are to come until `onReady`
   */
  write(bytes: Uint8Array, taken: () => void): boolean {
    const { length } = bytes;
    this.#waiting += length;
    this.#response.write(bytes, () => {
      taken();
      this.#floor.count(length);
      this.#waiting -= length;
      if (this.#isFull && this.#waiting < maxWaitingBytes) this.#goOn();
    });
    if (this.#waiting < maxWaitingBytes) return true;
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
