import { setTimeout as sleep } from 'node:timers/promises';
import type { Breach } from './breach.ts';
import { startChatters, startModel, type ChatObservations } from './chatters.ts';
import { checkChats } from './checker-chats.ts';
import { checkEvents } from './checker-events.ts';
import { checkLog } from './checker-log.ts';
import { checkTools } from './checker-tools.ts';
import { check } from './checker.ts';
import { startClients, type Clients } from './clients.ts';
import { startFollowers } from './followers.ts';
import { inject } from './inject.ts';
import { startInvokers, type Invokers, type ToolObservations } from './invokers.ts';
import { startMovers } from './movers.ts';
import { eventFigures, observeEvents, type EventFigures, type EventObservations } from './observe-events.ts';
import { connect, observe } from './observe.ts';
import type { Ledger, Observations } from './observations.ts';
import { describe, makePlan, type Fault, type FaultKind, type Scale } from './plan.ts';
import { hasEnded, isQuiet, patience, recover, webhooksLimit, webhooksRest, whatIsOpen } from './quiet.ts';
import { startReceivers } from './receivers.ts';
import { storiesOf } from './story.ts';
import { strangers, writeToStrangers, type StrangersReport } from './strangers.ts';
import { startSystem, type EngineKind, type System } from './system.ts';
import { startReceiver } from '../webhook-receiver.ts';

export interface RunOptions {
  engines: EngineKind;
  seed: number;
  faults: number;
  messages: number;
  scale: Scale;
  /** All kinds by default. */
  only?: readonly FaultKind[] | undefined;
  replicas: number;
  /** An empty folder that others may enter: everything is in there, and stays. */
  folder: string;
  /** Where the logs go if something is wrong. */
  keepIn: string;
  disks: boolean;
  signal: AbortSignal;
  tell: (line: string) => void;
}

/** How a fault went. Milliseconds. */
export interface Faulted extends Fault {
  /** When it began, since the epoch. */
  at: number;
  healedAt: number;
  /** From the heal until a message was accepted again. */
  acceptingAfter: number;
  /** From the heal until everything that was accepted before it had ended. */
  endedAfter: number;
}

export interface RunReport {
  engines: EngineKind;
  seed: number;
  replicas: number;
  seconds: number;
  leftOut: string[];
  faults: Faulted[];
  sent: number;
  accepted: number;
  refused: number;
  /** Clients gave up on these after a try without an answer. */
  abandoned: number;
  delivered: number;
  failed: number;
  effects: number;
  files: number;
  /** Files of which a store lost chunks, so that they had to be sent again. */
  filesSentAgain: number;
  /** Of the tool: answered with 200, seen by it, in the usage, and there as failed. */
  invocations: { answered: number; seen: number; counted: number; cutOff: number };
  /** With the assistant: messages written, accepted and answered, tries that were told that the model has failed, and tasks. */
  chats: { written: number; accepted: number; answered: number; modelFailed: number; tasks: number };
  events: EventFigures;
  /** How often each status was answered; 0 is no answer. */
  statuses: Record<string, number>;
  /** Messages that were accepted though the first answer never arrived: told so when they were sent again. */
  acceptedUnheard: number;
  /** How often a network was asked again for what it had. */
  repeated: number;
  /** From a fault to the delivery of what was open then or came during it: the most, by kind. */
  longestDelivery: Record<string, number>;
  /** What went to people beside those whom a network didn't serve. */
  strangers: StrangersReport;
  /** From a SIGKILL until another process of the service had ended what was open: the most. Null without replicas. */
  takeover: number | null;
  breaches: Breach[];
}

/** Milliseconds. */
const healLimit = 30_000;
const takeoverLimit = 10_000;
const lookEvery = 50;
const uploadLifetime = 60_000;
/** Short, so that followers notice within a few seconds that a stream is dead. */
const heartbeat = 2_000;
/** What recovering from a fault takes, to choose the rate by. */
const usualRecovery = 2_500;
const users = 10;
/** How the networks behave, and that they keep what they took: that is what tells effects from requests. */
const networks = {
  whatsapp: {
    record: true,
    latency: { p50_ms: 2, p99_ms: 40 },
    transient_errors: 0.01,
    lost_answers: 0.01,
    final_errors: 0.002,
  },
  instagram: {
    record: true,
    receipts: {
      delay: { p50_ms: 50, p99_ms: 800 },
      duplicates: 0.05,
      out_of_order: 0.05,
      late: 0.01,
      late_ms: 2_000,
    },
  },
};
const channels = Object.keys(networks).toSorted();
const isFinal = (error: string) => error.includes('refuses the message');
/** Messages of so many milliseconds after a fault may still be concerned. */
const aftermath = 5_000;
const mostStories = 5;
const diskSize = 2_048;

/** Starts a system, lets clients write, breaks it as planned, and checks that every promise was kept. */
export async function run(options: RunOptions): Promise<RunReport> {
  const { engines, seed, replicas, signal, tell, folder } = options;
  const begun = Date.now();
  await using started = new AsyncDisposableStack();
  const model = await startModel(seed);
  started.defer(() => model.stop());
  const receiver = await startReceiver();
  started.defer(() => receiver.stop());
  const system = await startSystem({
    engines,
    receiverPort: Number(new URL(receiver.url).port),
    folder,
    replicas,
    disks: options.disks,
    diskSize,
    signal,
    tell,
    env: {
      SEED_USERS: String(users + strangers),
      BCRYPT_COST: '10',
      TOKEN_TTL: '24h',
      RATE_LIMIT: '0',
      // Longer than any outage: then nothing may fail.
      DELIVERY_DEADLINE: '12h',
      UPLOAD_TTL: `${uploadLifetime}ms`,
      MAX_OPEN_UPLOADS: '1000',
      ADMIN_USERS: 'user1',
      TOOL_TIMEOUT: '3s',
      ASSISTANT_BASE_URL: model.url,
      ASSISTANT_MODEL: 'unsteady',
      ASSISTANT_TIMEOUT: '2s',
      EVENT_HEARTBEAT: `${heartbeat}ms`,
      EVENT_STREAM_AGE: '30s',
      WEBHOOK_ALLOWED_HOSTS: '127.0.0.1',
      PROVIDER_PROFILES: JSON.stringify(networks),
    },
  });
  let hasReport = false;
  started.defer(async () => {
    if (!hasReport && !signal.aborted) await system.keepLogs(options.keepIn).catch(() => {});
    await system.stop();
  });
  const { targets, leftOut } = system;
  for (const reason of leftOut) tell(`Left out: ${reason}`);
  const { faults: count, scale, only } = options;
  const plan = makePlan({ seed, count, scale, targets, ...(only === undefined ? {} : { only }) });
  tell(`Ready after ${((Date.now() - begun) / 1_000).toFixed(1)} s: ${targets.processes.join(', ')}`);

  const length = plan.reduce((sum, { pause, lasts }) => sum + pause + lasts + usualRecovery, 0);
  const rate = Math.max(5, (options.messages / length) * 1_000);
  const over = new AbortController();
  started.defer(() => over.abort(new Error('the run is over')));
  const clientSignal = AbortSignal.any([signal, over.signal]);
  const clients = await startClients({ url: system.url, seed, users, rate, channels, signal: clientSignal });
  const { tokens, administrator } = clients;
  const invokers = await startInvokers({ url: system.url, tokens, administrator, signal: clientSignal });
  started.defer(() => invokers.stop().catch(() => {}));
  const chatters = startChatters({ url: system.url, model, seed, tokens, signal: clientSignal });
  const { conversations } = clients;
  const urls = [system.url, system.breakableUrl];
  const followers = startFollowers({ urls, tokens, conversations, heartbeat, signal: clientSignal });
  const { url, receiverPort: port } = system;
  const receivers = await startReceivers({ url, port, receiver, seed, tokens, conversations, signal: clientSignal });
  const movers = await startMovers(clients, channels[0]!, clientSignal);
  const allFailed = [clients, invokers, chatters, followers, movers].map(({ failed }) => failed);
  const breaches: Breach[] = [];
  const faulted: Faulted[] = [];
  tell(`Writing to ${strangers} people, some of whom a network doesn't serve`);
  const profile = networks.whatsapp;
  const beside = await writeToStrangers({ system, clients, channel: 'whatsapp', profile, scale, signal, breaches });
  for (const fault of plan) {
    await sleep(fault.pause, undefined, { signal });
    faulted.push(await goThrough(fault, { system, clients, replicas, signal, tell, breaches }));
  }

  receivers.recover();
  clients.hurry();
  while (clients.accepted() < options.messages) {
    await Promise.race([sleep(lookEvery, undefined, { signal }), ...allFailed]);
  }
  await Promise.all([clients.stop(), movers.stop(), invokers.stop(), chatters.stop()]);
  const stopped = Date.now();
  const othersEnded = await recover(system, stopped, signal, isQuiet(system, ['webhooks']));
  await recover(system, stopped, signal, webhooksRest(stopped), webhooksLimit);
  const allEnded = Math.max(othersEnded, await recover(system, Date.now(), signal, isQuiet(system)));
  if (allEnded > healLimit) {
    await using database = await connect(system.databaseUrl);
    const open = (await whatIsOpen(database.client, system)).join(', ') || 'nothing any more';
    breaches.push(slow(`not quiet after ${seconds(allEnded)} at the end; under way: ${open}`));
  }

  tell(`Looking at ${clients.journal.messages.length} messages`);
  const observations = await observe(system, clients, new Date(begun));
  // By now all that is on the bus is in the log, but for webhooks it may just have come there.
  await recover(system, Date.now(), signal, isQuiet(system));
  const events = await observeEvents({ system, clients, followers, receivers, movers });
  const tools = await observeTools(system, invokers);
  const chats = await chatters.observe();
  breaches.push(...checkTools(tools), ...checkChats(chats));
  breaches.push(...checkEvents(events), ...checkLog(events, observations));
  breaches.push(...check(observations, { mayFail: isFinal, uploadLifetime: uploadLifetime * 1.25 + 15_000 }));
  if (breaches.length > 0) {
    await system.keepLogs(options.keepIn);
    await tellStories(breaches, observations, events, system, tell);
    tell(`Logs are in ${options.keepIn}`);
  }
  hasReport = true;
  return reportOf(
    { engines, seed, replicas, leftOut },
    { begun, faulted, clients, observations, events, tools, chats, strangers: beside, breaches },
  );
}

interface Course {
  system: System;
  clients: Clients;
  replicas: number;
  signal: AbortSignal;
  tell: (line: string) => void;
  breaches: Breach[];
}

async function goThrough(fault: Fault, course: Course): Promise<Faulted> {
  const { system, clients, replicas, signal, tell, breaches } = course;
  const at = Date.now();
  tell(describe(fault));
  await inject(fault, { system, clients, signal });
  const healedAt = Date.now();
  const before = clients.accepted();
  const accepting = (async () => {
    while (clients.accepted() === before && Date.now() < healedAt + patience) {
      await Promise.race([sleep(lookEvery, undefined, { signal }), clients.failed]);
    }
    return Date.now() - healedAt;
  })();
  const [acceptingAfter, endedAfter] = await Promise.all([
    accepting,
    recover(system, healedAt, signal, hasEnded(healedAt)),
  ]);
  tell(`   accepting after ${seconds(acceptingAfter)}, all ended after ${seconds(endedAfter)}`);
  if (acceptingAfter > healLimit) breaches.push(slow(`${describe(fault)}: accepting after ${seconds(acceptingAfter)}`));
  if (isTakeover(fault, replicas) && endedAfter > takeoverLimit) {
    breaches.push(slow(`${describe(fault)}: taken over after ${seconds(endedAfter)}`));
  }
  if (endedAfter > healLimit) breaches.push(slow(`${describe(fault)}: all ended after ${seconds(endedAfter)}`));
  return { ...fault, at, healedAt, acceptingAfter, endedAfter };
}

/** Whether others of its kind are there to go on with what a killed process did. */
function isTakeover({ kind, targets }: Fault, replicas: number): boolean {
  return kind === 'kill' && replicas > 1 && targets[0] !== 'gateway';
}

function slow(text: string): Breach {
  return { rule: 'slow', text };
}

async function observeTools(system: System, invokers: Invokers): Promise<ToolObservations> {
  await using database = await connect(system.databaseUrl);
  return await invokers.observe(database.client);
}

async function tellStories(
  breaches: readonly Breach[],
  observations: Observations,
  events: EventObservations,
  system: System,
  tell: (line: string) => void,
): Promise<void> {
  // Of each rule some, so that one that is broken often doesn't hide the others.
  const byRule = Map.groupBy(breaches, ({ rule }) => rule);
  const chosen = [...byRule.values()].flatMap((some) => some.slice(0, mostStories));
  const ids = [...new Set(chosen.flatMap(({ messageId }) => (messageId === undefined ? [] : [messageId])))];
  const stories = await storiesOf(ids.slice(0, mostStories * 3), { ...observations, events }, system.logFile);
  for (const [id, story] of stories) tell(`\nMessage ${id}:\n${story}`);
}

function reportOf(
  about: Pick<RunReport, 'engines' | 'seed' | 'replicas' | 'leftOut'>,
  found: {
    begun: number;
    faulted: Faulted[];
    clients: Clients;
    observations: Observations;
    events: EventObservations;
    tools: ToolObservations;
    chats: ChatObservations;
    strangers: StrangersReport;
    breaches: Breach[];
  },
): RunReport {
  const { clients, observations, events, tools, chats, faulted, breaches } = found;
  const { messages, files } = observations.journal;
  const { ledger, effects } = observations;
  const told = (what: string) => messages.filter((message) => message.told === what).length;
  const created = new Map(ledger.messages.map(({ messageId, createdAt }) => [messageId, createdAt]));
  const longestDelivery: Record<string, number> = {};
  faulted.forEach((fault, index) => {
    const longest = longestDeliveryOf(fault, faulted[index + 1]?.at ?? Infinity, ledger.messages);
    longestDelivery[fault.kind] = Math.max(longestDelivery[fault.kind] ?? 0, longest);
  });
  const takeovers = faulted.filter((fault) => isTakeover(fault, about.replicas));
  return {
    ...about,
    seconds: (Date.now() - found.begun) / 1_000,
    faults: faulted,
    sent: messages.length,
    accepted: told('accepted'),
    refused: told('refused'),
    abandoned: told('nothing'),
    delivered: ledger.messages.filter(({ status }) => status === 'delivered').length,
    failed: ledger.messages.filter(({ status }) => status === 'failed').length,
    effects: effects.length,
    files: files.length,
    filesSentAgain: files.filter(({ again }) => again > 0).length,
    invocations: {
      answered: tools.calls.filter(({ status }) => status === 200).length,
      seen: tools.said.size,
      counted: tools.usage.length,
      cutOff: tools.usage.filter(({ status }) => status !== 'success').length,
    },
    chats: {
      written: chats.messages.length,
      accepted: chats.messages.filter(({ isAccepted }) => isAccepted).length,
      answered: chats.messages.filter(({ answer }) => answer !== undefined).length,
      modelFailed: chats.messages.flatMap(({ tries }) => tries).filter(({ code }) => code.startsWith('PROVIDER_'))
        .length,
      tasks: [...chats.tasks.values()].flat().length,
    },
    events: eventFigures(events),
    statuses: Object.fromEntries([...clients.statuses].toSorted(([one], [other]) => one - other)),
    acceptedUnheard: messages.filter(({ messageId, told, tries }) => {
      const unanswered = tries.find(({ status }) => status === 0);
      const last = tries.at(-1);
      return told === 'accepted' && unanswered !== undefined && (created.get(messageId) ?? Infinity) < (last?.at ?? 0);
    }).length,
    repeated: effects.reduce((sum, { requests }) => sum + requests - 1, 0),
    longestDelivery,
    strangers: found.strangers,
    takeover: about.replicas === 1 ? null : Math.max(0, ...takeovers.map(({ endedAfter }) => endedAfter)),
    breaches,
  };
}

/** From a fault, or later, to the end of a message that was open then, or came during it or shortly after: the most. */
function longestDeliveryOf({ at, healedAt }: Faulted, next: number, messages: Ledger['messages']): number {
  return messages.reduce((most, { createdAt, endedAt }) => {
    const isConcerned =
      endedAt > at && (createdAt <= healedAt || (createdAt <= healedAt + aftermath && endedAt < next));
    return isConcerned ? Math.max(most, endedAt - Math.max(createdAt, at)) : most;
  }, 0);
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1_000).toFixed(1)} s`;
}
