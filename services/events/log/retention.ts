import { hubTime } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, type Loop } from '#lib/loop.ts';
import type { LogStore } from './log-store.ts';

/** A partition is made a day ahead, so that it is there whatever the hour. */
const everyMs = 600_000;

/** Makes the partitions that the log needs next, and drops those whose events are older than `retention`, in milliseconds. */
export function keepPartitions(options: {
  store: Pick<LogStore, 'makePartitions' | 'dropPartitions'>;
  log: Logger;
  retention: number;
}): Loop {
  const { store, log, retention } = options;
  return repeat('The partitions of the log of events', log, async () => {
    await store.makePartitions();
    const dropped = await store.dropPartitions(new Date(hubTime() - retention));
    if (dropped > 0) log.info({ days: dropped }, 'Events removed: their time is over');
    return everyMs;
  });
}
