import { v7 as orderedUuid } from 'uuid';
import { ResetReason, StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import { hubDate, hubTime } from '#lib/clock.ts';
import type { Entry, LogStore } from '../log/log-store.ts';
import { cursorText, whyReset } from '../streams/cursor.ts';
import { outcomes, type Attempt } from './attempts-store.ts';
import { Backlogs, laneOf, type Standing } from './backlogs.ts';
import { payloadOf, type Payload } from './payload.ts';
import type { Schedule } from './schedule.ts';
import type { Sender, Sent } from './sender.ts';
import { afterFailure, nextAttemptAt, wellStanding } from './standing.ts';
import type { Backlog, Work, WorkStore } from './work-store.ts';

export interface WorkerOptions {
  work: Work;
  backlogs: readonly Backlog[];
  store: Pick<WorkStore, 'record' | 'release' | 'stop' | 'reset'>;
  log: Pick<LogStore, 'head' | 'page'>;
  sender: Sender;
  schedule: Schedule;
  /** Takes a place for a request of this process. @returns false if there is none: the worker is woken when one is free */
  takePlace(): boolean;
  freePlace(): void;
  /** Whether other endpoints wait for a worker. */
  isCrowded(): boolean;
  /** Tells the owner of the endpoint that it was stopped. */
  stopped(work: Work, why: 'failing' | 'gone', failingSince: Date | null): Promise<void>;
}

/** Requests to an endpoint at once, each for another conversation; one alone while nothing goes through. */
const maxInFlight = 8;
const pageSize = 100;
/** The log is read on while fewer events than this wait. */
const maxWaiting = 50;
/** A conversation that has more events waiting than this is read apart from the others, so that they don't wait for it. */
const maxWaitingOfLane = 16;
/** With so many backlogs of conversations the log is not read on, until there are fewer. */
const maxBacklogs = 100;
/** Between two records of what was done: what comes after the last one is sent again if the process is killed. */
const recordEveryMs = 200;
/** After so long an endpoint makes room, if others wait. */
const maxAgeMs = 60_000;

/** A lease was lost: somebody else works on the endpoint, or it was changed. */
class LeaseLost extends Error {}

/**
 * Delivers the events of one endpoint, as long as there are some and the lease lasts.
 *
 * It reads the log from the endpoint's position on, and sends to several lanes at once. An event that fails becomes the first one of its
 * lane's backlog, and the position passes it by: the other lanes go on. A backlog is delivered from the log as well, event by event. Once
 * it has caught up with the position, the lane is as the others again.
 */
export class Worker {
  readonly id: string;
  readonly lease: string;
  readonly #options: WorkerOptions;
  #work: Work;
  /** Up to where the log was read. */
  #readTo: number;
  /** There may be something new up to there. */
  #markedTo: number;
  /** Nobody has read the log yet: there may be something new whatever is marked. */
  #isUnread: boolean;
  readonly #waiting: Entry[] = [];
  /** By lane, the id of the event that is being sent, without those of backlogs. */
  readonly #sending = new Map<string, number>();
  readonly #busyLanes = new Set<string>();
  readonly #backlogs = new Backlogs();
  readonly #busyBacklogs = new Set<string>();
  #inFlight = 0;
  #attempts: Attempt[] = [];
  #isDirty = false;
  #recordedAt = 0;
  #recording: Promise<void> = Promise.resolve();
  /** Until when the lease lasts, by performance.now(). */
  #leasedUntil: number;
  #isStopping = false;
  #failure: unknown;
  readonly #abort = new AbortController();
  #wake: () => void = () => {};
  #isAwake = false;

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#work = options.work;
    this.id = options.work.id;
    this.lease = options.work.lease;
    this.#readTo = options.work.position;
    this.#markedTo = options.work.markedTo ?? 0;
    this.#isUnread = options.work.markedTo === null;
    this.#leasedUntil = performance.now() + options.schedule.leaseMs;
    for (const backlog of options.backlogs) this.#backlogs.add(backlog);
  }

  /** There may be something new in the log up to there. */
  marked(to: number): void {
    this.#markedTo = Math.max(this.#markedTo, to);
    this.wake();
  }

  /** @param asked when the lease was asked for, by performance.now() */
  renewed(work: Work, asked: number): void {
    const { failures, failingSince, holdUntil, position } = this.#work;
    this.#work = { ...work, failures, failingSince, holdUntil, position };
    this.#markedTo = Math.max(this.#markedTo, work.markedTo ?? 0);
    this.#leasedUntil = asked + this.#options.schedule.leaseMs;
    this.wake();
  }

  /** The lease is lost: what is under way doesn't count any more. */
  lost(): void {
    this.#failure ??= new LeaseLost();
    this.#abort.abort();
    this.wake();
  }

  /** Begins nothing more. */
  stop(): void {
    this.#isStopping = true;
    this.wake();
  }

  /** Breaks off what is under way. */
  breakOff(): void {
    this.#abort.abort();
    this.wake();
  }

  wake(): void {
    this.#isAwake = true;
    this.#wake();
  }

  /**
   * Works until there is nothing more to do now, and gives the endpoint back.
   *
   * @throws what the stores throw
   */
  async run(): Promise<void> {
    const { log, schedule } = this.#options;
    const began = performance.now();
    await this.#requireSameLog();
    for (;;) {
      this.#isAwake = false;
      if (this.#failure !== undefined) break;
      if (performance.now() - began > maxAgeMs && this.#options.isCrowded()) this.#isStopping = true;
      const isReading = !this.#isStopping && this.#mayRead();
      if (isReading) await this.#read(log);
      if (!this.#isStopping) this.#dispatch();
      const isIdle = this.#inFlight === 0 && (this.#isStopping || !this.#mayGoOn());
      if (this.#isDirty && (isIdle || performance.now() - this.#recordedAt > recordEveryMs)) await this.#record();
      if (isIdle && !this.#isAwake) break;
      if (isReading || this.#isAwake) continue;
      await this.#sleep(Math.min(this.#isDirty ? recordEveryMs : schedule.renewMs, this.#untilDue()));
    }
    await this.#end();
  }

  async #end(): Promise<void> {
    const { store } = this.#options;
    // What is under way uses what this has.
    while (this.#inFlight > 0) {
      // Word from before is old, and would not let this wait: then nothing could end what is under way.
      this.#isAwake = false;
      await this.#sleep(1_000);
    }
    if (this.#failure instanceof LeaseLost) return;
    if (this.#failure !== undefined) throw this.#failure;
    const isUnfinished = this.#isStopping || this.#waiting.length > 0 || this.#isUnread;
    const times = [...this.#backlogs].map(({ nextAt }) => nextAt.getTime());
    if (isUnfinished) times.push(hubTime());
    const next = times.length === 0 ? null : new Date(Math.max(Math.min(...times), this.#heldUntil()));
    await store.release(this.#work, this.#isUnread ? null : this.#readTo, next);
  }

  /** Whether anything can be done without waiting for longer than a lease lasts. */
  #mayGoOn(): boolean {
    const soon = hubTime() + 1_000;
    if (this.#heldUntil() > soon) return false;
    if (this.#waiting.length > 0 || this.#mayRead()) return true;
    return [...this.#backlogs].some(({ nextAt }) => nextAt.getTime() <= soon);
  }

  /** Milliseconds until something that waits for its time may be sent, at least 10. */
  #untilDue(): number {
    const times = [...this.#backlogs]
      .filter(({ id }) => !this.#busyBacklogs.has(id))
      .map(({ nextAt }) => Math.max(nextAt.getTime(), this.#heldUntil()) - hubTime());
    if (this.#waiting.length > 0) times.push(this.#heldUntil() - hubTime());
    return Math.max(10, Math.min(Infinity, ...times.filter((time) => time > 0)));
  }

  #mayRead(): boolean {
    return this.#isMarked() && this.#waiting.length < maxWaiting && this.#backlogs.laneCount < maxBacklogs;
  }

  #isMarked(): boolean {
    return this.#isUnread || this.#markedTo > this.#readTo;
  }

  #heldUntil(): number {
    return this.#work.holdUntil?.getTime() ?? 0;
  }

  /** All up to there was delivered, or stands in a backlog. */
  #position(): number {
    const first = Math.min(this.#waiting[0]?.id ?? Infinity, ...this.#sending.values());
    return first === Infinity ? this.#readTo : first - 1;
  }

  /** An endpoint can't be sent what the log doesn't have any more: it is told so, and goes on at the end. */
  async #requireSameLog(): Promise<void> {
    const head = await this.#options.log.head();
    const reason = whyReset({ epoch: this.#work.epoch, position: this.#work.position }, head);
    const isExpired = [...this.#backlogs].some(
      ({ kind, after }) =>
        kind === 'conversation' && whyReset({ epoch: head.epoch, position: after }, head) !== undefined,
    );
    if ((reason !== undefined && (reason !== 'expired' || this.#isMarked())) || isExpired) {
      await this.#reset(head);
    }
    this.#work = { ...this.#work, epoch: head.epoch };
  }

  async #reset({ epoch, lastId }: { epoch: number; lastId: number }): Promise<void> {
    const { store } = this.#options;
    const backlog: Backlog = {
      id: orderedUuid(),
      kind: 'reset',
      conversationId: null,
      after: lastId,
      upTo: null,
      remaining: null,
      attempts: 0,
      failingSince: null,
      nextAt: hubDate(),
    };
    await store.reset(this.#work, { epoch, position: lastId }, backlog);
    this.#backlogs.clear();
    this.#waiting.length = 0;
    this.#backlogs.add(backlog);
    this.#readTo = lastId;
    this.#markedTo = lastId;
    this.#isUnread = false;
  }

  async #read(log: Pick<LogStore, 'head' | 'page'>): Promise<void> {
    const { userId, conversationIds, types } = this.#work;
    const { lastId: upTo, epoch } = await log.head();
    const { entries, removedTo, more } = await log.page({
      userId,
      conversationIds,
      types,
      after: this.#readTo,
      upTo,
      limit: pageSize,
    });
    if (removedTo > this.#readTo) {
      await this.#reset({ epoch, lastId: upTo });
      return;
    }
    // A lane with a backlog is read for that, from the first of its events that waits.
    this.#waiting.push(...entries.filter((entry) => this.#backlogs.ofLane(laneOf(entry)) === undefined));
    this.#readTo = more ? entries.at(-1)!.id : upTo;
    // What is marked later than this is beyond it.
    if (!more) this.#isUnread = false;
    this.#isDirty = true;
  }

  #dispatch(): void {
    if (hubTime() < this.#heldUntil()) return;
    const isDue = ({ nextAt }: Backlog) => nextAt.getTime() <= hubTime();
    for (const backlog of [...this.#backlogs].filter(isDue)) {
      // Lanes that are well don't wait for those that aren't.
      if (this.#waiting.length > 0 && this.#busyBacklogs.size >= maxInFlight / 2) break;
      const lane = this.#backlogs.laneOf(backlog);
      if (this.#busyBacklogs.has(backlog.id) || (lane !== undefined && this.#busyLanes.has(lane))) continue;
      if (!this.#take()) return;
      void this.#run(() => this.#workOff(backlog));
    }
    const behind = new Map<string, Entry[]>();
    for (const entry of this.#waiting.slice()) {
      const lane = laneOf(entry);
      // It was put aside just now.
      if (this.#backlogs.ofLane(lane) !== undefined) continue;
      if (this.#busyLanes.has(lane) || behind.has(lane)) {
        const entries = behind.get(lane) ?? [];
        entries.push(entry);
        behind.set(lane, entries);
        if (entries.length > maxWaitingOfLane) this.#putAside(lane, entries[0]!.id - 1);
        continue;
      }
      if (!this.#take()) return;
      this.#waiting.splice(this.#waiting.indexOf(entry), 1);
      void this.#run(() => this.#deliver(entry));
    }
  }

  /** Takes a place for a request. */
  #take(): boolean {
    const most = this.#work.failures > 0 ? 1 : maxInFlight;
    if (this.#inFlight >= most || performance.now() > this.#leasedUntil) return false;
    return this.#options.takePlace();
  }

  async #run(work: () => Promise<void>): Promise<void> {
    this.#inFlight += 1;
    try {
      await work();
    } catch (error) {
      this.#failure ??= error;
    } finally {
      this.#inFlight -= 1;
      this.#options.freePlace();
      this.wake();
    }
  }

  async #deliver(entry: Entry): Promise<void> {
    const lane = laneOf(entry);
    this.#busyLanes.add(lane);
    this.#sending.set(lane, entry.id);
    try {
      const payload = payloadOf(this.#eventOf(entry));
      const sent = await this.#options.sender.send(this.#work, payload, this.#abort.signal);
      if (this.#abort.signal.aborted) {
        this.#waiting.unshift(entry);
        this.#waiting.sort((a, b) => a.id - b.id);
        return;
      }
      if (sent.isDelivered) {
        this.#note(payload, sent, { number: 1, outcome: outcomes.delivered, nextAt: null });
        // The events behind it may have been put aside meanwhile.
        this.#backlogs.delivered(entry);
        return;
      }
      const nextAt = nextAttemptAt(sent, 1, this.#options.schedule);
      this.#note(payload, sent, { number: 1, outcome: outcomes.failed, nextAt });
      this.#putAside(lane, entry.id - 1, { attempts: 1, failingSince: sent.at, nextAt });
      await this.#judge(sent);
    } finally {
      this.#sending.delete(lane);
      this.#busyLanes.delete(lane);
    }
  }

  /** Makes a backlog of a lane, from an event on. */
  #putAside(lane: string, after: number, standing?: Standing): void {
    const sending = this.#sending.get(lane);
    this.#backlogs.putAside(lane, sending === undefined ? after : Math.min(after, sending - 1), standing);
    const others = this.#waiting.filter((entry) => laneOf(entry) !== lane);
    this.#waiting.splice(0, Infinity, ...others);
    this.#isDirty = true;
  }

  /** Sends the next event of a backlog. */
  async #workOff(backlog: Backlog): Promise<void> {
    this.#busyBacklogs.add(backlog.id);
    let lane = this.#backlogs.laneOf(backlog);
    if (lane !== undefined) this.#busyLanes.add(lane);
    try {
      const next = backlog.kind === 'reset' ? undefined : await this.#nextOf(backlog);
      if (next === undefined && backlog.kind !== 'reset') {
        this.#backlogs.remove(backlog);
        this.#isDirty = true;
        return;
      }
      if (next !== undefined && lane === undefined) {
        if (this.#busyLanes.has(laneOf(next))) return;
        lane = laneOf(next);
        this.#busyLanes.add(lane);
      }
      const payload = payloadOf(next === undefined ? this.#resetOf(backlog) : this.#eventOf(next));
      const sent = await this.#options.sender.send(this.#work, payload, this.#abort.signal);
      if (this.#abort.signal.aborted) return;
      const number = backlog.attempts + 1;
      const failingSince = backlog.failingSince ?? sent.at;
      // Where nothing else has gone well since, it is the endpoint that fails: that is paused, and the event waits.
      const isAlone = this.#work.failingSince === null || this.#work.failingSince > failingSince;
      const isOver = isAlone && sent.at.getTime() - failingSince.getTime() >= this.#options.schedule.giveUpMs;
      const nextAt = sent.isDelivered || isOver ? null : nextAttemptAt(sent, number, this.#options.schedule);
      const outcome = sent.isDelivered ? outcomes.delivered : isOver ? outcomes.givenUp : outcomes.failed;
      this.#note(payload, sent, { number, outcome, nextAt });
      if (nextAt === null) this.#backlogs.pass(backlog, next);
      else this.#backlogs.postpone(backlog, { attempts: number, failingSince, nextAt });
      if (!sent.isDelivered) await this.#judge(sent);
    } finally {
      this.#busyBacklogs.delete(backlog.id);
      if (lane !== undefined) this.#busyLanes.delete(lane);
    }
  }

  /** The next event of a backlog; undefined if there is none, up to where the log was read. */
  #nextOf(backlog: Backlog): Promise<Entry | undefined> {
    const { userId, types } = this.#work;
    const conversationIds = backlog.kind === 'conversation' ? [backlog.conversationId!] : this.#work.conversationIds;
    return this.#backlogs.next(backlog, this.#readTo, async (range) => {
      const { entries } = await this.#options.log.page({ userId, conversationIds, types, ...range });
      return entries;
    });
  }

  #eventOf({ id, body }: Entry): StreamEventsResponse {
    const { epoch } = this.#work;
    return { ...StreamEventsResponse.decode(body), cursor: cursorText({ epoch, position: id }) };
  }

  #resetOf({ id, after }: Backlog): StreamEventsResponse {
    const cursor = cursorText({ epoch: this.#work.epoch, position: after });
    const reason = ResetReason.RESET_REASON_EXPIRED;
    return { cursor, eventId: id, at: hubDate(), event: { $case: 'reset', value: { reason } } };
  }

  /** Notes an attempt, and what it says of the endpoint. */
  #note({ eventId, type }: Payload, sent: Sent, how: Pick<Attempt, 'number' | 'outcome' | 'nextAt'>): void {
    const { at, durationMs, statusCode, error } = sent;
    this.#attempts.push({ id: orderedUuid(), eventId, type, at, durationMs, statusCode, error, ...how });
    this.#isDirty = true;
    const { schedule } = this.#options;
    if (sent.isDelivered) {
      // What failed only because nothing went through needn't wait any longer.
      if (this.#work.failures >= schedule.failuresBeforeHold) this.#backlogs.hasten();
      this.#work = { ...this.#work, ...wellStanding };
      return;
    }
    this.#work = { ...this.#work, ...afterFailure(this.#work, sent, schedule) };
  }

  /** After a failure: whether the endpoint is to be left alone. */
  async #judge({ isGone }: Sent): Promise<void> {
    const { failingSince } = this.#work;
    const { giveUpMs } = this.#options.schedule;
    const isFailing = failingSince !== null && hubTime() - failingSince.getTime() >= giveUpMs;
    if (!isGone && !isFailing) return;
    const { store } = this.#options;
    // What was done counts before the lease is given up.
    await this.#record();
    await this.#options.stopped(this.#work, isGone ? 'gone' : 'failing', failingSince);
    await store.stop(this.#work, isGone ? 'disabled' : 'paused');
    this.lost();
  }

  /** Records what was done, once what is being recorded is. */
  #record(): Promise<void> {
    this.#recording = this.#recording.then(() => this.#recordNow());
    return this.#recording;
  }

  async #recordNow(): Promise<void> {
    const { store } = this.#options;
    if (this.#failure !== undefined) return;
    const { failures, failingSince, holdUntil } = this.#work;
    const changes = this.#backlogs.takeChanges();
    const attempts = this.#attempts;
    this.#attempts = [];
    this.#isDirty = false;
    this.#recordedAt = performance.now();
    const progress = { position: this.#position(), failures, failingSince, holdUntil };
    const isOwn = await store.record(this.#work, { ...progress, ...changes, attempts });
    if (!isOwn) this.lost();
  }

  #sleep(milliseconds: number): Promise<void> {
    if (this.#isAwake) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = () => {};
        resolve();
      };
    });
  }
}
