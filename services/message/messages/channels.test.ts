import test from 'ava';
import type { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../../test/eventually.ts';
import { watchChannels, type Channels } from './channels.ts';

const log = openLog({ name: 'message', format: 'json', level: 'silent' });

/** Channels as the connectors say that they are. */
async function channelsOf(loads: Record<string, { waitMs?: bigint; drainRate?: number }>): Promise<Channels> {
  const channels = Object.entries(loads).map(([name, load]) => ({
    name,
    title: name,
    backlog: 0n,
    drainRate: 0,
    waitMs: 0n,
    ...load,
  }));
  const watched = watchChannels({
    log,
    connectors: { listChannels: async () => ({ channels }) } as unknown as Parameters<
      typeof watchChannels
    >[0]['connectors'],
  });
  await eventually('the channels are known', async () => watched.known(), Boolean);
  return watched;
}

function refusalOf(work: () => void): HubError | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return error as HubError;
  }
}

test('requireRoom: a channel with too much to do refuses, the others don’t, and it says when to come again', async (t) => {
  const channels = await channelsOf({
    slow: { waitMs: 20_000n, drainRate: 5 },
    quick: { waitMs: 10n, drainRate: 500 },
  });
  t.teardown(() => channels.stop());
  const refused = refusalOf(() => channels.requireRoom(['quick', 'slow'], 1, 17_000));
  t.like(refused, { kind: 'UNAVAILABLE', reason: 'CHANNEL_OVERLOADED', retryAfter: 4 });
  t.is(
    refusalOf(() => channels.requireRoom(['quick'], 1, 17_000)),
    undefined,
  );
  t.is(
    refusalOf(() => channels.requireRoom(['slow'], 1, 60_000)),
    undefined,
  );
});

test('requireRoom: what was let in since the connectors were asked counts as well', async (t) => {
  const channels = await channelsOf({ slow: { waitMs: 10_000n, drainRate: 5 } });
  t.teardown(() => channels.stop());
  let count = 0;
  while (refusalOf(() => channels.requireRoom(['slow'], 1, 12_000)) === undefined) count += 1;
  t.is(count, 10);
});

test('requireRoom: where nothing is known of the load nobody is refused', async (t) => {
  const channels = await channelsOf({ idle: {} });
  t.teardown(() => channels.stop());
  t.is(
    refusalOf(() => channels.requireRoom(['idle', 'new'], 1_000, 1)),
    undefined,
  );
});
