import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { ExecutionContext } from 'ava';
import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { TestFn } from 'ava';
import { type Bus } from '../bus.ts';
import {
  collector,
  eventsFor,
  eventually,
  lagOf,
  newTopic,
  open,
  partitionsOf,
  textOf,
  type Collector,
  type Engine,
  type Engines,
} from './fixtures.ts';

/** Longer than the lease of a consumer that is gone, on either engine. */
const pastLeaseMs = 12_000;

/** What becomes of the events of a consumer that another one replaces, on every engine. */
export function takeoverContract(test: TestFn, { shared }: Engines): void {
  test('consume: what another consumer takes over in the middle of a round is not acknowledged by its first one', async (t) => {
    const [one, two] = [await open(t, shared()), await open(t, shared())];
    const topic = await newTopic(one);
    const keys = Array.from({ length: 64 }, () => randomUUID());
    await one.publish(topic, eventsFor(keys, 128));
    const ends = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
    const begun = Promise.withResolvers<void>();
    const [first, second] = [collector(), collector()];
    await one.consume({
      topics: [topic],
      group: 'readers',
      async handle(events) {
        begun.resolve();
        await ends[0].promise;
        first.add(events);
      },
    });
    await begun.promise;
    let taken = new Set<number>();
    await two.consume({
      topics: [topic],
      group: 'readers',
      async handle(events) {
        taken = new Set([...taken, ...partitionsOf(events)]);
        await ends[1].promise;
        second.add(events);
      },
    });
    // On Kafka the group is divided anew now. On PostgreSQL the first one keeps what it works on.
    const isKafka = shared().env['KAFKA_BROKERS'] !== undefined;
    if (isKafka) await eventually('the second one has some', () => taken.size > 1);
    ends[0].resolve();
    await eventually('the first one has acknowledged its own', async () => {
      const behind = (await one.lag(topic, 'readers')).filter(({ events }) => events > 0);
      return behind.every(({ partition }) => taken.has(partition));
    });
    const left = (await one.lag(topic, 'readers')).filter(({ events }) => events > 0).map(({ partition }) => partition);
    t.deepEqual(
      left,
      [...taken].toSorted((a, b) => a - b),
    );
    ends[1].resolve();
    await eventually('all is acknowledged', async () => (await lagOf(one, topic, 'readers')) === 0);
    const all = [...first.events, ...second.events];
    t.is(new Set(all.map(({ id }) => id)).size, 128);
    t.is(new Set(second.events.map(({ id }) => id)).size, second.events.length);
    for (const key of keys) {
      // Whatever came again, came again from the first one that wasn't acknowledged.
      const texts = (from: Collector) =>
        from.events.filter((event) => event.key === key).map((each) => Number(textOf(each)));
      for (const some of [texts(first), texts(second)])
        t.deepEqual(
          some,
          some.toSorted((a, b) => a - b),
        );
    }
  });

  test('a consumer that is killed after the effect and before the acknowledgement: the events come again', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    await bus.publish(topic, eventsFor(['key'], 5));
    const child = await startChild(t, shared(), topic);
    await child.says('handled 0,1,2,3,4');
    const seen = collector();
    await bus.consume({ topics: [topic], group: 'readers', handle: async (events) => seen.add(events) });
    child.process.kill('SIGKILL');
    await seen.until(5);
    t.deepEqual(seen.events.map(textOf), ['0', '1', '2', '3', '4']);
  });

  test('a consumer that was frozen does not acknowledge what another one has taken over', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    await bus.publish(topic, eventsFor(['key'], 3));
    const child = await startChild(t, shared(), topic);
    await child.says('handled 0,1,2');
    child.process.kill('SIGSTOP');
    const finish = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const seen = collector();
    await bus.consume({
      topics: [topic],
      group: 'readers',
      async handle(events) {
        begun.resolve();
        await finish.promise;
        seen.add(events);
      },
    });
    await begun.promise;
    child.process.send('return');
    child.process.kill('SIGCONT');
    await child.says('stopped');
    t.is(await lagOf(bus, topic, 'readers'), 3);
    finish.resolve();
    await seen.until(3);
    await eventually('it is acknowledged by who has it', async () => (await lagOf(bus, topic, 'readers')) === 0);
    // The other one's return may cost it its batch before it has acknowledged it: then the batch comes once more, whole.
    t.deepEqual([...new Set(seen.events.map(textOf))], ['0', '1', '2']);
  });

  test('a consumer that is slow but alive keeps its batch', async (t) => {
    const [one, two] = [await open(t, shared()), await open(t, shared())];
    const topic = await newTopic(one);
    const seen = collector();
    const consume = (bus: Bus) =>
      bus.consume({
        topics: [topic],
        group: 'readers',
        async handle(events) {
          seen.add(events);
          await wait(pastLeaseMs);
        },
      });
    await consume(one);
    await one.publish(topic, eventsFor(['key'], 3));
    await seen.until(3);
    // On Kafka the group is divided anew now, and the partition may well change hands: not so on PostgreSQL.
    if (shared().env['KAFKA_BROKERS'] === undefined) await consume(two);
    await eventually('it is acknowledged', async () => (await lagOf(one, topic, 'readers')) === 0);
    t.deepEqual(seen.events.map(textOf), ['0', '1', '2']);
  });
}

interface Child {
  process: ChildProcess;
  /** Waits for this line. */
  says(line: string): Promise<void>;
}

/**
 * A consumer in a process of its own: handles the first batch, says so, and returns from the handler when it is told to.
 * Then it stops.
 */
async function startChild(t: ExecutionContext, engine: Engine, topic: string): Promise<Child> {
  const said: unknown[] = [];
  const child = fork(new URL('consumer-process.ts', import.meta.url), [topic], {
    env: { PATH: process.env['PATH'], ...engine.env },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  child.on('message', (line) => said.push(line));
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  });
  return { process: child, says: (line) => eventually(`the child says ${line}`, () => said.includes(line)) };
}
