import { setTimeout as sleep } from 'node:timers/promises';
import { BoundedMap } from '#lib/bounded-map.ts';
import { hubTime } from '#lib/clock.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, sweep } from '#lib/loop.ts';
import type { DeliveryToMake, Receipt } from '../connector.ts';
import {
  emptyProfile,
  isOutOfOrder,
  isRefused,
  keepsEffects,
  receiptsOf,
  timeWithin,
  treatmentOf,
  type Profile,
  type Random,
  type Treatment,
} from './profile.ts';
import type { SimulationStore, TakeRequest } from './store.ts';

/** The servers of a simulated network, as a connector sees them. */
export interface Provider {
  /**
   * Asks the network to accept a message, which takes effect once for each idempotency key. `effect` is called, and
   * awaited, if this request is the one that does.
   *
   * @returns `taken` if the network reports later how the delivery ended
   * @throws HubError, as `deliver` of a connector does
   */
  take(delivery: DeliveryToMake, request: ProviderRequest, effect: () => Promise<void>): Promise<'taken' | void>;
  /** Makes the network report to `listener`, repeatedly until it doesn't throw; undefined ends that. */
  reportTo(listener: ((receipts: readonly Receipt[]) => Promise<void>) | undefined): void;
}

export interface ProviderRequest {
  idempotencyKey: string;
  /** The round of the delivery; 0 if left out. A network that has reported to an earlier round reports again. */
  replay?: number;
  signal: AbortSignal;
}

/** The simulated networks of a process. */
export interface Simulation {
  provider(channel: string): Provider;
  /** The network's current profile, shared by all processes. */
  profileOf(channel: string): Promise<Profile>;
  /** Changes a network's profile: at once in this process, within a second in the others. */
  setProfile(channel: string, profile: Profile): Promise<void>;
  /** Resets a network to its configured profile, which is returned. */
  resetProfile(channel: string): Promise<Profile>;
  stop(): Promise<void>;
}

export interface SimulationOptions {
  networks: readonly { name: string; title: string }[];
  /** The configured profiles, by channel, for networks whose profile no administrator has set. */
  configured: ReadonlyMap<string, Profile>;
  store: SimulationStore;
  log: Logger;
  random?: Random;
}

/** How many idempotency keys a network without a store remembers. */
const maxRememberedKeys = 10_000;
const loadEveryMs = 500;
/** Longer than any caller waits for an answer. */
const maxSilenceMs = 600_000;
const receiptsEvery = 50;
const receiptsAtOnce = 200;
/** A receipt that a process has claimed and not settled is sent again after this. */
const receiptLeaseMs = 5_000;
const kept = 7 * 86_400_000;
const sweepSizes = { batchSize: 1_000, everyMs: 60_000, pauseMs: 100 };

/** A provider that accepts everything at once and remembers only the last keys. */
export function instantProvider(): Provider {
  const takes = memory();
  return {
    async take(_delivery, { idempotencyKey }, effect) {
      if (takes(idempotencyKey)) await effect();
    },
    reportTo() {},
  };
}

/** Starts to simulate networks. Returns once their profiles are loaded, or loading them has failed. */
export async function openSimulation(options: SimulationOptions): Promise<Simulation> {
  const { networks, configured, store, log, random = Math.random } = options;
  let profiles: ReadonlyMap<string, Profile> | undefined;
  let owesReceipts = false;
  const listeners = new Map<string, (receipts: readonly Receipt[]) => Promise<void>>();
  const standard = (channel: string) => configured.get(channel) ?? emptyProfile;

  let begun = 0;
  let known = 0;
  async function load(): Promise<void> {
    const number = (begun += 1);
    const loaded = await store.load();
    // A load that began earlier may miss what an administrator has set meanwhile.
    if (number < known) return;
    known = number;
    profiles = new Map(networks.map(({ name }) => [name, loaded.profiles.get(name) ?? standard(name)]));
    owesReceipts = loaded.owesReceipts || [...profiles.values()].some(({ receipts }) => receipts !== null);
  }
  await load().catch((error: unknown) => log.warn({ err: error }, 'Profiles of networks can not be read yet'));

  const loading = repeat('Reading the profiles of networks', log, async () => {
    await load();
    return loadEveryMs;
  });
  const reporting = repeat('Reports of simulated networks', log, async () => {
    if (!owesReceipts) return loadEveryMs;
    const now = hubTime();
    const able = [...listeners.keys()].filter((channel) => !isOutOfOrder(profiles!.get(channel)!, now));
    const due = await store.dueReceipts(able, receiptsAtOnce, receiptLeaseMs);
    const outcomes = await Promise.allSettled(
      [...Map.groupBy(due, ({ channel }) => channel)].map(async ([channel, some]) => {
        const listener = listeners.get(channel);
        // The connector has stopped meanwhile: the lease expires, and another process gets the receipt.
        if (listener === undefined) return;
        await listener(some);
        await store.settleReceipts(some.map(({ id }) => id));
      }),
    );
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    return due.length === receiptsAtOnce ? 0 : receiptsEvery;
  });
  const sweeping = sweep('Sweeping away what simulated networks have kept', log, sweepSizes, (batchSize) =>
    store.sweep(new Date(hubTime() - kept), batchSize),
  );

  function provider(channel: string): Provider {
    const { title } = networks.find(({ name }) => name === channel)!;
    const fails = (reason: string, message: string, retryAfter?: number) =>
      new HubError('UNAVAILABLE', reason, `${title} ${message}`, { retryAfter });
    const remembers = memory();
    const count = gathered(async (limits: readonly number[]) => {
      const { within, wait } = await store.count(channel, limits.length, Math.min(...limits));
      return limits.map((_, index) => (index < within ? undefined : wait));
    });
    const keep = gathered((requests: readonly TakeRequest[]) => store.take(channel, requests));

    const throttled = (wait: number) => fails('TOO_MANY_REQUESTS', 'says that there are too many requests', wait);
    const down = () => fails('NETWORK_DOWN', 'is out of order');
    const refusals: Record<Treatment, (signal: AbortSignal) => Promise<HubError>> = {
      throttled: async () => throttled(1),
      out_of_order: async () => down(),
      async silent(signal) {
        await pause(maxSilenceMs, signal);
        return fails('NETWORK_ERROR', 'failed for the moment');
      },
    };

    /** @returns whether this request takes effect, and whether reports follow */
    async function takeOnce(
      profile: Profile,
      delivery: DeliveryToMake,
      request: { idempotencyKey: string; replay: number },
    ) {
      const { idempotencyKey } = request;
      const refused = isRefused(profile, idempotencyKey);
      const refusal = () => new HubError('FAILED_PRECONDITION', 'REFUSED_BY_NETWORK', `${title} refuses the message`);
      if (!keepsEffects(profile)) {
        if (refused && !remembers.has(idempotencyKey)) throw refusal();
        return { first: remembers(idempotencyKey), reportsLater: false };
      }
      const { messageId, conversationId, seq, recipientId } = delivery;
      const receipts = profile.receipts === null ? null : receiptsOf(profile.receipts, random);
      const answer = await keep({ ...request, messageId, conversationId, seq, recipientId, refused, receipts });
      if (answer !== undefined) return answer;
      throw refused ? refusal() : fails('BUSY', 'is busy with this very message');
    }

    return {
      async take(delivery, { idempotencyKey, replay = 0, signal }, effect) {
        const profile = profiles?.get(channel);
        if (profile === undefined) throw fails('NETWORK_UNKNOWN', 'can not be reached yet');
        if (profile === emptyProfile) {
          if (remembers(idempotencyKey)) await effect();
          return undefined;
        }
        if (isOutOfOrder(profile, hubTime())) throw down();
        const treatment = treatmentOf(profile, delivery.recipientId);
        if (treatment !== undefined) throw await refusals[treatment](signal);
        const wait = profile.rateLimit === 0 ? undefined : await count(profile.rateLimit);
        if (wait !== undefined) throw throttled(wait);
        // The effect comes in the middle of the latency: a caller that goes meanwhile can't know whether there was one.
        const half = timeWithin(profile.latency, random) / 2;
        await pause(half, signal);
        if (random() < profile.transientErrors) throw fails('NETWORK_ERROR', 'failed for the moment');
        const { first, reportsLater } = await takeOnce(profile, delivery, { idempotencyKey, replay });
        if (first) await effect();
        if (reportsLater) owesReceipts = true;
        await pause(half, signal);
        if (random() < profile.lostAnswers) throw fails('ANSWER_LOST', 'did not answer');
        return reportsLater ? 'taken' : undefined;
      },
      reportTo(listener) {
        if (listener === undefined) listeners.delete(channel);
        else listeners.set(channel, listener);
      },
    };
  }

  return {
    provider,
    async profileOf(channel) {
      await load();
      return profiles!.get(channel)!;
    },
    async setProfile(channel, profile) {
      await store.setProfile(channel, profile);
      await load();
    },
    async resetProfile(channel) {
      await store.resetProfile(channel);
      await load();
      return profiles!.get(channel)!;
    },
    async stop() {
      await Promise.all([loading.stop(), reporting.stop(), sweeping.stop()]);
    },
  };
}

interface Memory {
  /** True the first time for each key. */
  (key: string): boolean;
  has(key: string): boolean;
}

/** Remembers the last keys. */
function memory(): Memory {
  const keys = new BoundedMap<string, true>(maxRememberedKeys);
  const isNew = (key: string) => {
    if (keys.has(key)) return false;
    keys.set(key, true);
    return true;
  };
  return Object.assign(isNew, { has: (key: string) => keys.has(key) });
}

const maxBatch = 500;

/** Batches calls: `work` gets all items that came while it was busy, and returns an answer for each, in order. */
function gathered<Item, Answer>(work: (items: readonly Item[]) => Promise<readonly Answer[]>) {
  const waiting: { item: Item; answer: PromiseWithResolvers<Answer> }[] = [];
  let working = false;
  async function run(): Promise<void> {
    working = true;
    while (waiting.length > 0) {
      const some = waiting.splice(0, maxBatch);
      try {
        const answers = await work(some.map(({ item }) => item));
        some.forEach(({ answer }, index) => answer.resolve(answers[index]!));
      } catch (error) {
        for (const { answer } of some) answer.reject(error);
      }
    }
    working = false;
  }
  return (item: Item): Promise<Answer> => {
    const answer = Promise.withResolvers<Answer>();
    waiting.push({ item, answer });
    if (!working) void run();
    return answer.promise;
  };
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  if (milliseconds >= 1) await sleep(milliseconds, undefined, { signal }).catch(() => {});
  if (signal.aborted) throw new HubError('CANCELLED', 'DELIVERY_CANCELLED', 'The delivery was called off');
}
