import os from 'node:os';
import { Worker } from 'node:worker_threads';

/** The same work on each run: numbers, objects and text, of which JavaScript on the hub's way does most. */
const work = `
const { parentPort } = require('node:worker_threads');
const began = process.threadCpuUsage();
let state = 1;
let length = 0;
for (let round = 0; round < 20; round += 1) {
  for (let step = 0; step < 400_000; step += 1) state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  const rows = Array.from({ length: 2_000 }, (_, index) => ({ id: state + index, name: 'row ' + index, read: index % 2 === 0 }));
  length += JSON.stringify(JSON.parse(JSON.stringify(rows))).length;
}
const { user, system } = process.threadCpuUsage(began);
parentPort.postMessage({ milliseconds: (user + system) / 1_000, length });`;
const rounds = 3;

/**
 * How much CPU time a fixed piece of work takes while all cores are busy, in milliseconds: the median of a few rounds, each as the
 * slowest core has it. Half as much is a machine that is twice as fast. What other programs take of the cores doesn't count.
 */
export async function timeMachine(): Promise<number> {
  const taken: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const cores = await Promise.all(Array.from({ length: os.availableParallelism() }, timeCore));
    taken.push(Math.max(...cores));
  }
  return taken.toSorted((a, b) => a - b)[Math.floor(rounds / 2)]!;
}

function timeCore(): Promise<number> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(work, { eval: true });
    worker.once('message', ({ milliseconds }: { milliseconds: number }) => resolve(milliseconds));
    worker.once('error', reject);
  });
}
