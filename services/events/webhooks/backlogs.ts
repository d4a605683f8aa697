import type { Entry } from '../log/log-store.ts';
import type { Backlog } from './work-store.ts';

/** The backlogs of an endpoint that a process works on, and what has changed of them since it was last recorded. */
export class Backlogs {
  readonly #byId = new Map<string, Backlog>();
  readonly #byLane = new Map<string, Backlog>();
  /** Events of a backlog that have been read, the next one first. */
  readonly #pages = new Map<string, Entry[]>();
  #changed = new Set<string>();
  #removed: string[] = [];

  [Symbol.iterator](): IterableIterator<Backlog> {
    return this.#byId.values();
  }

  /** How many of them are of kind `conversation`. */
  get laneCount(): number {
    return this.#byLane.size;
  }

  ofLane(lane: string): Backlog | undefined {
    return this.#byLane.get(lane);
  }

  /** Adds one that is recorded already. */
  add(backlog: Backlog): void {
    this.#byId.set(backlog.id, backlog);
    if (backlog.kind === 'conversation') this.#byLane.set(backlog.conversationId!, backlog);
  }

  /** Has one recorded, unless it was removed. */
  changed({ id }: Backlog): void {
    if (this.#byId.has(id)) this.#changed.add(id);
  }

  remove({ id, kind, conversationId }: Backlog): void {
    this.#byId.delete(id);
    this.#pages.delete(id);
    this.#changed.delete(id);
    this.#removed.push(id);
    if (kind === 'conversation') this.#byLane.delete(conversationId!);
  }

  /** Drops all of them without recording that: the caller has deleted their rows. */
  clear(): void {
    this.#byId.clear();
    this.#byLane.clear();
    this.#pages.clear();
  }

  /** The events of a backlog that have been read and not been passed; none if the log has to be asked. */
  readOf({ id }: Backlog): Entry[] {
    return this.#pages.get(id) ?? [];
  }

  read({ id }: Backlog, entries: Entry[]): void {
    this.#pages.set(id, entries);
  }

  /** Has the events of a backlog read anew. */
  forgetRead({ id }: Backlog): void {
    this.#pages.delete(id);
  }

  /** What has changed since this was last called. */
  takeChanges(): { backlogs: Backlog[]; removedBacklogIds: string[] } {
    const backlogs = [...this.#changed].flatMap((id) => {
      const backlog = this.#byId.get(id);
      return backlog === undefined ? [] : [{ ...backlog }];
    });
    const removedBacklogIds = this.#removed;
    this.#changed = new Set();
    this.#removed = [];
    return { backlogs, removedBacklogIds };
  }
}
