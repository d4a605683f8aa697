import type { Socket } from 'node:net';
import { ConnectionError, errorCodes } from './frames.ts';

/**
 * Answers that a server asks for (to PING and SETTINGS) that may wait for it to take them: as many as it can ask for in one read of
 * 64 KiB. Of one that asks on, but takes nothing, there would be ever more of them.
 */
const mostAnswers = 4_000;

/** What is on its way to a server. All that is written in one turn of the event loop leaves together. */
export class Outbox {
  readonly #socket: Socket;
  readonly #onFlush: () => void;
  #written: Buffer[] = [];
  #answers = 0;

  /** @param onFlush is called just before what was written is handed to the socket */
  constructor(socket: Socket, onFlush: () => void) {
    this.#socket = socket;
    this.#onFlush = onFlush;
  }

  write(bytes: Buffer): void {
    if (this.#written.push(bytes) === 1) setImmediate(() => this.flush());
  }

  /** Writes what the server asked for. @throws ConnectionError ENHANCE_YOUR_CALM if it doesn't take what it asks for */
  answer(bytes: Buffer): void {
    if (this.#written.length === 0 && this.#socket.writableLength === 0) this.#answers = 0;
    this.#answers += 1;
    if (this.#answers > mostAnswers) {
      throw new ConnectionError(errorCodes.enhanceYourCalm, 'The server asks for answers that it does not take');
    }
    this.write(bytes);
  }

  flush(): void {
    const written = this.#written;
    this.#written = [];
    if (written.length === 0 || this.#socket.destroyed) return;
    this.#onFlush();
    this.#socket.write(written.length === 1 ? (written[0] as Buffer) : Buffer.concat(written));
  }
}
