import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { Clients } from './clients.ts';
import type { Fault, FaultKind } from './plan.ts';
import type { System } from './system.ts';

/** What a fault is done to, and with. */
export interface Field {
  system: System;
  clients: Clients;
  signal: AbortSignal;
}

/** Messages that are sent at once to have the gateway killed over some of them. */
const burstSize = 24;
/** Milliseconds in which one of them must have been accepted. */
const burstLimit = 10_000;

/** Does what a fault says, and heals it. What heals by itself, like a process that is started again, isn't waited for. */
export async function inject(fault: Fault, field: Field): Promise<void> {
  await actions[fault.kind](fault, field);
}

type Action = (fault: Fault, field: Field) => Promise<void>;

const actions: Record<FaultKind, Action> = {
  kill,
  'kill two': kill,
  async restart({ targets }, { system }) {
    for (const name of targets) await system.restart(name);
  },
  freeze,
  'freeze two': freeze,
  'kill before the answer': killBeforeTheAnswer,
  async crash(fault, { system, signal }) {
    for (const name of fault.targets) await system.engines[name]!.crash();
    await during(fault, signal, () => Promise.all(fault.targets.map((name) => system.engines[name]!.revive())));
  },
  cut: onLinks((link) => link.cut()),
  slow: onLinks((link) => link.slow({ latency: 250, kilobytes: 128 })),
  reset: onLinks((link) => link.reset()),
  silence: onLinks((link) => link.silence()),
  async 'full disk'(fault, { system, signal }) {
    for (const name of fault.targets) await system.disks[name]!.fill();
    await during(fault, signal, () => Promise.all(fault.targets.map((name) => system.disks[name]!.free())));
  },
};

function onLinks(spoil: (link: System['links'][string]) => Promise<void>): Action {
  return async (fault, { system, signal }) => {
    const links = fault.targets.map((name) => system.links[name]!);
    for (const link of links) await spoil(link);
    await during(fault, signal, () => Promise.all(links.map((link) => link.heal())));
  };
}

async function during({ lasts }: Fault, signal: AbortSignal, heal: () => Promise<unknown>): Promise<void> {
  try {
    await sleep(lasts, undefined, { signal });
  } finally {
    await heal();
  }
}

async function kill({ targets }: Fault, { system }: Field): Promise<void> {
  const pids = await system.pids();
  for (const name of targets) send(pids[name], 'SIGKILL');
}

async function freeze(fault: Fault, { system, signal }: Field): Promise<void> {
  const pids = await system.pids();
  const frozen = fault.targets.map((name) => pids[name]);
  for (const pid of frozen) send(pid, 'SIGSTOP');
  await during(fault, signal, async () => {
    for (const pid of frozen) send(pid, 'SIGCONT');
  });
}

/** Kills the gateway as soon as a message is in the database, while it still owes answers. */
async function killBeforeTheAnswer({ targets }: Fault, { system, clients }: Field): Promise<void> {
  const pids = await system.pids();
  const database = new pg.Client({ connectionString: system.databaseUrl, connectionTimeoutMillis: 5_000 });
  database.on('error', () => {});
  await database.connect();
  try {
    const ids = clients.burst(burstSize);
    const giveUp = Date.now() + burstLimit;
    for (;;) {
      const { rows } = await database.query('select 1 from message.messages where message_id = any($1) limit 1', [ids]);
      if (rows.length > 0 || Date.now() > giveUp) break;
    }
    for (const name of targets) send(pids[name], 'SIGKILL');
  } finally {
    await database.end();
  }
}

/** One that has just ended is being started again: the fault has come by itself. */
function send(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
