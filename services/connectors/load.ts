import { groups, topics } from '#gen/events.ts';
import { BoundedMap } from '#lib/bounded-map.ts';
import type { Bus } from '#lib/bus/bus.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import type { Store } from './store.ts';

/** The backlog of a channel, and how fast it shrinks. */
export interface Load {
  /** Deliveries that wait for the network as a whole, not just because of one recipient. */
  backlog: number;
  /** Deliveries per second that the network has accepted recently while others waited; 0 if it has accepted none, or if none waited. */
  drainRate: number;
  /** The expected wait of a new delivery, in milliseconds. */
  wait: number;
}

/** The counters of a channel over all processes at one moment. Counters only grow. */
export interface Sample {
  /** Milliseconds, by this process's own clock. */
  at: number;
  /** Deliveries that the network has taken. */
  taken: number;
  /** Deliveries from the bus that ended at the first attempt (`prompt`), and those that had to wait after it or behind others (`held`). */
  prompt: number;
  held: number;
  /** Deliveries whose events are not acknowledged (`onBus`), and parked ones. */
  onBus: number;
  parked: number;
}

/** Older samples say nothing about now. */
const memoryMs = 10_000;
/** Deliveries must have waited for at least this long before the drain rate is computed. */
const minSpanMs = 2_000;
/** The deliveries from the bus in this time show whether the network as a whole is slow. */
const verdictSpanMs = 5_000;
const minHeld = 5;
/** Maximum number of lanes remembered per channel. One that is forgotten may be counted twice within 5 s. */
const maxCountedLanes = 10_000;
/** A smaller backlog says nothing about the speed of the network. */
const minBacklog = 10;

export const noLoad: Load = { backlog: 0, drainRate: 0, wait: 0 };

/**
 * Computes a channel's load from samples, oldest first.
 *
 * Deliveries that are parked because the network throttles one recipient don't wait for each other's recipients, so they only count while
 * most deliveries from the bus have to wait, too: then the network as a whole is slow. The drain rate is only known while some deliveries
 * wait all the time; if the network accepts none, the wait is at least as long as that has lasted.
 */
export function loadOf(samples: readonly Sample[]): Load {
  const last = samples.at(-1);
  if (last === undefined) return noLoad;
  const isNetworkHeldUp = isHeldUp(samples, last);
  const backlogOf = ({ onBus, parked }: Sample) => onBus + (isNetworkHeldUp ? parked : 0);
  const backlog = backlogOf(last);
  const idle = samples.findLastIndex((sample) => backlogOf(sample) === 0);
  const first = samples[idle + 1];
  if (first === undefined || backlog < minBacklog || last.at - first.at < minSpanMs) return { ...noLoad, backlog };
  const span = last.at - first.at;
  const drainRate = ((last.taken - first.taken) / span) * 1_000;
  return { backlog, drainRate, wait: drainRate === 0 ? span : (backlog / drainRate) * 1_000 };
}

function isHeldUp(samples: readonly Sample[], last: Sample): boolean {
  const first = samples.find(({ at }) => at >= last.at - verdictSpanMs)!;
  const held = last.held - first.held;
  return held >= minHeld && held >= last.prompt - first.prompt;
}

/** The counts of a process that are not added to the shared ones yet. */
type Count = Pick<Sample, 'taken' | 'prompt' | 'held'>;

export interface Loads {
  count(channel: string, what: keyof Count, deliveries?: number): void;
  /**
   * Counts a lane with new deliveries that have to wait behind others, without an attempt of their own: as one held delivery, at most once
   * every 5 s, however many come. So a throttled recipient counts little, however much is sent to them; but if nearly all deliveries come
   * in such lanes, the network as a whole is recognised as slow.
   */
  countBehind(channel: string, lane: string): void;
  /** The load of each channel now; none where it is unknown. */
  now(): Promise<Map<string, Load>>;
  stop(): Promise<void>;
}

/** The loads are computed at most this often. */
const refreshEveryMs = 900;

/** Computes the load of channels on demand. Every second, each process adds its counts to the shared ones, if there are any. */
export function watchLoads({
  channels,
  store,
  lag,
  log,
}: {
  channels: readonly string[];
  store: Pick<Store, 'addCounts'>;
  lag: Bus['lag'];
  log: Logger;
}): Loads {
  const counts = new Map(channels.map((channel) => [channel, { taken: 0, prompt: 0, held: 0 }]));
  const samples = new Map<string, Sample[]>(channels.map((channel) => [channel, []]));
  /** When a lane was last counted, by performance.now(). */
  const countedLanes = new Map(channels.map((channel) => [channel, new BoundedMap<string, number>(maxCountedLanes)]));
  let refreshedAt = -Infinity;
  let refreshing: Promise<void> | undefined;

  /** Adds this process's counts to the shared ones. @returns the sums */
  async function addUp(): Promise<Awaited<ReturnType<Store['addCounts']>>> {
    const counted = channels.map((channel) => ({ channel, ...counts.get(channel)! }));
    const sums = await store.addCounts(counted);
    for (const { channel, ...added } of counted) {
      // Subtracted, not set to 0: more may have been counted meanwhile.
      const count = counts.get(channel)!;
      for (const what of ['taken', 'prompt', 'held'] as const) count[what] -= added[what];
    }
    return sums;
  }

  async function refresh(): Promise<void> {
    const [sums, lags] = await Promise.all([
      adding(),
      Promise.all(channels.map((channel) => lag(topics.outgoing(channel), groups.connector(channel)))),
    ]);
    const at = performance.now();
    for (const [index, channel] of channels.entries()) {
      const onBus = lags[index]!.reduce((sum, { events }) => sum + events, 0);
      const known = samples.get(channel)!;
      known.push({ at, onBus, ...sums.get(channel)! });
      while (known[0]!.at < at - memoryMs) known.shift();
    }
    refreshedAt = at;
  }

  // One at a time, so that no count is added twice.
  let running: ReturnType<typeof addUp> | undefined;
  const adding = () => (running ??= addUp().finally(() => (running = undefined)));
  const sharing = repeat('The sums of what channels have done', log, async () => {
    const isCounted = [...counts.values()].some(({ taken, prompt, held }) => taken + prompt + held > 0);
    if (isCounted && performance.now() - refreshedAt > refreshEveryMs) await adding();
    return refreshEveryMs;
  });

  return {
    count(channel, what, deliveries = 1) {
      const count = counts.get(channel);
      if (count !== undefined) count[what] += deliveries;
    },
    countBehind(channel, lane) {
      const lanes = countedLanes.get(channel);
      const now = performance.now();
      if (lanes === undefined || now < (lanes.get(lane) ?? -Infinity) + verdictSpanMs) return;
      lanes.set(lane, now);
      this.count(channel, 'held');
    },
    async now() {
      if (performance.now() - refreshedAt > refreshEveryMs) {
        refreshing ??= refresh().finally(() => (refreshing = undefined));
        await refreshing.catch(() => samples.forEach((known) => known.splice(0)));
      }
      return new Map(channels.map((channel) => [channel, loadOf(samples.get(channel)!)]));
    },
    stop: sharing.stop,
  };
}
