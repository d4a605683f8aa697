import { groups, topics } from '#gen/events.ts';
import { BoundedMap } from '#lib/bounded-map.ts';
import type { Bus } from '#lib/bus/bus.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import type { Store } from './store.ts';

/** How much there is to do for a channel, and how soon that will be done. */
export interface Load {
  /** Deliveries that wait for the network, as far as they wait for all of it and not only for what it does with one recipient. */
  backlog: number;
  /** Deliveries a second that the network has taken lately, while others waited; 0 if it has taken none, or if none waited. */
  drainRate: number;
  /** Milliseconds that a delivery would wait which came now. */
  wait: number;
}

/** What has happened on a channel, in all processes, up to a moment. Counters only grow. */
export interface Sample {
  /** Milliseconds, by this process's own clock. */
  at: number;
  /** Deliveries that the network has taken. */
  taken: number;
  /** Deliveries fresh from the bus that were done with at the first attempt, and those that had to wait after it, or behind others. */
  prompt: number;
  held: number;
  /** Deliveries whose events are not acknowledged, and those that are parked. */
  onBus: number;
  parked: number;
}

/** Older samples say nothing about now. */
const memoryMs = 10_000;
/** Deliveries must have waited for at least this long before the drain rate is computed. */
const minSpanMs = 2_000;
/** The last deliveries from the bus, within this time, show whether the network holds up everybody. */
const verdictSpanMs = 5_000;
const minHeld = 5;
/** Lanes remembered for each channel. The oldest is forgotten first, and may then be counted twice within 5 s. */
const maxCountedLanes = 10_000;
/** A smaller backlog is done soon, and says nothing about the speed of the network. */
const minBacklog = 10;

export const noLoad: Load = { backlog: 0, drainRate: 0, wait: 0 };

/**
 * What samples, oldest first, say of a channel's load.
 *
 * Deliveries that are parked because a network sends one recipient away wait for nobody else, and nobody waits for them. They count
 * only while most deliveries that are fresh from the bus have to wait, too: then it is the network as a whole that holds them up. How many
 * it takes is known only while some wait all the time; if it takes none, the wait is at least as long as it has been so.
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

/** What a process has counted since it last said so. */
type Count = Pick<Sample, 'taken' | 'prompt' | 'held'>;

export interface Loads {
  /** Counts what has happened on a channel. */
  count(channel: string, what: keyof Count, deliveries?: number): void;
  /**
   * Counts a lane in which deliveries came that have to wait behind others, without an attempt of their own: as one that was held, however
   * many come, and no more often than every 5 s. So a recipient who is sent away doesn't count for more than that, however much is sent to
   * them; and where nearly all deliveries come in such lanes, it is seen that the network holds up everybody.
   */
  countBehind(channel: string, lane: string): void;
  /** The load of each channel now. What can't be found out counts as none. */
  now(): Promise<Map<string, Load>>;
  stop(): Promise<void>;
}

/** Asked more often than that, the last answer is given again. */
const refreshEveryMs = 900;

/** Watches the load of channels, as often as somebody asks for it. Processes add up what they count, each second in which there is any. */
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
  /** When a lane was last counted, in milliseconds by this process's own clock. */
  const countedLanes = new Map(channels.map((channel) => [channel, new BoundedMap<string, number>(maxCountedLanes)]));
  let refreshedAt = -Infinity;
  let refreshing: Promise<void> | undefined;

  /** Adds what has been counted here to what all have. @returns the sums */
  async function addUp(): Promise<Awaited<ReturnType<Store['addCounts']>>> {
    const counted = channels.map((channel) => ({ channel, ...counts.get(channel)! }));
    const sums = await store.addCounts(counted);
    for (const { channel, ...added } of counted) {
      // Not set to 0: more may have been counted meanwhile.
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

  // One at a time, so that counts that are being added aren't added twice.
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
