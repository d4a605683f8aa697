import { signal } from '@preact/signals';
import type { StreamEventsResponse } from '#client/events';
import type { Delivery, Message } from '#client/message';
import { client } from '../shell/session.ts';
import { noteArrived } from './outbox.ts';
import { learn } from './people.ts';

/**
 * The messages of a conversation, as far as they are loaded. Positions have no gaps: the place of each message is known before it is loaded,
 * so any part of ten thousand can be shown at once, and only what is looked at is loaded.
 */
export class Timeline {
  readonly conversation: string;
  /** The position of the newest message, 0 without one; undefined until it is known. */
  readonly newest = signal<number | undefined>(undefined);
  /** The position of the oldest message that is still there. */
  oldest = 1;
  /** Changes with everything that is shown: the messages are too many to be copied for each change. */
  readonly version = signal(0);
  /** Why something could not be loaded. */
  readonly error = signal<unknown>(undefined);
  readonly #messages = new Map<number, Message>();
  readonly #deliveries = new Map<string, ReadonlyMap<string, Delivery>>();
  /** Pages that are loaded or on their way. */
  readonly #pages = new Set<number>();
  /** Ids by position, of what was written here: the message takes the place of what has waited. */
  readonly #ownIds = new Map<number, string>();

  constructor(conversation: string) {
    this.conversation = conversation;
  }

  at(seq: number): Message | undefined {
    return this.#messages.get(seq);
  }

  /** What a position is known by, from the moment it is written on. */
  keyOf(seq: number): string | number {
    return this.#ownIds.get(seq) ?? seq;
  }

  /** The deliveries of a message that are known, by `deliveryKey`: undefined where none was told yet. */
  deliveriesOf(id: string): ReadonlyMap<string, Delivery> | undefined {
    return this.#deliveries.get(id);
  }

  /** Loads the newest messages. */
  async begin(): Promise<void> {
    await this.#try(async () => {
      const { messages, total } = await client.message.listMessages({
        conversation_id: this.conversation,
        limit: pageSize,
      });
      const newest = messages[0]?.seq ?? 0;
      this.oldest = Math.max(1, newest - total + 1);
      this.#take(messages);
      this.newest.value = Math.max(this.newest.peek() ?? 0, newest);
    });
  }

  /** Loads what is missing of a part. @param from its first position @param to its last one */
  need(from: number, to: number): void {
    for (let page = pageOf(from); page <= pageOf(to); page += 1) {
      if (!this.#pages.has(page)) void this.#try(() => this.#loadPage(page));
    }
  }

  /** Loads everything anew that is shown: some events can't be told. */
  async reset(): Promise<void> {
    this.#pages.clear();
    this.#deliveries.clear();
    await this.begin();
    this.version.value += 1;
  }

  /** Loads the deliveries of a message, unless they are known. */
  async loadDeliveries(id: string): Promise<void> {
    if (this.#deliveries.has(id)) return;
    this.#deliveries.set(id, new Map());
    try {
      const { deliveries } = await client.message.getMessage({ message_id: id });
      this.#takeDeliveries(id, deliveries);
      this.version.value += 1;
    } catch {
      this.#deliveries.delete(id);
    }
  }

  /** Brings it up to date with what has happened. */
  apply(event: StreamEventsResponse): void {
    const message = event.message_accepted?.message;
    const change = event.delivery_changed;
    if (message?.conversation_id === this.conversation) {
      this.#take([message]);
      this.newest.value = Math.max(this.newest.peek() ?? 0, message.seq);
    } else if (change?.conversation_id === this.conversation) {
      const found = this.#messages.get(change.seq);
      if (found !== undefined) this.#messages.set(change.seq, { ...found, status: change.status });
      this.#takeDeliveries(change.message_id, change.deliveries);
      this.version.value += 1;
    }
  }

  async #loadPage(page: number): Promise<void> {
    this.#pages.add(page);
    const end = (page + 1) * pageSize;
    try {
      // A page of long texts comes in several answers.
      for (let after = page * pageSize; ;) {
        const { messages } = await client.message.listMessages({
          conversation_id: this.conversation,
          order: 'asc',
          limit: pageSize,
          after_seq: after,
          before_seq: end + 1,
        });
        this.#take(messages);
        const last = messages.at(-1)?.seq;
        if (last === undefined || last >= Math.min(end, this.newest.peek() ?? 0)) return;
        after = last;
      }
    } catch (error) {
      this.#pages.delete(page);
      throw error;
    }
  }

  #take(messages: readonly Message[]): void {
    for (const message of messages) {
      const before = this.#messages.get(message.seq);
      // What was told later counts, whichever comes first.
      if (before !== undefined && before.updated_at > message.updated_at) continue;
      this.#messages.set(message.seq, message);
      learn(message.from, message.sender.username);
      if (noteArrived(message.message_id)) this.#ownIds.set(message.seq, message.message_id);
    }
    this.version.value += 1;
  }

  #takeDeliveries(id: string, deliveries: readonly Delivery[]): void {
    if (deliveries.length === 0) return;
    const all = new Map(this.#deliveries.get(id));
    for (const delivery of deliveries) all.set(deliveryKey(delivery), delivery);
    this.#deliveries.set(id, all);
  }

  async #try(work: () => Promise<void>): Promise<void> {
    try {
      await work();
      this.error.value = undefined;
    } catch (error) {
      this.error.value = error;
    }
  }
}

const pageSize = 50;

function pageOf(seq: number): number {
  return Math.floor((Math.max(seq, 1) - 1) / pageSize);
}

export function deliveryKey({ recipient, channel }: { recipient: string; channel: string }): string {
  return `${channel} ${recipient}`;
}
