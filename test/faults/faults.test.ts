import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { installToxiproxy, toxiproxyAvailable } from '../../dev/engines/toxiproxy.ts';
import { kafka, minio } from '../../dev/engines/native.ts';
import { eventually } from '../eventually.ts';
import type { RunReport } from './run.ts';

/** The smallest form of `npm run faults`, as a program. */
const program = path.join(import.meta.dirname, 'main.ts');
const home = path.resolve(import.meta.dirname, '../../.chat4all/faults');
const testLimit = 300_000;

const realEnginesAreThere = (kafka.isAvailable() && minio.isAvailable()) || process.env.CI === 'true';

// A build takes all that the machine has.
test.before(async (t) => {
  t.timeout(testLimit);
  if (toxiproxyAvailable()) await installToxiproxy({ log: (line) => t.log(line) });
});

function start(...args: string[]): { child: ChildProcess; output: () => string } {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += String(data)));
  return { child, output: () => output };
}

/** The processes that were started on this folder, by their command lines. */
async function processesOn(folder: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
  return lines.filter((line) => line.includes(folder));
}

for (const [engines, seed] of [
  // Both strike events, streams of them, and what is behind.
  ['embedded', 8],
  ['real', 35],
] as const) {
  const declare = engines === 'real' && !realEnginesAreThere ? test.serial.skip : test.serial;
  declare(`faults: ${engines} engines: nothing accepted is lost or doubled, whatever is broken`, async (t) => {
    t.timeout(testLimit);
    const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-faults-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    const json = path.join(folder, 'report.json');
    const { child, output } = start('--tiny', '--engines', engines, '--seed', String(seed), '--json', json);
    const [code] = (await once(child, 'exit')) as [number | null];
    t.is(code, 0, output());
    const [report] = JSON.parse(await readFile(json, 'utf8')) as [RunReport];
    t.deepEqual(report.breaches, []);
    t.is(report.faults.length, 6);
    t.true(report.accepted >= 300);
    const ended = report.delivered + report.failed;
    t.true(ended >= report.accepted && ended <= report.accepted + report.abandoned);
    const { logged, told, openings, sent, notTaken } = report.events;
    t.true(logged > report.accepted && told > logged && openings > 12 && sent > notTaken && notTaken > 0);
    t.true(report.chats.answered > 0 && report.chats.modelFailed > 0 && report.chats.tasks > 0);
    t.log(report.faults.map(({ kind, targets }) => `${kind}: ${targets.join(' and ')}`).join(', '));
  });
}

test.serial('faults: stopped by Ctrl-C, it ends all that it has started, and leaves nothing', async (t) => {
  t.timeout(testLimit);
  const before = new Set(await readdir(home).catch(() => []));
  const { child, output } = start('--tiny', '--engines', 'embedded', '--seed', '1');
  await eventually('it is breaking things', output, (text) => text.includes('1. '), 120_000);
  const folder = (await readdir(home)).find((name) => name.startsWith('run-') && !before.has(name));
  t.not((await processesOn(folder!)).length, 0);
  child.kill('SIGINT');
  const [code] = (await once(child, 'exit')) as [number | null];
  t.is(code, 1);
  t.regex(output(), /Stopped: SIGINT/);
  t.false((await readdir(home)).includes(folder!));
  t.deepEqual(await processesOn(folder!), []);
});
