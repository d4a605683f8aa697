import { isTransient } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import { waitAtMost } from '#lib/deadline.ts';
import { gauge } from '#lib/metrics.ts';
import type { LogStore } from '../log/log-store.ts';
import type { Processes } from '../processes.ts';
import type { Schedule } from './schedule.ts';
import type { Sender } from './sender.ts';
import { Worker, type WorkerOptions } from './worker.ts';
import type { WorkStore } from './work-store.ts';

export interface DeliveriesOptions extends Pick<WorkerOptions, 'stopped' | 'schedule'> {
  store: WorkStore;
  log: Pick<LogStore, 'head' | 'page'>;
  sender: Sender;
  schedule: Schedule;
  processes: Pick<Processes, 'webhook'>;
  logger: Logger;
  /** Requests of this process at once, to all endpoints. */
  maxRequests?: number;
}

/** Delivers events to the endpoints that this process gets hold of. */
export interface Deliveries {
  /** The log has grown. */
  grown(): void;
  /** Something was changed of an endpoint, or there is something new for it. */
  heard(endpointId: string): void;
  stop(): Promise<void>;
}

/** Endpoints that a process works on at once. */
const maxWorkers = 64;
const claimedAtOnce = 16;
/** Events that are looked at by one transaction. */
const markedAtOnce = 5_000;
/** The shortest time between two looks at the log. */
const markPauseMs = 50;
/** While there is no active endpoint, processes look this seldom: that there is one, they are told. In milliseconds. */
const restMs = 5_000;
/** Of what other processes work on, so many are told them at once. Of the others they hear when they renew their leases. */
const toldAtOnce = 50;
/** What is under way when the process stops may go on for so long. */
const drainMs = 1_000;

const working = gauge('webhook_endpoints_in_work', 'Endpoints of webhooks that the process works on');

export function openDeliveries(options: DeliveriesOptions): Deliveries {
  const { store, schedule, processes, logger, maxRequests = 64 } = options;
  const workers = new Map<string, { worker: Worker; ended: Promise<void> }>();
  let free = maxRequests;
  let isStopping = false;
  /** Whether there may be an active endpoint, and how often it was heard of one. */
  let mayHaveSome = true;
  let heardOf = 0;
  const pause = () => (mayHaveSome ? schedule.pollMs : Math.max(schedule.pollMs, restMs));

  const marking = repeat('Looking for events for webhooks', logger, async () => {
    const heardBefore = heardOf;
    const marked = await store.mark(markedAtOnce);
    if (marked === undefined) return schedule.pollMs;
    mayHaveSome = marked.any || heardOf !== heardBefore;
    const elsewhere: string[] = [];
    for (const { id, lease } of marked.endpoints) {
      const own = workers.get(id);
      if (own !== undefined && own.worker.lease === lease) own.worker.marked(marked.to);
      else if (lease !== null) elsewhere.push(id);
    }
    if (marked.endpoints.length > elsewhere.length) claiming.wake();
    await Promise.all(elsewhere.slice(0, toldAtOnce).map((id) => processes.webhook(id)));
    return marked.more ? 0 : pause();
  });

  const claiming = repeat('Taking up webhooks', logger, async () => {
    const room = Math.min(maxWorkers - workers.size, claimedAtOnce);
    if (room <= 0 || isStopping) return schedule.pollMs;
    const claimed = await store.claim(room, schedule.leaseMs);
    for (const { work, backlogs } of claimed) begin(new Worker({ ...options, work, backlogs, ...places }));
    return claimed.length === room ? 0 : pause();
  });

  const renewing = repeat('Keeping webhooks', logger, async () => {
    const asked = performance.now();
    const before = [...workers.values()].map(({ worker }) => worker);
    if (before.length > 0) {
      const kept = new Map((await store.renew(before, schedule.leaseMs)).map((work) => [work.lease, work]));
      for (const worker of before) {
        const work = kept.get(worker.lease);
        if (work === undefined) worker.lost();
        else worker.renewed(work, asked);
      }
    }
    return schedule.renewMs;
  });

  const places = {
    takePlace() {
      if (free === 0) return false;
      free -= 1;
      return true;
    },
    freePlace() {
      free += 1;
      // Who has found none is waiting for one.
      if (free === 1) for (const { worker } of workers.values()) worker.wake();
    },
    isCrowded: () => workers.size >= maxWorkers,
  };

  function begin(worker: Worker): void {
    const before = workers.get(worker.id);
    // It was changed, and taken up anew before the old one had ended.
    before?.worker.lost();
    working.inc();
    const ended = (async () => {
      await before?.ended;
      try {
        await worker.run();
      } catch (error) {
        const level = isTransient(error) ? 'warn' : 'error';
        logger[level]({ err: error, endpoint: worker.id }, 'A webhook is left alone for a moment: its work has failed');
      } finally {
        working.dec();
        if (workers.get(worker.id)?.worker === worker) workers.delete(worker.id);
        claiming.wake();
      }
    })();
    workers.set(worker.id, { worker, ended });
  }

  let timer: NodeJS.Timeout | undefined;
  return {
    grown() {
      if (!mayHaveSome) return;
      timer ??= setTimeout(() => {
        timer = undefined;
        marking.wake();
      }, markPauseMs);
    },

    heard(endpointId) {
      heardOf += 1;
      mayHaveSome = true;
      marking.wake();
      if (workers.has(endpointId)) renewing.wake();
      claiming.wake();
    },

    async stop() {
      isStopping = true;
      clearTimeout(timer);
      await Promise.all([marking.stop(), claiming.stop()]);
      const all = [...workers.values()];
      for (const { worker } of all) worker.stop();
      await waitAtMost(drainMs, Promise.all(all.map(({ ended }) => ended)));
      for (const { worker } of all) worker.breakOff();
      await Promise.all(all.map(({ ended }) => ended));
      await renewing.stop();
    },
  };
}
