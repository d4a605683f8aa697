import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import test from 'ava';
import pg from 'pg';
import { v4 as uuid } from 'uuid';
import {
  PlanName,
  SubscriptionServiceService,
  ToolAdminServiceService,
  ToolServiceService,
  UsageServiceService,
} from '#gen/chat4all/tools/v1/tools.ts';
import { loadConfig } from '#lib/config.ts';
import { generateKeys, identitySettings, openIdentities, type Identities } from '#lib/identity.ts';
import { freePorts } from '../../../dev/ports.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { answering, startToolServer } from '../../../test/tool-servers.ts';

const root = path.resolve(import.meta.dirname, '../../..');
const hub = opened(openHarness, (hub) => hub.stop());
const tool = opened(startToolServer, (server) => server.stop());
const database = opened(
  async () => {
    const client = new pg.Client({ connectionString: hub.adminDatabaseUrl, connectionTimeoutMillis: 10_000 });
    await client.connect();
    return client;
  },
  (client) => client.end(),
);

interface Process {
  child: ChildProcess;
  /** Kills it, so that nothing of it can be finished. */
  kill(): Promise<void>;
}

/** A tools service in a process of its own. */
async function startProcess(port: number, env: NodeJS.ProcessEnv): Promise<Process> {
  const child = spawn(process.execPath, [path.join(root, 'services/main.ts'), 'tools'], {
    env: {
      PATH: process.env.PATH,
      LAPTOP_MODE: 'true',
      GRPC_PORT: String(port),
      DATABASE_URL: hub.databaseUrl('tools'),
      AUTH_ADDRESS: '127.0.0.1:1',
      TOOL_TIMEOUT: '2s',
      LOG_FORMAT: 'json',
      LOG_LEVEL: 'error',
      ...env,
    },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const [message] = (await once(child, 'message', { signal: AbortSignal.timeout(30_000) })) as [{ ready: true }];
  if (!message.ready) throw new Error('It is not ready');
  return {
    child,
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    },
  };
}

const calls = 1_000;
const atOnce = 40;
const people = 10;
/** After so many answers the process is killed. */
const killedAfter = [150, 400, 650];

interface Row {
  request_id: string;
  user_id: string;
  status: string;
  tokens: number;
}

test('a service that is killed during 1,000 invocations: each of them is counted once, as the tool and the callers saw it', async (t) => {
  t.timeout(180_000);
  const { privateKeys, trusted } = await generateKeys(['auth', 'tools']);
  const keys = (name: string) => ({ IDENTITY_KEY: privateKeys[name], TRUSTED_KEYS: trusted });
  const auth: Identities = openIdentities(loadConfig(identitySettings, keys('auth')));
  const [port] = (await freePorts(1)) as [number];
  let running = await startProcess(port, keys('tools'));
  t.teardown(() => running.kill());

  const address = `127.0.0.1:${port}`;
  const tokenOf = (userId: string, admin = false) =>
    auth.userToken({
      userId,
      numId: 7n,
      username: `u-${userId.slice(0, 8)}`,
      admin,
      sessionId: uuid(),
      expiresAt: new Date(Date.now() + 3_600_000),
    });
  const administration = hub.client(ToolAdminServiceService, address, { token: await tokenOf(uuid(), true) });
  const created = await administration.createTool({ name: 'tool', description: 'x', apiEndpoint: `${tool.url}/work` });
  const toolId = created.tool!.id;

  /** What the tool says of each request, by its id. */
  const said = new Map<string, number>();
  tool.on('/work', (response, asked) => {
    const requestId = String(asked.headers['x-request-id']);
    const tokens = 1 + (said.size % 9);
    said.set(requestId, tokens);
    setTimeout(() => answering({ tokens_used: tokens })(response, asked), Math.random() * 100);
  });

  const users = await Promise.all(
    Array.from({ length: people }, async () => {
      const userId = uuid();
      const token = await tokenOf(userId);
      const subscriptions = hub.client(SubscriptionServiceService, address, { token });
      await subscriptions.subscribe({ plan: PlanName.PLAN_NAME_PRO });
      return { userId, token, subscriptions, usage: hub.client(UsageServiceService, address, { token }) };
    }),
  );

  /** What callers were told, by the ids of their requests. */
  const answered = new Map<string, number>();
  let restarting: Promise<void> | undefined;
  const kills = [...killedAfter];
  const unasked = Array.from({ length: calls }, (_, index) => index);
  async function invokeAll(): Promise<void> {
    for (let index = unasked.pop(); index !== undefined; index = unasked.pop()) {
      const requestId = `call-${index}`;
      const { token } = users[index % people]!;
      const client = hub.client(ToolServiceService, address, { token, metadata: { 'x-request-id': requestId } });
      await client
        .invokeTool({ toolId, input: { index } })
        .then(({ tokensUsed }) => answered.set(requestId, Number(tokensUsed)))
        .catch(() => {});
      if (answered.size >= (kills[0] ?? Infinity)) {
        kills.shift();
        restarting = (async () => {
          await running.kill();
          running = await startProcess(port, keys('tools'));
        })();
      }
      await restarting;
    }
  }
  await Promise.all(Array.from({ length: atOnce }, invokeAll));
  t.is(kills.length, 0);
  t.true(answered.size > calls / 2, `${answered.size} were answered`);

  await eventually(
    'nothing is reserved any more',
    async () => (await database.query<{ count: number }>('select count(*)::int as count from tools.reservations')).rows,
    ([row]) => row!.count === 0,
    60_000,
  );
  const { rows } = await database.query<Row>(
    'select request_id, user_id, status, tokens::int as tokens from tools.usage',
  );
  const byRequest = Map.groupBy(rows, ({ request_id: requestId }) => requestId);
  const cutOff = rows.filter(({ status }) => status !== 'success');
  t.log(`${answered.size} answered, ${said.size} seen by the tool, ${rows.length} counted, ${cutOff.length} cut off`);
  t.true(cutOff.length > 0, 'some were under way when the process was killed');
  t.deepEqual(
    [...byRequest.values()].filter((some) => some.length > 1),
    [],
    'none is counted twice',
  );
  for (const requestId of said.keys()) t.true(byRequest.has(requestId), `${requestId} is no free call`);
  for (const [requestId, tokens] of answered) {
    t.is(said.get(requestId), tokens);
    t.like(byRequest.get(requestId)?.[0], { status: 'success', tokens });
  }
  for (const { request_id: requestId, status, tokens } of rows) {
    t.is(tokens, status === 'success' ? said.get(requestId)! : 0, requestId);
  }
  for (const { userId, subscriptions, usage } of users) {
    const own = rows.filter((row) => row.user_id === userId);
    const tokens = own.reduce((sum, row) => sum + row.tokens, 0);
    const { subscription } = await subscriptions.getSubscription({});
    const summary = await usage.getUsageSummary({ startDate: '', endDate: '' });
    const { pagination } = await usage.listUsage({ startDate: '', endDate: '', toolId: '', limit: 1, offset: 0 });
    t.is(Number(subscription!.tokensUsed), tokens);
    t.deepEqual([Number(summary.totalTokens), Number(summary.totalInvocations)], [tokens, own.length]);
    t.is(Number(pagination!.total), own.length);
  }
  const { rows: sums } = await database.query<{ tokens: number; invocations: number }>(
    'select sum(tokens)::int as tokens, sum(invocations)::int as invocations from tools.usage_days',
  );
  t.deepEqual(sums, [{ tokens: rows.reduce((sum, row) => sum + row.tokens, 0), invocations: rows.length }]);
});
