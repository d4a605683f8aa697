import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { commands as listenerCommands, SendArgument, SendResult } from './listeners.ts';
import { between, startHub, type Used } from './processes.ts';
import { printProfiles, type Window } from './profile.ts';
import { openRemote } from './remote.ts';
import { hundredths, print, sum, whole } from './report.ts';

/** What it takes to tell clients what happens. */
export interface EventsReport {
  /** Messages between two, each of whom listens: as many as the hub takes, and at a steady rate below that. */
  fastest: EventsRun;
  steady: EventsRun;
  /** The same rate while the events service is stopped and nobody listens. */
  without: EventsRun;
  /** Messages to one member of a group of `groupSize`, all of whom listen, and while nobody does. */
  group: EventsRun;
  unheardGroup: EventsRun;
  /** What many streams that are told nothing are: MiB by which processes are larger, and percent of one core that they take. */
  streams: { memoryMiB: Record<string, number>; idlePercent: Record<string, number> };
  /** Percent of one core that the hub takes without streams. */
  idlePercent: Record<string, number>;
  problems: string[];
}

export interface EventsRun extends SendResult {
  /** Messages a second that were asked for; undefined for as many as the hub takes. */
  rate: number | undefined;
  /** Seconds from the first send until all was delivered and told. */
  seconds: number;
  /** Seconds of CPU, by process, and of the connections that the events service has to PostgreSQL, which are in `postgres`, too. */
  cpu: Record<string, number>;
  connections: number;
  /** Seconds of CPU of those who send and listen. */
  load: number;
}

/** The figures to reach: milliseconds, messages a second, microseconds of CPU, MiB, percent of one core, and cores. */
export const eventsGoals = {
  seenP50: 50,
  seenP99: 500,
  rate: 500,
  messageCpu: 60,
  streamsMemoryMiB: 250,
  streamsIdlePercent: 5,
  groupCores: 0.4,
};

const users = 250;
const writers = 50;
const groupSize = 100;
const groupRate = 100;
const openStreams = 2_000;
/** Seconds. */
const length = { warmUp: 5, fastest: 6, steady: 8, group: 6, idle: 8 };
/** Milliseconds in which memory and caches settle. */
const settleTime = 4_000;
/** Of what the hub takes at most: what it can keep up for long, beside whatever else the machine does. */
const sustainedShare = 0.8;
const prepareLimit = 120_000;
const endLimit = 120_000;
/** Of the connections that the events service has to PostgreSQL. */
const backend = 'connection of events ';
const ofEvents = `application_name like 'events%'`;

export interface EventsOptions {
  folder: string;
  /** Where each process keeps a CPU profile. */
  profile: string | undefined;
  signal: AbortSignal;
}

/** What it takes to tell clients what happens, on the embedded engines with each part of the hub in a process of its own. */
export async function measureEvents({ folder, profile, signal }: EventsOptions): Promise<EventsReport> {
  await using started = new AsyncDisposableStack();
  const env = {
    DATABASE_URL: undefined,
    KAFKA_BROKERS: undefined,
    S3_ENDPOINT: undefined,
    SEED_USERS: String(users),
    BCRYPT_COST: '10',
    RATE_LIMIT: '0',
    ...(profile === undefined ? {} : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profile}` }),
  };
  const hub = await startHub(folder, env, signal);
  started.defer(() => hub.remote.stop());
  const database = new pg.Client({ connectionString: hub.databaseUrl });
  // It is lost where the hub is stopped first.
  database.on('error', () => {});
  await database.connect();
  started.defer(() => database.end());
  const file = path.join(import.meta.dirname, 'listeners.ts');
  const load = openRemote<typeof listenerCommands>(file, 'inherit', signal);
  started.defer(() => load.stop());
  await load.ask('prepare', { url: hub.url, users, writers, group: groupSize }, prepareLimit);

  const processes = async () => {
    const pids = await hub.remote.ask('pids', undefined, 5_000);
    const { rows } = await database.query<{ pid: number }>(`select pid from pg_stat_activity where ${ofEvents}`);
    return { ...pids, ...Object.fromEntries(rows.map(({ pid }) => [`${backend}${pid}`, pid])), load: load.pid };
  };
  const problems: string[] = [];
  const windows: { name: string; window: Window; cpu: Record<string, number> }[] = [];
  const listen = (streams: number, by: number) => load.ask('listen', { streams, by }, prepareLimit);
  const leave = () => load.ask('leave', undefined, prepareLimit);
  const idle = () => between(processes, () => sleep(length.idle * 1_000, undefined, { signal }));
  async function run(name: string, argument: SendArgument): Promise<EventsRun> {
    signal.throwIfAborted();
    const from = microseconds();
    const used = await between(processes, () => load.ask('send', argument, argument.seconds * 1_000 + endLimit));
    windows.push({ name, window: { from, to: microseconds() }, cpu: used.cpu });
    problems.push(...used.result.problems.map((problem) => `${name}: ${problem}`));
    return { ...used.result, ...shares(used), rate: argument.rate };
  }

  // What was compiled and read for the first time doesn't count, neither for memory nor for CPU.
  await listen(writers, writers);
  await run('while it warmed up', { to: 'pairs', seconds: length.warmUp });
  const fastest = await run('as fast as it goes', { to: 'pairs', seconds: length.fastest });
  const most = (sustainedShare * fastest.accepted) / fastest.deliveredSeconds;
  const rate = Math.min(eventsGoals.rate, Math.floor(most));
  const steady = await run(`${rate}/s`, { to: 'pairs', rate, seconds: length.steady });
  await leave();
  await listen(groupSize, groupSize);
  const group = await run('the group', { to: 'group', rate: groupRate, seconds: length.group });
  await leave();
  const unheardGroup = await run('the group, unheard', { to: 'group', rate: groupRate, seconds: length.group });

  await sleep(settleTime, undefined, { signal });
  const quiet = await idle();
  await listen(openStreams, users);
  await sleep(settleTime, undefined, { signal });
  const many = await idle();
  await leave();

  // Last, since all that it has missed stands before the events service then.
  const { events } = await hub.remote.ask('pids', undefined, 5_000);
  process.kill(events!, 'SIGSTOP');
  let without: EventsRun;
  try {
    without = await run('without events', { to: 'pairs', rate, seconds: length.steady });
  } finally {
    process.kill(events!, 'SIGCONT');
  }

  if (profile !== undefined) {
    const pids = await hub.remote.ask('pids', undefined, 5_000);
    const shown = Object.fromEntries(['gateway', 'events', 'message'].map((name) => [name, pids[name]!]));
    // They write their profiles when they end.
    await hub.remote.stop();
    for (const { name, window, cpu } of windows.slice(2, 4)) await printProfiles(profile, shown, window, cpu, name);
  }
  return {
    fastest,
    steady,
    without,
    group,
    unheardGroup,
    streams: {
      memoryMiB: Object.fromEntries(
        ['gateway', 'events'].map((name) => [name, many.memoryMiB[name]! - quiet.memoryMiB[name]!]),
      ),
      idlePercent: idlePercents(many),
    },
    idlePercent: idlePercents(quiet),
    problems,
  };
}

/** Of the clock that profiles have. */
function microseconds(): number {
  return Number(process.hrtime.bigint() / 1_000n);
}

/** What a run took, without what the connections of the events service take twice. */
function shares({ cpu, seconds }: Used<unknown>): Pick<EventsRun, 'seconds' | 'cpu' | 'connections' | 'load'> {
  const { load = 0, ...all } = cpu;
  const isConnection = ([name]: [string, number]) => name.startsWith(backend);
  const connections = Object.entries(all).filter(isConnection);
  return {
    seconds,
    cpu: Object.fromEntries(Object.entries(all).filter((each) => !isConnection(each))),
    connections: connections.reduce((total, [, each]) => total + each, 0),
    load,
  };
}

function idlePercents(used: Used<unknown>): Record<string, number> {
  return Object.fromEntries(Object.entries(shares(used).cpu).map(([name, cpu]) => [name, (100 * cpu) / used.seconds]));
}

/** Microseconds of CPU a message that the events service takes, with its connections to PostgreSQL. */
function ofEventsService({ cpu, connections, accepted }: EventsRun): number {
  return (((cpu['events'] ?? 0) + connections) / accepted) * 1e6;
}

/** Cores that events take, were each second's messages told within a second: in their service, its connections and the gateway. */
function fanOut({ cpu, connections, accepted }: EventsRun): number {
  return (((cpu['events'] ?? 0) + connections + (cpu['gateway'] ?? 0)) / accepted) * groupRate;
}

export function printEvents(report: EventsReport): void {
  const { fastest, steady, without, group, unheardGroup, streams, idlePercent, problems } = report;
  const runs: [string, EventsRun][] = [
    ['as fast as it goes', fastest],
    [`${steady.rate}/s`, steady],
    [`${without.rate}/s, no events`, without],
    [`group of ${groupSize}, ${groupRate}/s`, group],
    ['the same, unheard', unheardGroup],
  ];
  console.log(`\nMessages between two who both listen, and in a group of ${groupSize}\n`);
  print([
    ['', 'accepted/s', 'delivered/s', 'told/s', 'seen p50', 'p95', 'p99', 'max ms', '(sent late p99)'],
    ...runs.map(([name, { accepted, sendingSeconds, deliveredSeconds, seconds, told, seen, lag }]) => [
      name,
      whole(accepted / sendingSeconds),
      whole(accepted / deliveredSeconds),
      whole(told / seconds),
      ...(seen.count === 0 ? ['', '', '', ''] : [seen.p50, seen.p95, seen.p99, seen.max].map(whole)),
      whole(lag.p99),
    ]),
  ]);
  console.log('\nMicroseconds of CPU a message');
  const parts = ['gateway', 'message', 'events', 'postgres'];
  print([
    ['', ...parts, '(of events)', 'hub in all', '(load, % of a core)'],
    ...runs.map(([name, { cpu, connections, accepted, load, seconds }]) => [
      name,
      ...parts.map((part) => whole(((cpu[part] ?? 0) / accepted) * 1e6)),
      whole((connections / accepted) * 1e6),
      whole((sum(cpu) / accepted) * 1e6),
      whole((100 * load) / seconds),
    ]),
  ]);
  console.log(`\n${openStreams.toLocaleString('en')} streams that are told nothing`);
  print([
    ['', 'gateway', 'events', 'postgres', 'hub in all'],
    ['% of a core without them', ...cells(idlePercent)],
    ['% of a core with them', ...cells(streams.idlePercent)],
    ['MiB more', whole(streams.memoryMiB['gateway']!), whole(streams.memoryMiB['events']!), '', ''],
  ]);
  console.log();
  for (const { name, isReached } of eventsJudgements(report)) {
    console.log(`  ${isReached ? 'reached    ' : 'NOT REACHED'} ${name}`);
  }
  for (const problem of new Set(problems)) console.log(`  ${problem}`);
}

function cells(percents: Record<string, number>): string[] {
  const figures = [...['gateway', 'events', 'postgres'].map((name) => percents[name] ?? 0), sum(percents)];
  return figures.map((each) => each.toFixed(1));
}

/** What is to be reached, and whether it is. */
export function eventsJudgements({
  fastest,
  steady,
  without,
  group,
  unheardGroup,
  streams: { memoryMiB, idlePercent },
}: Omit<EventsReport, 'problems' | 'idlePercent'>): { name: string; isReached: boolean }[] {
  const goals = eventsGoals;
  const rate = steady.rate ?? 0;
  const at = `at ${rate}/s`;
  const most = whole(fastest.accepted / fastest.deliveredSeconds);
  const cost = ofEventsService(steady);
  const more = ((sum(steady.cpu) - sum(without.cpu)) / steady.accepted) * 1e6;
  const memory = sum(memoryMiB);
  const idle = (idlePercent['gateway'] ?? 0) + (idlePercent['events'] ?? 0);
  const cores = fanOut(group) - fanOut(unheardGroup);
  return [
    {
      name: `a steady rate of ${rate} messages/s, of ${most} that the hub delivers at most (${goals.rate})`,
      isReached: rate >= goals.rate,
    },
    {
      name: `accepted to seen by a subscriber, ${at}: p50 ${whole(steady.seen.p50)} ms (below ${goals.seenP50})`,
      isReached: steady.seen.p50 < goals.seenP50,
    },
    {
      name: `accepted to seen by a subscriber, ${at}: p99 ${whole(steady.seen.p99)} ms (below ${goals.seenP99})`,
      isReached: steady.seen.p99 < goals.seenP99,
    },
    {
      name: `events cost a message ${whole(cost)} µs of CPU in their service and its connections (at most ${goals.messageCpu}); the hub ${whole(more)} more with them and their streams`,
      isReached: cost <= goals.messageCpu,
    },
    {
      name: `${openStreams.toLocaleString('en')} streams: ${whole(memory)} MiB in the gateway and the events service (at most ${goals.streamsMemoryMiB})`,
      isReached: memory <= goals.streamsMemoryMiB,
    },
    {
      name: `${openStreams.toLocaleString('en')} streams that are told nothing: ${idle.toFixed(1)} % of a core in both (at most ${goals.streamsIdlePercent})`,
      isReached: idle <= goals.streamsIdlePercent,
    },
    {
      name: `a group of ${groupSize} at ${groupRate}/s: ${hundredths(cores)} of a core for its streams (at most ${goals.groupCores})`,
      isReached: cores <= goals.groupCores,
    },
  ];
}
