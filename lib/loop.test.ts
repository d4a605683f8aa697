import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { eventually } from '../test/eventually.ts';
import { HubError } from './errors.ts';
import { openLog } from './log.ts';
import { repeat, sweep } from './loop.ts';

function recordingLog() {
  const lines: { level: number; msg: string }[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
  return { lines, log: openLog({ name: 'test', format: 'json', level: 'info', destination }) };
}

test('repeat: works, pauses as it is told, and stops after the running work', async (t) => {
  const { log } = recordingLog();
  let times = 0;
  let finished = 0;
  const loop = repeat('The work', log, async () => {
    times += 1;
    await sleep(20);
    finished += 1;
    return 1;
  });
  await eventually(
    'rounds',
    () => times,
    (found) => found > 3,
  );
  await loop.stop();
  const stopped = times;
  t.is(finished, times);
  await sleep(60);
  t.is(times, stopped);
});

test('repeat: a wake cuts the pause, and one that comes during the work is not lost', async (t) => {
  const { log } = recordingLog();
  let times = 0;
  const loop = repeat('The work', log, async () => {
    times += 1;
    // The second round is woken while it works.
    if (times === 2) loop.wake();
    return 60_000;
  });
  t.is(
    await eventually(
      'rounds',
      () => times,
      (found) => found >= 1,
    ),
    1,
  );
  loop.wake();
  t.is(
    await eventually(
      'rounds',
      () => times,
      (found) => found >= 3,
    ),
    3,
  );
  await loop.stop();
});

test('repeat: goes on after failures, says once what looks like a bug, and that it works again', async (t) => {
  const { log, lines } = recordingLog();
  let times = 0;
  const loop = repeat('The work', log, async () => {
    times += 1;
    if (times <= 2) throw new Error('a bug');
    return 60_000;
  });
  t.is(
    await eventually(
      'rounds',
      () => times,
      (found) => found >= 3,
    ),
    3,
  );
  await loop.stop();
  t.deepEqual(
    lines.map(({ level, msg }) => [level, msg]),
    [
      [50, "The work: doesn't work"],
      [30, 'The work: works again'],
    ],
  );
});

test('repeat: what is away for a moment is no news', async (t) => {
  const { log, lines } = recordingLog();
  let times = 0;
  const loop = repeat('The work', log, async () => {
    times += 1;
    if (times <= 2) throw new HubError('UNAVAILABLE', 'AWAY', 'away');
    return 60_000;
  });
  t.is(
    await eventually(
      'rounds',
      () => times,
      (found) => found >= 3,
    ),
    3,
  );
  await loop.stop();
  t.deepEqual(lines, []);
});

test('sweep: takes batch after batch while there are full ones, and then pauses', async (t) => {
  const { log } = recordingLog();
  const found: number[] = [];
  let due = 25;
  const loop = sweep('The sweep', log, { batchSize: 10, everyMs: 60_000 }, async (batchSize) => {
    const some = Math.min(batchSize, due);
    due -= some;
    found.push(some);
    return some;
  });
  await eventually(
    'an empty batch',
    () => found.length,
    (length) => length >= 3,
  );
  await loop.stop();
  t.deepEqual(found, [10, 10, 5]);
});
