import path from 'node:path';
import test from 'ava';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { eventually } from '../eventually.ts';
import { openHarness, serviceNames, type Harness, type StartedProcess } from '../harness.ts';
import { opened } from '../opened.ts';
import { openRest, type Rest } from '../rest.ts';
import { ended, openConversation, send, type Person } from './meshes.ts';

/** Milliseconds by which the clocks of these services are wrong: each other way round, and by more than a deadline is long. */
const skews: Record<string, number> = { message: -120_000, connectors: 60_000, router: 30_000, auth: -3_600_000 };
const preload = path.resolve(import.meta.dirname, '../skewed-clock.ts');

const hub = opened(
  async () => {
    const harness = await openHarness();
    try {
      return await startSkewed(harness);
    } catch (error) {
      await harness.stop();
      throw error;
    }
  },
  ({ harness }) => harness.stop(),
);

/** A whole hub, in which some services have processes with clocks of their own. */
async function startSkewed(harness: Harness) {
  const services: Record<string, StartedProcess> = {};
  // Each after those that it calls.
  const order = ['auth', 'conversation', 'file', 'connectors', 'message', 'router'];
  for (const name of order.filter((each) => serviceNames.includes(each))) {
    const skew = skews[name];
    services[name] =
      skew === undefined
        ? await harness.startService(name)
        : await harness.spawnService(name, {
            preload,
            env: { CLOCK_SKEW: String(skew), SEED_USERS: '5', METRICS_PORT: '0' },
          });
  }
  const gateway = await harness.startGateway();
  const url = `http://${gateway.address}`;
  const auth = harness.client(AuthServiceService, services.auth!.address, {
    token: await harness.serviceToken('conversation', 'auth'),
  });
  const usernames = ['user1', 'user2'];
  const { users } = await auth.lookupUsers({ userIds: [], usernames });
  const people = await Promise.all(
    usernames.map(async (username): Promise<Person> => {
      const { userId } = users.find((user) => user.username === username)!;
      const rest: Rest = openRest(url);
      const { token } = await rest.post<{ token: string }>('/auth/token', { username, password: 'password123' });
      return { userId, username, rest: openRest(url, token) };
    }),
  );
  return { harness, services, url, people };
}

test('clocks that are wrong by minutes: who logs in is believed, and every message is delivered', async (t) => {
  const [writer, reader] = hub.people as [Person, Person];
  const conversation = await openConversation([writer, reader]);
  const before = Date.now();
  for (const channels of [['whatsapp'], ['instagram'], ['whatsapp', 'instagram']]) {
    const message = await ended(reader, await send(writer, conversation, { channels }));
    t.is(message.status, 'delivered', JSON.stringify(message));
    // By the database's clock, which is right.
    for (const { at: timestamp } of message.history) {
      const at = Date.parse(timestamp);
      t.true(at > before - 2_000 && at < Date.now() + 2_000, timestamp);
    }
  }
});

test('each process says by how much its clock is wrong: in the log and in /ready', async (t) => {
  for (const [name, skew] of Object.entries(skews)) {
    const line = hub.services[name]!.lines.find((each) => each.includes('clock_skew_ms'));
    const { level, clock_skew_ms: told } = JSON.parse(line ?? '{}') as { level: number; clock_skew_ms: number };
    t.is(level, 40, name);
    t.true(Math.abs(told - skew) < 1_000, `${name}: ${told}`);
  }
  // Under load one of them may take a second to answer, and then nothing is known of it.
  const told = Object.entries({
    message: 'up',
    'message.database': 'up',
    'message.clock': 'down',
    'connectors.clock': 'down',
    'router.clock': 'down',
    'auth.clock': 'down',
    'conversation.clock': 'up',
    'file.clock': 'up',
  });
  const ready = await eventually(
    '/ready tells of the clocks',
    async () => {
      const answer = await fetch(`${hub.url}/ready`);
      return { status: answer.status, body: (await answer.json()) as { dependencies: Record<string, string> } };
    },
    ({ body }) => told.every(([name, state]) => body.dependencies[name] === state),
  );
  t.is(ready.status, 503);
});

test('a service says on its own port of metrics that it is live, and how all that it needs is', async (t) => {
  const line = hub.services['message']!.lines.find((each) => each.includes('"msg":"metrics"'));
  const url = `http://127.0.0.1:${(JSON.parse(line ?? '{}') as { port: number }).port}`;
  const live = await fetch(`${url}/live`);
  t.deepEqual([live.status, await live.json()], [200, { status: 'live' }]);
  const ready = await fetch(`${url}/ready`);
  t.is(ready.status, 503);
  const dependencies = { message: 'up', 'message.database': 'up', 'message.clock': 'down', 'message.bus': 'up' };
  t.deepEqual(await ready.json(), {
    status: 'not_ready',
    reason: 'unavailable',
    features: { messages: 'up' },
    dependencies,
    optional_dependencies: {},
  });
  const metrics = await (await fetch(`${url}/metrics`)).text();
  const [, skew] = /^chat4all_clock_skew_seconds (\S+)$/m.exec(metrics) ?? [];
  t.true(Math.abs(Number(skew) + 120) < 1, skew);
});
