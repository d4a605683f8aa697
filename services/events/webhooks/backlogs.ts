import { v7 as orderedUuid } from 'uuid';
import { hubDate } from '#lib/clock.ts';
import type { Entry } from '../log/log-store.ts';
import type { Backlog } from './work-store.ts';

/** Since when the first event of a backlog fails, and when it is tried again. */
export type Standing = Pick<Backlog, 'attempts' | 'failingSince' | 'nextAt'>;

/** Which events to read from the log: those behind `after`, up to `upTo`, `limit` at most. */
export interface Range {
  after: number;
  upTo: number;
  limit: number;
}

const pageSize = 20;

/** Events of a lane are sent one after the other: those of a conversation, or those of the user that belong to none. */
export function laneOf({ conversationId, userId }: Entry): string {
  return (conversationId ?? userId)!;
}

/** As nothing has been tried yet. */
function untried(): Standing {
  return { attempts: 0, failingSince: null, nextAt: hubDate() };
}

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

  /** The lane of a backlog's next event; undefined as long as that has to be read. */
  laneOf({ id, conversationId }: Backlog): string | undefined {
    if (conversationId !== null) return conversationId;
    const [next] = this.#pages.get(id) ?? [];
    return next === undefined ? undefined : laneOf(next);
  }

  /** Adds one that is recorded already. */
  add(backlog: Backlog): void {
    this.#byId.set(backlog.id, backlog);
    if (backlog.kind === 'conversation') this.#byLane.set(backlog.conversationId!, backlog);
  }

  /** Has a backlog for the events of a lane behind `after`, if it has none yet. */
  putAside(lane: string, after: number, standing = untried()): void {
    let backlog = this.#byLane.get(lane);
    if (backlog === undefined) {
      const conversation = { kind: 'conversation', conversationId: lane, upTo: null, remaining: null } as const;
      backlog = { id: orderedUuid(), ...conversation, after, ...standing };
      this.add(backlog);
    } else {
      // It was put aside while its event was under way, which is before all others.
      Object.assign(backlog, { after: Math.min(after, backlog.after), ...standing });
      this.#pages.delete(backlog.id);
    }
    this.#changed.add(backlog.id);
  }

  /** An event was delivered that stands in no backlog, or in one of its lane that was made meanwhile: that goes on behind it. */
  delivered(entry: Entry): void {
    const backlog = this.#byLane.get(laneOf(entry));
    if (backlog === undefined) return;
    backlog.after = Math.max(backlog.after, entry.id);
    this.#changed.add(backlog.id);
  }

  /**
   * The next event of a backlog; undefined if there is none.
   *
   * @param readTo up to where the log was read
   * @param read reads events of this backlog
   */
  async next(backlog: Backlog, readTo: number, read: (range: Range) => Promise<Entry[]>): Promise<Entry | undefined> {
    for (;;) {
      const [next] = this.#pages.get(backlog.id) ?? [];
      if (next !== undefined) return next;
      const upTo = backlog.upTo ?? readTo;
      if (backlog.after >= upTo) return undefined;
      const entries = await read({ after: backlog.after, upTo, limit: pageSize });
      this.#pages.set(backlog.id, entries);
      if (entries.length === 0) backlog.after = upTo;
    }
  }

  /** The next event of a backlog was delivered, or given up; one of kind `reset` has nothing else. */
  pass(backlog: Backlog, entry: Entry | undefined): void {
    if (entry === undefined) {
      this.remove(backlog);
      return;
    }
    this.#pages.get(backlog.id)?.shift();
    const remaining = backlog.remaining === null ? null : backlog.remaining - 1;
    Object.assign(backlog, { ...untried(), after: entry.id, remaining });
    if (remaining === 0) this.remove(backlog);
    else this.#changed.add(backlog.id);
  }

  /** The next event of a backlog has failed. */
  postpone(backlog: Backlog, standing: Standing): void {
    Object.assign(backlog, standing);
    this.#changed.add(backlog.id);
  }

  /** What waits for its time waits no longer. */
  hasten(): void {
    for (const backlog of this.#byId.values()) {
      backlog.nextAt = hubDate();
      this.#changed.add(backlog.id);
    }
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
