import { openRandom, type Random } from './random.ts';

/** What can be done to a running system. */
export type FaultKind = (typeof kinds)[number];

export const kinds = [
  /** SIGKILL to one process of the hub. */
  'kill',
  /** SIGKILL to two at once. */
  'kill two',
  /** One process of the hub is stopped in order, and started again. */
  'restart',
  /** SIGSTOP to one process of the hub, and SIGCONT later. */
  'freeze',
  /** SIGSTOP to two at once. */
  'freeze two',
  /** SIGKILL to the gateway when messages have been accepted whose senders have not been told yet. */
  'kill before the answer',
  /** SIGKILL to an engine, which is away for a while. */
  'crash',
  /** Connections to an engine, of streams of events or to webhooks are closed, and refused. */
  'cut',
  /** Such connections are slow and narrow. */
  'slow',
  /** Such connections are reset at the first byte. */
  'reset',
  /** Such connections stay, and nothing comes through. */
  'silence',
  /** The disk under an engine is full. */
  'full disk',
] as const;

/** One fault of a plan. */
export interface Fault {
  /** Counted from 1. */
  number: number;
  kind: FaultKind;
  /** Processes, or one engine. */
  targets: string[];
  /** Milliseconds between the recovery from the one before and this one. */
  pause: number;
  /** Milliseconds until it is healed. */
  lasts: number;
}

/** What there is to be broken. */
export interface Targets {
  /** Processes of the hub, replicas included. */
  processes: readonly string[];
  /** Those that can be killed and started again. */
  engines: readonly string[];
  /** Engines with a proxy in front of them; `streams` and `webhooks`, which are on the way out. */
  links: readonly string[];
  /** Engines, or `files`, whose disk can be filled. */
  disks: readonly string[];
}

/** How long things last; also how much of everything there is. */
export type Scale = 'tiny' | 'short' | 'long';

type Range = readonly [least: number, most: number];

/** Milliseconds. Long enough in the short form, too, that leases and sessions (5 to 8 s) run out now and then. */
const lengths: Record<Scale, { freeze: Range; away: Range; pause: Range }> = {
  tiny: { freeze: [3_000, 6_000], away: [1_000, 4_000], pause: [200, 800] },
  short: { freeze: [4_000, 11_000], away: [1_000, 7_000], pause: [200, 2_000] },
  long: { freeze: [20_000, 40_000], away: [2_000, 30_000], pause: [500, 5_000] },
};

/**
 * Makes a plan: the same for the same seed, targets and scale. Each kind comes as often as the others, give or take one, and
 * within a kind each target does.
 */
export function makePlan(options: {
  seed: number;
  count: number;
  scale: Scale;
  targets: Targets;
  /** All by default. */
  only?: readonly FaultKind[];
}): Fault[] {
  const { seed, count, scale, targets, only = kinds } = options;
  const random = openRandom(seed);
  const choices = choicesOf(targets);
  const possible = only.filter((kind) => choices[kind].length > 0);
  const nextKind = deck(random, possible);
  const nextTargets = new Map(possible.map((kind) => [kind, deck(random, choices[kind])]));
  const { freeze, away, pause } = lengths[scale];
  return Array.from({ length: count }, (_, index): Fault => {
    const kind = nextKind();
    return {
      number: index + 1,
      kind,
      targets: nextTargets.get(kind)!(),
      pause: random.between(...pause),
      lasts: isOver(kind) ? 0 : random.between(...(kind.startsWith('freeze') ? freeze : away)),
    };
  });
}

/** What is killed is started again by the hub itself: there is nothing to heal. */
function isOver(kind: FaultKind): boolean {
  return kind.startsWith('kill') || kind === 'restart';
}

function choicesOf({ processes, engines, links, disks }: Targets): Record<FaultKind, string[][]> {
  const one = (names: readonly string[]) => names.map((name) => [name]);
  const pairs = processes.flatMap((first, index) => processes.slice(index + 1).map((second) => [first, second]));
  return {
    kill: one(processes),
    'kill two': pairs,
    restart: one(processes),
    freeze: one(processes),
    'freeze two': pairs,
    'kill before the answer': [['gateway']],
    crash: one(engines),
    cut: one(links),
    slow: one(links),
    reset: one(links),
    silence: one(links),
    'full disk': one(disks),
  };
}

/** Deals all cards in a random order, then again in another one. */
function deck<Card>(random: Random, cards: readonly Card[]): () => Card {
  let left: Card[] = [];
  return () => {
    if (left.length === 0) left = random.shuffled(cards);
    return left.pop()!;
  };
}

/** A fault as people read it. */
export function describe({ number, kind, targets, lasts }: Fault): string {
  return `${number}. ${kind}: ${targets.join(' and ')}${lasts === 0 ? '' : ` for ${(lasts / 1_000).toFixed(1)} s`}`;
}
