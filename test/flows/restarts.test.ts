import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { eventually } from '../eventually.ts';
import { serviceNames } from '../harness.ts';
import { openedFolder, openedTogether } from '../opened.ts';
import type { Problem } from '../rest.ts';
import { startProcessHub, type ProcessHub } from './hubs.ts';
import { ended, everyDeliveryLine, everyMessage, messageOf, openConversation, type Person } from './meshes.ts';

/** Long enough that nothing fails in this time, whatever restarts. */
const env = { DELIVERY_DEADLINE: '3m', MAX_OPEN_UPLOADS: '10000' };
const testLimit = 240_000;
/** Milliseconds between two rounds of a person's calls: the processes that start need most of the processors. */
const pace = 200;

const root = openedFolder('chat4all-restarts-');

async function startHub(name: string, replicas: number): Promise<ProcessHub> {
  const folder = path.join(root, name);
  await mkdir(folder);
  return startProcessHub(folder, env, replicas);
}

const stop = (hub: ProcessHub) => hub.stop();
const [single, pairs] = openedTogether([
  { open: () => startHub('single', 1), close: stop },
  { open: () => startHub('pairs', 2), close: stop },
]) as [ProcessHub, ProcessHub];

interface Answered {
  call: string;
  status: number;
  code: string | undefined;
  retryAfter: number | undefined;
  at: number;
  ms: number;
}

/** People who do all kinds of things at once, until they are stopped. */
interface Load {
  answers: Answered[];
  /** What was accepted, by conversation. */
  accepted: Map<string, { sender: Person; sent: string[] }>;
  stop(): Promise<void>;
}

async function startLoad(people: readonly Person[]): Promise<Load> {
  const answers: Answered[] = [];
  const accepted: Load['accepted'] = new Map();
  let stopping = false;

  async function call({ rest }: Person, line: string, json?: object): Promise<number> {
    const [method, at] = line.split(' ') as [string, string];
    const began = Date.now();
    const { status, body } = await rest.call(method, at, json === undefined ? {} : { json });
    const { error_code: code, retry_after: retryAfter } = (body ?? {}) as Partial<Problem>;
    answers.push({ call: line, status, code, retryAfter, at: began, ms: Date.now() - began });
    return status;
  }

  async function live(person: Person, friend: Person): Promise<void> {
    const id = await openConversation([person, friend]);
    const sent: string[] = [];
    accepted.set(id, { sender: person, sent });
    while (!stopping) {
      const json = messageOf(person, id);
      // As clients do it: what wasn't answered well is sent again, with its id.
      while ((await call(person, 'POST /v1/messages', json)) !== 200) await sleep(200);
      sent.push(json.message_id);
      await call(person, `GET /v1/messages/${json.message_id}`);
      await call(person, `GET /v1/conversations/${id}/messages?limit=5`);
      await call(person, `GET /v1/conversations/${id}`);
      await call(person, 'GET /v1/users/me');
      await call(person, 'POST /v1/conversations', { type: 'private', members: [person.userId, friend.userId] });
      await call(person, 'POST /v1/files/initiate', { filename: 'photo.jpg', file_size: 7 });
      await sleep(pace);
    }
  }

  const running = Promise.all(people.map((person, index) => live(person, people[(index + 1) % people.length]!)));
  running.catch(() => {});
  await Promise.race([
    running,
    eventually(
      'calls are answered',
      () => answers.length,
      (count) => count > 50,
    ),
  ]);
  return {
    answers,
    accepted,
    async stop() {
      stopping = true;
      await running;
    },
  };
}

/** Milliseconds. */
function slowest({ answers }: Load): number {
  return Math.max(...answers.map(({ ms }) => ms));
}

/** Everything accepted is there once, in order, and delivered: once, save after a crash. */
async function nothingIsLost(
  t: ExecutionContext,
  hub: ProcessHub,
  { accepted }: Load,
  { isOnce } = { isOnce: true },
): Promise<void> {
  for (const [conversationId, { sender, sent }] of accepted) {
    t.is((await ended(sender, sent.at(-1)!)).status, 'delivered');
    const messages = await everyMessage(sender, conversationId);
    t.deepEqual(
      messages.map(({ message_id: messageId, seq, status }) => [messageId, seq, status]),
      sent.map((messageId, index) => [messageId, index + 1, 'delivered']),
    );
  }
  const told = everyDeliveryLine(await hub.lines());
  for (const { sent } of accepted.values()) {
    for (const id of sent) {
      if (isOnce) t.is(told.get(id)?.length, 1, id);
      else t.true(told.has(id), id);
    }
  }
}

test.serial('two of each: every process restarts in turn under load, and no call fails', async (t) => {
  t.timeout(testLimit);
  const load = await startLoad(pairs.people);
  for (const service of serviceNames) {
    for (const name of [service, `${service}-2`]) {
      const began = Date.now();
      await pairs.restart(name);
      t.log(`${name}: ${Date.now() - began} ms`);
    }
  }
  await load.stop();
  const failed = load.answers.filter(({ status }) => status >= 300);
  t.log(`${load.answers.length} calls, the slowest took ${slowest(load)} ms`);
  t.deepEqual(failed, []);
  await nothingIsLost(t, pairs, load);
});

/** Calls that may be repeated, so that no death of a process is to be seen in them. */
const repeatable = /^(GET |POST \/v1\/messages$)/;

for (const [signal, what] of [
  ['SIGKILL', 'killed'],
  ['SIGSTOP', 'frozen'],
] as const) {
  test.serial(`two of each: of every service one is ${what} under load, and the other one does its work`, async (t) => {
    t.timeout(testLimit);
    const load = await startLoad(pairs.people);
    for (const service of serviceNames) {
      const { [service]: pid } = await pairs.pids();
      process.kill(pid!, signal);
      const at = Date.now();
      const sent = [...load.accepted.values()].map((each) => ({ ...each, from: each.sent.length }));
      // What each of them sends from now on, in all partitions of the bus.
      await eventually(
        'more is accepted',
        () => sent.every((each) => each.sent.length > each.from + 1),
        Boolean,
        60_000,
      );
      await Promise.all(sent.map(({ sender, sent: ids, from }) => ended(sender, ids[from + 1]!, 60_000)));
      t.log(`${service}: ${Date.now() - at} ms until what all had sent since was delivered`);
      if (signal === 'SIGSTOP') process.kill(pid!, 'SIGCONT');
      else
        await eventually(
          'it is back',
          async () => (await pairs.pids())[service],
          (found) => found !== undefined && found !== pid,
        );
    }
    await load.stop();
    const failed = load.answers.filter(({ status }) => status >= 300);
    t.log(`${load.answers.length} calls, ${failed.length} failed, the slowest took ${slowest(load)} ms`);
    t.deepEqual(
      failed.filter(
        ({ call, status }) => (status !== 503 && status !== 504) || (signal === 'SIGKILL' && repeatable.test(call)),
      ),
      [],
    );
    await nothingIsLost(t, pairs, load, { isOnce: false });
  });
}

test.serial(
  'one of each: a restart is felt as a wait, or told as 503 with Retry-After, never as another error',
  async (t) => {
    t.timeout(testLimit);
    const load = await startLoad(single.people);
    for (const name of serviceNames) {
      const began = Date.now();
      await single.restart(name);
      t.log(`${name}: ${Date.now() - began} ms`);
    }
    await load.stop();
    const failed = load.answers.filter(({ status }) => status >= 300);
    t.log(`${load.answers.length} calls, ${failed.length} were 503, the slowest took ${slowest(load)} ms`);
    t.deepEqual(
      failed.filter(({ status, retryAfter }) => status !== 503 || retryAfter === undefined),
      [],
    );
    await nothingIsLost(t, single, load);
  },
);
