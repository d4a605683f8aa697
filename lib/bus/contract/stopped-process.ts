import { setTimeout as wait } from 'node:timers/promises';
import { loadConfig } from '../../config.ts';
import { openLog } from '../../log.ts';
import { busSettings, openBus } from '../open.ts';
import { eventFor } from './fixtures.ts';

/** The process that has nothing left open after its buses were stopped in the middle of all that they do. */
const topics = process.argv.slice(2);
const log = openLog({ name: 'contract-stopped', format: 'json', level: 'silent' });

// Ends it if something else keeps it, and by itself keeps it no longer.
setTimeout(() => process.exit(1), 90_000).unref();

async function stopInTheMiddle(topic: string, after: number): Promise<void> {
  const bus = await openBus(loadConfig(busSettings), { log, clientId: 'contract-stopped' });
  const calls = [
    bus.publish(topic, [eventFor('key', 'text')]),
    bus.consume({ topics, group: 'readers', handle: async () => {} }),
    bus.lag(topic, 'readers'),
    bus.probe(),
  ];
  const ended = Promise.allSettled(calls);
  await wait(after);
  await bus.stop();
  await ended;
}

// From before the first answer to after the last one.
await Promise.all(topics.map((topic, index) => stopInTheMiddle(topic, index * 150)));
