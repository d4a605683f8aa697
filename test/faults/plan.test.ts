import test from 'ava';
import { makePlan, type Targets } from './plan.ts';

const targets: Targets = {
  processes: ['gateway', 'auth', 'conversation', 'message', 'file', 'router', 'connectors', 'events'],
  engines: ['kafka', 'postgres', 'minio'],
  links: ['kafka', 'postgres', 'minio', 'streams', 'webhooks'],
  disks: ['kafka', 'postgres'],
};

test('makePlan: a seed makes the same plan each time, another one another plan', (t) => {
  const plan = (seed: number) => makePlan({ seed, count: 40, scale: 'short', targets });
  t.deepEqual(plan(7), plan(7));
  t.notDeepEqual(plan(7), plan(8));
});

test('makePlan: deals kinds evenly, and targets within a kind', (t) => {
  const plan = makePlan({ seed: 1, count: 120, scale: 'long', targets });
  const kinds = Map.groupBy(plan, ({ kind }) => kind);
  t.deepEqual(
    [...kinds.values()].map((some) => some.length),
    Array<number>(12).fill(10),
  );
  const killed = new Set(kinds.get('kill')!.flatMap((fault) => fault.targets));
  t.is(killed.size, targets.processes.length);
  for (const fault of kinds.get('freeze two')!) {
    t.is(new Set(fault.targets).size, 2);
    t.true(fault.lasts >= 20_000 && fault.lasts <= 40_000);
  }
});

test('makePlan: leaves out what this machine can not break', (t) => {
  const plan = makePlan({ seed: 1, count: 50, scale: 'tiny', targets: { ...targets, links: [], disks: [] } });
  const kinds = new Set(plan.map(({ kind }) => kind));
  t.deepEqual([...kinds].toSorted(), [
    'crash',
    'freeze',
    'freeze two',
    'kill',
    'kill before the answer',
    'kill two',
    'restart',
  ]);
});
