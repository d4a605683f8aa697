import { v4 as uuid } from 'uuid';
import type { StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import { BoundedMap } from '#lib/bounded-map.ts';
import { hubDate } from '#lib/clock.ts';
import type { LogStore } from '../log/log-store.ts';
import type { PresenceSaid, Processes } from '../processes.ts';

/** A stream whose client wants to know who is present. */
export interface Watcher {
  userId: string;
  conversationIds: readonly string[];
  /** Takes who else is present in a conversation. Must not throw. */
  tell(conversationId: string, message: StreamEventsResponse): void;
}

export interface Presence {
  /** A stream of a user is open in this process. @returns to be called when it ends, with the milliseconds until its client comes back */
  enter(userId: string): (backInMs?: number) => void;
  /** Tells a watcher who is present now, and again with each change, until the result is disposed of. */
  watch(watcher: Watcher): Disposable;
  /** What a process has said to all. */
  heard(said: PresenceSaid, process: string, userIds: readonly string[]): void;
  /** What other processes have said may have been missed. */
  missed(): void;
  /** Somebody has joined or left a conversation. */
  membersChanged(conversationId: string): void;
  stop(): void;
}

export interface PresenceOptions {
  processes: Pick<Processes, 'presence'>;
  store: Pick<LogStore, 'membersOf'>;
  times?: Partial<Times>;
}

/** In milliseconds. */
interface Times {
  /** A change is told once it has lasted so long, together with others of the same conversation. */
  held: number;
  /** A client that has lost its connection opens another stream within this time: `retry` of server-sent events says 2 s. */
  back: number;
  /** How long other processes may take to answer, before somebody new to this process counts as absent. */
  answer: number;
  /** How often a process asks anew, and how long its question, and what it was answered, are good for. */
  refresh: number;
  lease: number;
}

const usualTimes: Times = { held: 2_000, back: 3_000, answer: 500, refresh: 5_000, lease: 15_000 };

/** In larger conversations nobody is told who is present. */
const maxMembers = 50;
/** Users whom one process asks for. Conversations beyond are not told who is present. */
const maxWatched = 20_000;
/** Users whom other processes ask for. */
const maxAsked = 100_000;
/** Waits for more to be said at once: each notification costs a commit. */
const pauseMs = 20;
/** A notification of PostgreSQL has 8,000 bytes at most, and a UUID takes 37 of them. */
const maxUsers = 200;

/** A user of whom watchers in this process want to know. */
interface Watched {
  /** Those that are watched and that the user is a member of. */
  conversations: Set<Watching>;
  /** Other processes where the user is present, with the time until which that is known. */
  elsewhere: Map<string, number>;
  /** What watchers know. Undefined until other processes have had the time to answer. */
  told: boolean | undefined;
  /** Since when that has not been true; undefined while it is. */
  changedAt: number | undefined;
}

/** A conversation of which watchers in this process want to know. */
interface Watching {
  id: string;
  watchers: Set<Watcher>;
  /** Those that have not been told who is present. */
  waiting: Set<Watcher>;
  /** Undefined until they are loaded; none where nobody is told who is present. */
  members: ReadonlySet<string> | undefined;
  /** Since when some of its members, of whom nothing was known, are being asked for. */
  askedAt: number;
  isLoading: boolean;
  /** Whether its members have changed while they were being loaded. */
  isStale: boolean;
}

/**
 * Who is present, which is: who has a stream open, in whatever process. Kept nowhere, and told only where somebody asks for it. A process
 * whose clients want to know asks all processes, which say who is present there, and then each change, as long as they are asked again and again.
 * So one that is killed is forgotten, what a lost notification has said comes again, and where nobody asks nothing is said at all.
 */
export function openPresence({ processes, store, times }: PresenceOptions): Presence {
  const { held, back, answer, refresh, lease } = { ...usualTimes, ...times };
  const self = uuid();
  /** Streams in this process, by user. */
  const here = new Map<string, number>();
  /** Users of whom other processes want to know, with the time until which they do. */
  const askedFor = new BoundedMap<string, number>(maxAsked);
  const watched = new Map<string, Watched>();
  const conversations = new Map<string, Watching>();
  /** Users of whom something is to be told soon. */
  const changed = new Set<string>();
  const waiting = new Set<Watching>();
  /** What is to be said to other processes: whom to ask for, and whose presence to tell. */
  const toAsk = new Set<string>();
  const toSay = new Set<string>();
  let isSaying = false;
  let isStopped = false;
  let telling: NodeJS.Timeout | undefined;
  let refreshing: NodeJS.Timeout | undefined;

  function isPresent(userId: string, { elsewhere }: Watched): boolean {
    if (here.has(userId)) return true;
    const now = performance.now();
    return [...elsewhere.values()].some((until) => until > now);
  }

  /** Something may have changed of a user. */
  function look(userId: string): void {
    const user = watched.get(userId);
    if (user?.told === undefined) return;
    if (isPresent(userId, user) === user.told) {
      user.changedAt = undefined;
      changed.delete(userId);
    } else {
      user.changedAt ??= performance.now();
      changed.add(userId);
      tellSoon();
    }
  }

  function tellSoon(): void {
    if (isStopped) return;
    telling ??= setTimeout(
      () => {
        telling = undefined;
        tellDue();
        if (changed.size > 0 || waiting.size > 0) tellSoon();
      },
      Math.min(held, answer) / 4,
    );
  }

  /** Tells what has lasted long enough. */
  function tellDue(): void {
    const now = performance.now();
    const news = new Map<Watching, string[]>();
    for (const userId of changed) {
      const user = watched.get(userId)!;
      if (now - user.changedAt! < held) continue;
      user.told = !user.told;
      user.changedAt = undefined;
      changed.delete(userId);
      for (const conversation of user.conversations) {
        news.set(conversation, [...(news.get(conversation) ?? []), userId]);
      }
    }
    for (const [conversation, about] of news) {
      for (const watcher of conversation.watchers) {
        const isNews = about.some((userId) => userId !== watcher.userId);
        if (isNews && !conversation.waiting.has(watcher)) tell(conversation, watcher);
      }
    }
    for (const conversation of waiting) {
      if (conversation.members === undefined || now - conversation.askedAt < answer) continue;
      for (const userId of conversation.members) {
        const user = watched.get(userId)!;
        user.told ??= isPresent(userId, user);
      }
      for (const watcher of conversation.waiting) tell(conversation, watcher);
      conversation.waiting.clear();
      waiting.delete(conversation);
    }
  }

  function tell({ id, members }: Watching, watcher: Watcher): void {
    if (members?.has(watcher.userId) !== true) return;
    const others = [...members].filter((userId) => userId !== watcher.userId && watched.get(userId)?.told === true);
    watcher.tell(id, messageOf(id, others));
  }

  /** Loads the members of a conversation, now or, if the database is away, a little later. */
  async function load(conversation: Watching): Promise<void> {
    conversation.isStale = true;
    if (conversation.isLoading) return;
    conversation.isLoading = true;
    try {
      while (!isStopped && conversation.isStale && conversations.get(conversation.id) === conversation) {
        conversation.isStale = false;
        loaded(conversation, await store.membersOf(conversation.id));
      }
    } catch {
      setTimeout(() => void load(conversation), refresh).unref();
    } finally {
      conversation.isLoading = false;
    }
  }

  /** Asks for the members of a conversation, if one of its watchers is among them. */
  function loaded(conversation: Watching, found: readonly string[]): void {
    const { id, watchers } = conversation;
    if (isStopped || conversations.get(id) !== conversation) return;
    const before = conversation.members ?? new Set();
    const unknown = found.filter((userId) => !watched.has(userId));
    const isWithin = found.length <= maxMembers && watched.size + unknown.length <= maxWatched;
    const isWatched = [...watchers].some(({ userId }) => found.includes(userId));
    const members = new Set(isWithin && isWatched ? found : []);
    for (const userId of members) {
      let user = watched.get(userId);
      if (user === undefined) {
        user = { conversations: new Set(), elsewhere: new Map(), told: undefined, changedAt: undefined };
        watched.set(userId, user);
        toAsk.add(userId);
      }
      user.conversations.add(conversation);
    }
    const isAsked = [...members].some((userId) => watched.get(userId)!.told === undefined);
    conversation.members = members;
    conversation.askedAt = isAsked ? performance.now() : Number.NEGATIVE_INFINITY;
    for (const userId of before) if (!members.has(userId)) release(userId, conversation);
    for (const watcher of watchers) {
      // It has grown too large: what was told of it is not true any more.
      if (!isWithin && before.has(watcher.userId)) watcher.tell(id, messageOf(id, []));
      conversation.waiting.add(watcher);
    }
    waiting.add(conversation);
    tellDue();
    tellSoon();
    say();
    refreshing ??= setInterval(ask, refresh);
  }

  function release(userId: string, conversation: Watching): void {
    const user = watched.get(userId)!;
    user.conversations.delete(conversation);
    if (user.conversations.size > 0) return;
    watched.delete(userId);
    changed.delete(userId);
    toAsk.delete(userId);
  }

  /** Asks for everybody anew, and forgets what was not said again for too long. */
  function ask(): void {
    const now = performance.now();
    for (const [userId, user] of watched) {
      for (const [process, until] of user.elsewhere) if (until <= now) user.elsewhere.delete(process);
      toAsk.add(userId);
      look(userId);
    }
    say();
  }

  /**
   * Says what there is to say, a little later and together with what comes until then. One notification after the other, so that they
   * arrive in their order. What can't be said is asked for again.
   */
  function say(): void {
    if (isSaying || isStopped || (toAsk.size === 0 && toSay.size === 0)) return;
    isSaying = true;
    setTimeout(() => void sayAll().catch(() => {}), pauseMs);
  }

  async function sayAll(): Promise<void> {
    try {
      while (!isStopped && (toAsk.size > 0 || toSay.size > 0)) {
        await processes.presence('asks', self, taken(toAsk));
        const { arrived = [], departed = [] } = Object.groupBy(taken(toSay), (userId) =>
          here.has(userId) ? 'arrived' : 'departed',
        );
        await processes.presence('arrived', self, arrived);
        await processes.presence('departed', self, departed);
      }
    } finally {
      isSaying = false;
    }
  }

  function tellOthers(userId: string): void {
    look(userId);
    if ((askedFor.get(userId) ?? 0) <= performance.now()) return;
    toSay.add(userId);
    say();
  }

  return {
    enter(userId) {
      const count = here.get(userId) ?? 0;
      here.set(userId, count + 1);
      if (count === 0) tellOthers(userId);
      return (backInMs = 0) => {
        const leave = () => {
          const left = here.get(userId)! - 1;
          if (left > 0) return void here.set(userId, left);
          here.delete(userId);
          tellOthers(userId);
        };
        setTimeout(leave, Math.max(backInMs, back)).unref();
      };
    },

    watch(watcher) {
      const ids = new Set(watcher.conversationIds);
      for (const id of ids) {
        let conversation = conversations.get(id);
        if (conversation === undefined) {
          const empty = { members: undefined, askedAt: 0, isLoading: false, isStale: false };
          conversation = { id, watchers: new Set(), waiting: new Set(), ...empty };
          conversations.set(id, conversation);
        }
        conversation.watchers.add(watcher);
        conversation.waiting.add(watcher);
        waiting.add(conversation);
        // If no watcher was a member, its members are not known.
        if (conversation.members?.has(watcher.userId) !== true) void load(conversation);
      }
      tellDue();
      tellSoon();
      return {
        [Symbol.dispose]() {
          for (const id of ids) {
            const conversation = conversations.get(id)!;
            conversation.watchers.delete(watcher);
            conversation.waiting.delete(watcher);
            if (conversation.watchers.size > 0) continue;
            conversations.delete(id);
            waiting.delete(conversation);
            for (const userId of conversation.members ?? []) release(userId, conversation);
          }
          if (conversations.size > 0) return;
          clearInterval(refreshing);
          refreshing = undefined;
        },
      };
    },

    heard(said, process, userIds) {
      if (process === self) return;
      const until = performance.now() + lease;
      for (const userId of userIds) {
        if (said === 'asks') {
          askedFor.set(userId, until);
          if (here.has(userId)) toSay.add(userId);
          continue;
        }
        const elsewhere = watched.get(userId)?.elsewhere;
        if (said === 'arrived') elsewhere?.set(process, until);
        else elsewhere?.delete(process);
        look(userId);
      }
      say();
    },

    missed: ask,

    membersChanged(conversationId) {
      const conversation = conversations.get(conversationId);
      if (conversation !== undefined) void load(conversation);
    },

    stop() {
      isStopped = true;
      clearTimeout(telling);
      clearInterval(refreshing);
    },
  };
}

function messageOf(conversationId: string, userIds: string[]): StreamEventsResponse {
  return { cursor: '', eventId: '', at: hubDate(), event: { $case: 'presence', value: { conversationId, userIds } } };
}

/** Takes as many out of a set as one notification can name. */
function taken(from: Set<string>): string[] {
  const some = [...from].slice(0, maxUsers);
  for (const each of some) from.delete(each);
  return some;
}
