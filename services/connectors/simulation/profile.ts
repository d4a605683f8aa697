/** How a simulated network behaves. With all zeros it accepts everything at once. Shares are from 0 to 1, times in milliseconds. */
export interface Profile {
  /** Requests per second, from all processes together; 0 for no limit. */
  rateLimit: number;
  latency: Latency;
  /** Share of requests that fail without effect. */
  transientErrors: number;
  /** Share of requests that take effect and whose answer is lost. */
  lostAnswers: number;
  /** Share of deliveries that are refused for good. */
  finalErrors: number;
  outages: readonly Outage[];
  /** Its later reports; null if it delivers a message when it accepts it. */
  receipts: ReceiptProfile | null;
  /** Whether it stores the messages that it has accepted. */
  record: boolean;
  /** Recipients that it treats differently; the first that matches counts. */
  exceptions: readonly Exception[];
}

/** `throttled`: told to come back later; `out_of_order`: told that the network is out of order; `silent`: not answered. */
export type Treatment = 'throttled' | 'out_of_order' | 'silent';

export interface Exception {
  recipientIds: readonly string[];
  treatment: Treatment;
}

/** Half of the times are shorter than `p50`, one in a hundred is longer than `p99`. */
export interface Latency {
  p50: number;
  p99: number;
}

/** Times in milliseconds since the epoch; repeated every `repeat` milliseconds unless that is 0. */
export interface Outage {
  from: number;
  to: number;
  repeat: number;
}

export interface ReceiptProfile {
  delay: Latency;
  failed: number;
  duplicates: number;
  outOfOrder: number;
  late: number;
  /** Milliseconds. */
  lateBy: number;
}

/** A report that a network will send on a message that it has accepted. */
export interface OwedReceipt {
  status: 'sent' | 'delivered' | 'read' | 'failed';
  /** The reason of a failure, for people; otherwise empty. */
  reason: string;
  /** Milliseconds after it was accepted. */
  delay: number;
}

/** A number from 0 to 1, 1 excluded. */
export type Random = () => number;

export const emptyProfile: Profile = {
  rateLimit: 0,
  latency: { p50: 0, p99: 0 },
  transientErrors: 0,
  lostAnswers: 0,
  finalErrors: 0,
  outages: [],
  receipts: null,
  record: false,
  exceptions: [],
};

/** Whether accepted messages must be stored: a network that reports later must know what it has reported. */
export function keepsEffects({ record, receipts }: Profile): boolean {
  return record || receipts !== null;
}

const treatments = new WeakMap<readonly Exception[], ReadonlyMap<string, Treatment>>();

/** How a network treats a recipient, if differently from others. */
export function treatmentOf({ exceptions }: Profile, recipientId: string): Treatment | undefined {
  if (exceptions.length === 0) return undefined;
  let known = treatments.get(exceptions);
  if (known === undefined) {
    const pairs = exceptions.flatMap(({ recipientIds, treatment }) =>
      recipientIds.map((id) => [id.toLowerCase(), treatment] as const),
    );
    known = new Map(pairs.toReversed());
    treatments.set(exceptions, known);
  }
  return known.get(recipientId);
}

export function isOutOfOrder({ outages }: Profile, now: number): boolean {
  return outages.some(({ from, to, repeat }) => {
    if (now < from) return false;
    const since = repeat === 0 ? now - from : (now - from) % repeat;
    return since < to - from;
  });
}

/** Whether a delivery is refused for good; constant for a key while the share stays the same. */
export function isRefused({ finalErrors }: Profile, idempotencyKey: string): boolean {
  return Number.parseInt(idempotencyKey.slice(-8), 16) / 2 ** 32 < finalErrors;
}

/** The 99th percentile of the standard normal distribution. */
const z99 = 2.326;
const maxTimeMs = 600_000;

/** A random time from a log-normal distribution, which fits the latencies of networks. */
export function timeWithin({ p50, p99 }: Latency, random: Random): number {
  const median = Math.max(p50, p99 > 0 ? 1 : 0);
  if (p99 <= median) return median;
  const z = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return Math.min(median * Math.exp((z * Math.log(p99 / median)) / z99), maxTimeMs);
}

/** A network's reports on one message, in order. */
export function receiptsOf(profile: ReceiptProfile, random: Random): OwedReceipt[] {
  const happens = (share: number) => random() < share;
  const delay = timeWithin(profile.delay, random);
  const shift = happens(profile.late) ? profile.lateBy : 0;
  const statuses: OwedReceipt['status'][] = happens(profile.failed)
    ? ['sent', 'failed']
    : ['sent', 'delivered', 'read'];
  if (happens(profile.outOfOrder)) statuses.reverse();
  const receipts = statuses.map((status, index) => ({
    status,
    reason: status === 'failed' ? 'The network could not deliver it' : '',
    delay: Math.round(shift + (delay * (index + 1)) / 2),
  }));
  const again = receipts.filter(() => happens(profile.duplicates));
  return [...receipts, ...again].sort((a, b) => a.delay - b.delay);
}
