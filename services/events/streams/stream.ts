import { ResetReason, StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import { hubDate, hubTime } from '#lib/clock.ts';
import { HubError } from '#lib/errors.ts';
import { gauge } from '#lib/metrics.ts';
import { EncodedMessage } from '#lib/rpc/writing.ts';
import type { Presence } from '../ephemeral/presence.ts';
import type { Entry, Head, LogStore } from '../log/log-store.ts';
import { cursorText, whyReset, type Cursor, type ResetReason as Reason } from './cursor.ts';
import type { Tail } from './tail.ts';
import { encode } from '#lib/encode.ts';

/** What a client wants to be told. */
export interface Wanted {
  userId: string;
  /** Behind which place; undefined from now on. */
  cursor: Cursor | undefined;
  /** Of which conversations; of all if empty. */
  conversationIds: readonly string[];
  /** The numbers of the fields of the events' types; all if empty. */
  types: readonly number[];
  ephemeral: boolean;
  /** In which conversations who is present is told. */
  presenceIds: readonly string[];
  /** When the caller's token expires, by the hub's time, in milliseconds; undefined if it doesn't. */
  expiresAt: number | undefined;
}

/** What a stream says next: something about itself, or events, which are encoded once for all streams. */
export type Told = StreamEventsResponse | readonly EncodedMessage[];

export interface Streams {
  /** @throws HubError RESOURCE_EXHAUSTED `TOO_MANY_STREAMS` */
  stream(wanted: Wanted, signal: AbortSignal): AsyncIterable<Told>;
  /**
   * A page of events, once there is one or `waitMs` are over. Without a cursor there is none, at once: the cursor is what is asked for.
   *
   * @throws HubError RESOURCE_EXHAUSTED `TOO_MANY_STREAMS`
   */
  list(wanted: Wanted, options: ListOptions, signal: AbortSignal): Promise<Page>;
  /** Has all streams end, with word to open another one. */
  stop(): void;
}

export interface ListOptions {
  limit: number;
  waitMs: number;
}

export interface Page {
  events: StreamEventsResponse[];
  cursor: string;
  more: boolean;
}

export interface StreamsOptions {
  store: Pick<LogStore, 'head' | 'page'>;
  tail: Tail;
  presence: Pick<Presence, 'enter' | 'watch'>;
  /** Streams that this process may have, in all. */
  maxStreams: number;
  /** The period of heartbeats (± 20 %, at random) and the age at which a stream ends (± 10 %), in milliseconds. */
  heartbeatMs: number;
  ageMs: number;
}

const maxStreamsOfUser = 8;
const pageSize = 200;
/** Heartbeats of streams that are due within this time are sent together: then they cost little. */
const beatsApartMs = 500;
/** A stream with more bytes waiting than this is no longer pushed events: it reads them from the log at its client's pace. */
const maxWaitingBytes = 1024 * 1024;
/** Clients come back within this time after the stream has ended, so that not all of a process come at once. */
const reconnectWithinMs = 5_000;

const open = gauge('event_streams_open', 'Streams of events that clients have open');

const reasons: Record<Reason, ResetReason> = {
  expired: ResetReason.RESET_REASON_EXPIRED,
  'epoch changed': ResetReason.RESET_REASON_EPOCH_CHANGED,
  future: ResetReason.RESET_REASON_FUTURE,
};

/** Streams of events: each reads the log from its cursor to the end, and is pushed what comes then. */
export function openStreams(options: StreamsOptions): Streams {
  const { store, tail, presence, maxStreams, heartbeatMs, ageMs } = options;
  const counts = new Map<string, number>();
  let total = 0;
  const all = new Set<Stream>();
  let isStopping = false;
  const beatEveryMs = Math.min(beatsApartMs, heartbeatMs / 10);
  let beat = { cursor: '', at: -Infinity, told: [] as readonly EncodedMessage[] };

  /** A heartbeat, encoded once for all streams that are due at about the same time. */
  function heartbeatOf(cursor: string): readonly EncodedMessage[] {
    const now = performance.now();
    if (beat.cursor !== cursor || now - beat.at > beatEveryMs / 2) {
      const message = aboutStream(cursor, { $case: 'heartbeat', value: {} });
      beat = { cursor, at: now, told: [new EncodedMessage(encode(StreamEventsResponse, message))] };
    }
    return beat.told;
  }

  /** Milliseconds until the next heartbeat of a stream that says something now. */
  function untilBeat(): number {
    const now = performance.now();
    return Math.ceil((now + around(heartbeatMs, 0.2)) / beatEveryMs) * beatEveryMs - now;
  }

  function enter(userId: string): Disposable {
    const count = counts.get(userId) ?? 0;
    if (count >= maxStreamsOfUser) throw tooMany(`You have ${maxStreamsOfUser} streams of events open already`);
    if (total >= maxStreams) throw tooMany('There are too many streams of events: try again a little later');
    counts.set(userId, count + 1);
    total += 1;
    open.inc();
    return {
      [Symbol.dispose]() {
        total -= 1;
        open.dec();
        const left = counts.get(userId)! - 1;
        if (left === 0) counts.delete(userId);
        else counts.set(userId, left);
      },
    };
  }

  /** From where a client is told events, and why not from where it wanted. */
  function beginning(wanted: Wanted, head: Head): { position: number; reset: Reason | undefined } {
    if (wanted.cursor === undefined) return { position: head.lastId, reset: undefined };
    const reset = whyReset(wanted.cursor, head);
    return { position: reset === undefined ? wanted.cursor.position : head.lastId, reset };
  }

  return {
    async *stream(wanted, signal) {
      using _place = enter(wanted.userId);
      using _known = await tail.prepare(wanted.userId);
      const head = await store.head();
      tail.grown(head.lastId);
      const { epoch } = head;
      const { position, reset } = beginning(wanted, head);
      const endsAt = Math.min(hubTime() + around(ageMs, 0.1), wanted.expiresAt ?? Infinity);
      const stream = new Stream({ wanted, store, tail, presence, epoch, position, signal });
      all.add(stream);
      const leave = presence.enter(wanted.userId);
      let backInMs = 0;
      try {
        const period = { seconds: BigInt(Math.floor(heartbeatMs / 1_000)), nanos: (heartbeatMs % 1_000) * 1_000_000 };
        yield aboutStream(stream.cursor, { $case: 'hello', value: { heartbeat: period } });
        if (reset !== undefined) yield resetMessage(stream.cursor, reset);
        for (;;) {
          const untilEnd = isStopping ? 0 : endsAt - hubTime();
          if (untilEnd <= 0) {
            const afterMs = Math.floor(Math.random() * reconnectWithinMs);
            backInMs = afterMs;
            yield aboutStream(stream.cursor, { $case: 'reconnect', value: { afterMs } });
            return;
          }
          const said = await stream.next(Math.min(untilBeat(), untilEnd), () => isStopping);
          if (signal.aborted) return;
          if (said.length > 0) yield* said;
          else if (!isStopping && hubTime() < endsAt) yield heartbeatOf(stream.cursor);
        }
      } finally {
        stream.stop();
        all.delete(stream);
        leave(backInMs);
      }
    },

    async list(wanted, { limit, waitMs }, signal) {
      using _place = enter(wanted.userId);
      using _known = await tail.prepare(wanted.userId);
      const head = await store.head();
      const { epoch } = head;
      const { position, reset } = beginning(wanted, head);
      const giveUp = performance.now() + (wanted.cursor === undefined ? 0 : waitMs);
      const events = reset === undefined ? [] : [resetMessage(cursorText({ epoch, position }), reset)];
      let after = position;
      for (let upTo = head.lastId; ; upTo = (await store.head()).lastId) {
        const request = { ...wanted, after, upTo, limit };
        const { entries, removedTo, more } = await store.page(request);
        if (removedTo > after) {
          after = upTo;
          events.push(resetMessage(cursorText({ epoch, position: after }), 'expired'));
          return { events, cursor: cursorText({ epoch, position: after }), more: false };
        }
        events.push(...entries.map((entry) => decoded(entry, epoch)));
        after = more ? entries.at(-1)!.id : upTo;
        const left = giveUp - performance.now();
        if (events.length > 0 || left <= 0 || isStopping || signal.aborted) {
          return { events, cursor: cursorText({ epoch, position: after }), more };
        }
        const stream = new Stream({
          wanted: { ...wanted, ephemeral: false, presenceIds: [] },
          store,
          tail,
          presence,
          epoch,
          position: after,
          signal,
        });
        all.add(stream);
        try {
          await stream.next(left, () => isStopping);
        } finally {
          stream.stop();
          all.delete(stream);
        }
      }
    },

    stop() {
      isStopping = true;
      for (const stream of all) stream.wake();
    },
  };
}

function tooMany(text: string): HubError {
  return new HubError('RESOURCE_EXHAUSTED', 'TOO_MANY_STREAMS', text, { retryAfter: 5 });
}

/** Adds jitter: up to `part` of the value more or less, at random. */
function around(value: number, part: number): number {
  return value * (1 + part * (2 * Math.random() - 1));
}

function aboutStream(cursor: string, event: NonNullable<StreamEventsResponse['event']>): StreamEventsResponse {
  return { cursor, eventId: '', at: hubDate(), event };
}

function resetMessage(cursor: string, reason: Reason): StreamEventsResponse {
  return aboutStream(cursor, { $case: 'reset', value: { reason: reasons[reason] } });
}

/** An event of the log with its cursor. */
function encoded({ id, body }: Entry, epoch: number): EncodedMessage {
  const cursor = encode(
    StreamEventsResponse,
    StreamEventsResponse.fromPartial({ cursor: cursorText({ epoch, position: id }) }),
  );
  return new EncodedMessage(cursor, body);
}

function decoded({ id, body }: Entry, epoch: number): StreamEventsResponse {
  return { ...StreamEventsResponse.decode(body), cursor: cursorText({ epoch, position: id }) };
}

interface StreamOptions extends Pick<StreamsOptions, 'store' | 'tail' | 'presence'> {
  wanted: Wanted;
  epoch: number;
  position: number;
  signal: AbortSignal;
}

/** The encoding of entries that the tail pushes to several streams, so that each is encoded once. */
const encodedOnce = new WeakMap<Entry, EncodedMessage>();

/**
 * One client's way along the log. It is in one of two modes: behind the end of the log it reads pages of it (catching up); at the end it
 * follows the tail, which pushes what comes. One whose client takes events more slowly than they come falls back into the first mode.
 */
class Stream {
  readonly #options: StreamOptions;
  readonly #conversationIds: ReadonlySet<string>;
  readonly #types: ReadonlySet<number>;
  /** The id of the last event that was handed out, or was passed over. */
  #position: number;
  #following: Disposable | undefined;
  #watching: Disposable | undefined;
  #waiting: Entry[] = [];
  #waitingBytes = 0;
  /** By what each is about: a newer one replaces an older one that nobody has taken. */
  readonly #ephemeral = new Map<string, StreamEventsResponse>();
  #wake: () => void = () => {};

  constructor(options: StreamOptions) {
    this.#options = options;
    this.#position = options.position;
    this.#conversationIds = new Set(options.wanted.conversationIds);
    this.#types = new Set(options.wanted.types);
  }

  get cursor(): string {
    return cursorText({ epoch: this.#options.epoch, position: this.#position });
  }

  /**
   * The messages to send next, in order. Waits for them up to `waitMs`, or until the stream is woken and `isOver`; then there are none.
   *
   * @throws what the store throws
   */
  async next(waitMs: number, isOver: () => boolean): Promise<readonly Told[]> {
    const { signal } = this.#options;
    const giveUp = performance.now() + waitMs;
    for (;;) {
      if (this.#following === undefined) {
        const page = await this.#catchUp();
        if (page !== undefined) return [page];
        if (this.#following === undefined) continue;
      }
      if (this.#waiting.length > 0) return [this.#take()];
      // All up to there was pushed, or is not for this stream.
      this.#position = Math.max(this.#position, this.#options.tail.position);
      if (this.#ephemeral.size > 0) {
        const said = [...this.#ephemeral.values()];
        this.#ephemeral.clear();
        return said;
      }
      const left = giveUp - performance.now();
      if (left <= 0 || isOver() || signal.aborted) return [];
      await this.#sleep(left);
    }
  }

  wake(): void {
    this.#wake();
  }

  stop(): void {
    this.#following?.[Symbol.dispose]();
    this.#following = undefined;
    this.#watching?.[Symbol.dispose]();
    this.#watching = undefined;
  }

  /** A page of the log; undefined if it has nothing for this stream, or once that follows the tail. */
  async #catchUp(): Promise<Told | undefined> {
    const { wanted, store, tail, epoch } = this.#options;
    const upTo = tail.position;
    if (this.#position >= upTo) {
      this.#follow();
      return undefined;
    }
    const { entries, removedTo, more } = await store.page({
      ...wanted,
      after: this.#position,
      upTo,
      limit: pageSize,
    });
    if (removedTo > this.#position) {
      this.#position = upTo;
      return resetMessage(this.cursor, 'expired');
    }
    this.#position = more ? entries.at(-1)!.id : upTo;
    return entries.length === 0 ? undefined : entries.map((entry) => encoded(entry, epoch));
  }

  #follow(): void {
    const { wanted, tail, presence } = this.#options;
    this.#following = tail.follow({
      userId: wanted.userId,
      push: (entry) => this.#push(entry),
      pushEphemeral: (conversationId, about, message) => {
        if (wanted.ephemeral && this.#isOf(conversationId)) this.#pushEphemeral(about, message);
      },
    });
    if (wanted.presenceIds.length === 0) return;
    this.#watching = presence.watch({
      userId: wanted.userId,
      conversationIds: wanted.presenceIds,
      tell: (conversationId, message) => this.#pushEphemeral(`presence ${conversationId}`, message),
    });
  }

  #pushEphemeral(about: string, message: StreamEventsResponse): void {
    this.#ephemeral.set(about, message);
    this.#wake();
  }

  #isOf(conversationId: string | null): boolean {
    return this.#conversationIds.size === 0 || (conversationId !== null && this.#conversationIds.has(conversationId));
  }

  #push(entry: Entry): void {
    if (entry.id <= this.#position || !this.#isOf(entry.conversationId)) return;
    if (this.#types.size > 0 && !this.#types.has(entry.type)) return;
    if (this.#waiting.length > 0 && this.#waitingBytes + entry.body.length > maxWaitingBytes) {
      this.stop();
      this.#waiting = [];
      this.#waitingBytes = 0;
      this.#ephemeral.clear();
    } else {
      this.#waiting.push(entry);
      this.#waitingBytes += entry.body.length;
    }
    this.#wake();
  }

  #take(): EncodedMessage[] {
    const taken = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#position = taken.at(-1)!.id;
    return taken.map((entry) => {
      let message = encodedOnce.get(entry);
      if (message === undefined) encodedOnce.set(entry, (message = encoded(entry, this.#options.epoch)));
      return message;
    });
  }

  #sleep(milliseconds: number): Promise<void> {
    const { signal } = this.#options;
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
        this.#wake = () => {};
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      signal.addEventListener('abort', end);
      this.#wake = end;
    });
  }
}
