import type { ChatResponse } from '#gen/chat4all/assistant/v1/assistant.ts';

/** A turn of this process, for its followers here. */
export class LiveTurn {
  readonly messageId: bigint;
  readonly conversationId: bigint;
  /** The number of the first event here: before it, others are kept if the turn has waited. */
  readonly first: number;
  /** Aborted to end the work; with why. */
  readonly control = new AbortController();
  readonly #events: ChatResponse[] = [];
  readonly #over = Promise.withResolvers<void>();
  #changed = Promise.withResolvers<void>();
  #isOver = false;

  constructor(turn: { messageId: bigint; conversationId: bigint; nextEvent: number }) {
    this.messageId = turn.messageId;
    this.conversationId = turn.conversationId;
    this.first = turn.nextEvent;
  }

  /** The number of the next event. */
  get next(): number {
    return this.first + this.#events.length;
  }

  /** Resolved when this process has done its work on it: it has ended, or waits for the user. */
  get over(): Promise<void> {
    return this.#over.promise;
  }

  /** Shows an event, which has to have the next number, to all who follow. */
  show(event: ChatResponse): void {
    this.#events.push(event);
    this.#wake();
  }

  /** Ends the stream of events. */
  close(): void {
    this.#isOver = true;
    this.#over.resolve();
    this.#wake();
  }

  /** The events behind a number, until there are no more here, or nobody wants them. */
  async *follow(after: number, signal: AbortSignal): AsyncGenerator<ChatResponse> {
    const gone = Promise.withResolvers<void>();
    const leave = () => gone.resolve();
    signal.addEventListener('abort', leave, { once: true });
    try {
      for (let at = Math.max(0, after + 1 - this.first); !signal.aborted;) {
        const event = this.#events[at];
        if (event !== undefined) {
          at += 1;
          yield event;
        } else if (this.#isOver) {
          return;
        } else {
          await Promise.race([this.#changed.promise, gone.promise]);
        }
      }
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}
