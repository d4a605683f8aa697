import { EventType, StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import type { Appended, Entry, LogStore, Membership } from '../log/log-store.ts';
import { fieldOf } from '../wire.ts';

/** A stream that is told events as they are read from the end of the log. */
export interface Follower {
  readonly userId: string;
  /** Takes an event that its user may see. Must not throw. */
  push(entry: Entry): void;
  /** Takes what is not in the log. Must not throw. */
  pushEphemeral(conversationId: string, about: string, message: StreamEventsResponse): void;
}

/** A stretch of a conversation's events that a user may see. */
type Stretch = Pick<Membership, 'fromId' | 'toId'>;

/** A change of who may see what. */
interface MembershipChange {
  id: number;
  conversationId: string;
  joins: boolean;
}

/** A user with streams in this process. */
class Audience {
  readonly followers = new Set<Follower>();
  /** Resolves once it is known what the user may see. */
  ready = Promise.resolve();
  /** How many streams use it; with the last one it goes. */
  holders = 0;
  readonly #visible = new Map<string, Stretch[]>();
  /** Changes that the tail has read while the memberships are being loaded. */
  #pending: MembershipChange[] | undefined = [];

  get conversations(): Iterable<string> {
    return this.#visible.keys();
  }

  loaded(memberships: readonly Membership[]): void {
    for (const { conversationId, ...stretch } of memberships) {
      this.#visible.set(conversationId, [...(this.#visible.get(conversationId) ?? []), stretch]);
    }
    const pending = this.#pending ?? [];
    this.#pending = undefined;
    for (const change of pending) this.change(change);
  }

  /** Applies a change. It has no effect if what was loaded has the change already. */
  change(change: MembershipChange): void {
    if (this.#pending !== undefined) {
      this.#pending.push(change);
      return;
    }
    const { id, conversationId, joins } = change;
    const stretches = (this.#visible.get(conversationId) ?? []).filter(({ toId }) => toId === null || toId >= id);
    if (joins) {
      if (!stretches.some(({ fromId, toId }) => fromId === id || (fromId < id && toId === null))) {
        stretches.push({ fromId: id, toId: null });
      }
    } else {
      for (const stretch of stretches) if (stretch.toId === null && stretch.fromId < id) stretch.toId = id;
    }
    this.#visible.set(conversationId, stretches);
  }

  maySee(conversationId: string, id: number): boolean {
    const stretches = this.#visible.get(conversationId) ?? [];
    return stretches.some(({ fromId, toId }) => fromId <= id && (toId === null || id <= toId));
  }

  isMember(conversationId: string): boolean {
    return (this.#visible.get(conversationId) ?? []).some(({ toId }) => toId === null);
  }
}

/** The end of the log, read once for all streams of this process. */
export interface Tail {
  /** Up to which id the log was read. Followers have been pushed all of it that they may see. */
  readonly position: number;
  /** The log has grown up to an id; without one, it may have grown. */
  grown(head?: number): void;
  /** This process has appended to the log. What follows on what was read needs no reading. */
  appended(appended: Appended): void;
  /**
   * Loads what a user may see, and keeps it up to date until the result is disposed of. Streams of one user share it.
   *
   * @throws what the store throws
   */
  prepare(userId: string): Promise<Disposable>;
  /** Tells a follower of all events behind `position`, until it is disposed of. Its user must have been prepared. */
  follow(follower: Follower): Disposable;
  /** The streams of users who are members of a conversation, as far as it was read. */
  followersIn(conversationId: string): Iterable<Follower>;
  stop(): Promise<void>;
}

const pageSize = 500;
/** A notification may be lost together with its connection, so the log is also polled. */
const pollEveryMs = 5_000;

/**
 * Starts to read the end of the log, from where it ends now.
 *
 * @throws what the store throws
 */
export async function startTail({
  store,
  log,
  membersChanged = () => {},
}: {
  store: Pick<LogStore, 'head' | 'after' | 'membershipsOf'>;
  log: Logger;
  /** Called when somebody has joined or left a conversation. */
  membersChanged?: (conversationId: string) => void;
}): Promise<Tail> {
  let position = (await store.head()).lastId;
  let known = position;
  const audiences = new Map<string, Audience>();
  const byConversation = new Map<string, Set<Audience>>();

  function listen(audience: Audience, conversationId: string): void {
    const listening = byConversation.get(conversationId);
    if (listening === undefined) byConversation.set(conversationId, new Set([audience]));
    else listening.add(audience);
  }

  function unlisten(audience: Audience, conversationId: string): void {
    const listening = byConversation.get(conversationId);
    listening?.delete(audience);
    if (listening?.size === 0) byConversation.delete(conversationId);
  }

  function change(userId: string, change: MembershipChange): void {
    const audience = audiences.get(userId);
    if (audience === undefined) return;
    audience.change(change);
    if (change.joins) listen(audience, change.conversationId);
    else if (!audience.isMember(change.conversationId)) unlisten(audience, change.conversationId);
  }

  function tell(entry: Entry): void {
    const { id, conversationId, userId } = entry;
    const { joins, leaves } = membershipsIn(entry);
    if (conversationId !== null) for (const who of joins) change(who, { id, conversationId, joins: true });
    if (userId !== null) for (const follower of audiences.get(userId)?.followers ?? []) follower.push(entry);
    if (conversationId !== null) {
      for (const audience of byConversation.get(conversationId) ?? []) {
        if (!audience.maySee(conversationId, id)) continue;
        for (const follower of audience.followers) follower.push(entry);
      }
      for (const who of leaves) change(who, { id, conversationId, joins: false });
      if (joins.length > 0 || leaves.length > 0) membersChanged(conversationId);
    }
    position = id;
  }

  const reading = repeat('Reading the log of events', log, async () => {
    const entries = await store.after(position, pageSize);
    // Some of them may have been told meanwhile.
    for (const entry of entries) if (entry.id > position) tell(entry);
    return entries.length > 0 || known > position ? 0 : pollEveryMs;
  });

  function grown(head?: number): void {
    if (head !== undefined && head <= position) return;
    known = Math.max(known, head ?? 0);
    reading.wake();
  }

  return {
    get position() {
      return position;
    },
    grown,
    appended({ head, entries }) {
      if (entries[0]?.id === position + 1) entries.forEach(tell);
      grown(head);
    },
    async prepare(userId) {
      let audience = audiences.get(userId);
      const isNew = audience === undefined;
      audience ??= new Audience();
      audiences.set(userId, audience);
      audience.holders += 1;
      const release = () => {
        audience.holders -= 1;
        if (audience.holders > 0) return;
        audiences.delete(userId);
        for (const conversationId of audience.conversations) unlisten(audience, conversationId);
      };
      if (isNew) {
        audience.ready = (async () => {
          audience.loaded(await store.membershipsOf(userId, position));
          for (const conversationId of audience.conversations) listen(audience, conversationId);
        })();
      }
      try {
        await audience.ready;
      } catch (error) {
        // The next stream of the user loads them anew.
        audiences.delete(userId);
        throw error;
      }
      return { [Symbol.dispose]: release };
    },
    follow(follower) {
      const { followers } = audiences.get(follower.userId)!;
      followers.add(follower);
      return { [Symbol.dispose]: () => void followers.delete(follower) };
    },
    *followersIn(conversationId) {
      for (const audience of byConversation.get(conversationId) ?? []) {
        if (audience.isMember(conversationId)) yield* audience.followers;
      }
    },
    stop: () => reading.stop(),
  };
}

/** Who may see a conversation's events from this one on, and who may up to this one. */
function membershipsIn({ type, body }: Entry): { joins: readonly string[]; leaves: readonly string[] } {
  const { event } = membershipTypes.has(type) ? StreamEventsResponse.decode(body) : { event: undefined };
  switch (event?.$case) {
    case 'conversationCreated':
      return { joins: event.value.conversation?.members ?? [], leaves: [] };
    case 'memberJoined':
      return { joins: [event.value.userId], leaves: [] };
    case 'memberLeft':
      return { joins: [], leaves: [event.value.userId] };
    default:
      return { joins: [], leaves: [] };
  }
}

/** Only these are decoded. */
const membershipTypes: ReadonlySet<number> = new Set([
  fieldOf[EventType.EVENT_TYPE_CONVERSATION_CREATED],
  fieldOf[EventType.EVENT_TYPE_MEMBER_JOINED],
  fieldOf[EventType.EVENT_TYPE_MEMBER_LEFT],
]);
