import type { Socket } from 'node:net';
import { ConnectionError, errorCodes } from './frames.ts';

/**
 * How many acknowledgements (of PING and SETTINGS) may wait until the server reads them: as many as it can ask for in one read of
 * 64 KiB. A server that goes on asking and reads nothing would make the queue grow without end.
 */
const maxAnswers = 4_000;

/** What is to be sent to a server. All that is written in one turn of the event loop goes to the socket at once. */
export class WriteQueue {
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

  /** Writes an acknowledgement. @throws ConnectionError ENHANCE_YOUR_CALM if the server doesn't read what it asks for */
  answer(bytes: Buffer): void {
    if (this.#written.length === 0 && this.#socket.writableLength === 0) this.#answers = 0;
    this.#answers += 1;
    if (this.#answers > maxAnswers) {
      throw new ConnectionError(
        errorCodes.enhanceYourCalm,
        'The server asks for acknowledgements that it does not read',
      );
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
