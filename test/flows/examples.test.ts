import test from 'ava';
import { startDemoTools } from '../../dev/demo-tools.ts';
import type { OpenApi } from '../conformity.ts';
import { openRest, type Rest, type Token } from '../rest.ts';
import { startMesh } from '../harness.ts';
import { opened } from '../opened.ts';

/** The examples of the OpenAPI document, sent as they stand there, for the users that `npm start` makes. */
const demoTools = opened(startDemoTools, (tools) => tools.stop());
const hub = opened(
  () => startMesh({ bus: 'embedded', env: { ADMIN_USERS: 'user5', DEMO_TOOLS_URL: demoTools.url } }),
  (hub) => hub.stop(),
);
interface Parameter {
  name: string;
  in: 'path' | 'query' | 'header';
  required?: boolean;
  example?: unknown;
}

interface Example {
  method: string;
  path: string;
  parameters: Parameter[];
  requestBody?: { content: Record<string, { example?: unknown }> };
}

const anonymous = opened(() => openRest(hub.url));
/** By operationId. */
const examples = opened(async () => examplesOf((await anonymous.get('/openapi.json')) as OpenApi));

function examplesOf(document: OpenApi): Map<string, Example> {
  const examples = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      const { parameters } = operation as unknown as { parameters: (Parameter | { $ref: string })[] };
      const own = parameters.filter((each): each is Parameter => 'name' in each);
      const example: Example = { ...operation, method: method.toUpperCase(), path, parameters: own };
      return [operation.operationId, example] as const;
    }),
  );
  return new Map(examples);
}

/** Sends an example. Ids that only an answer before can tell come in place of those that stand there. */
async function send(
  rest: Rest,
  operationId: string,
  ids: Record<string, string> = {},
  contentType = 'application/json',
): Promise<Record<string, unknown>> {
  const { method, path, parameters, requestBody } = examples.get(operationId)!;
  const valueOf = ({ name, example }: Parameter) => encodeURIComponent(ids[name] ?? String(example));
  const query = parameters
    .filter((each) => each.in === 'query' && (each.required === true || each.example !== undefined))
    .map((each) => `${each.name}=${valueOf(each)}`);
  const target = parameters
    .filter((each) => each.in === 'path')
    .reduce((text, each) => text.replace(`{${each.name}}`, valueOf(each)), path);
  const sent = requestBody?.content[contentType]?.example;
  const replaced = Object.fromEntries(
    Object.entries(typeof sent === 'object' && sent !== null ? sent : {}).map(([name, value]) => [
      name,
      ids[name] ?? value,
    ]),
  );
  const call =
    sent === undefined
      ? {}
      : typeof sent === 'string'
        ? { body: sent, headers: { 'Content-Type': contentType } }
        : { json: replaced };
  const answer = await rest.call(method, `${target}?${query.join('&')}`, call);
  if (answer.status >= 300) throw new Error(`${operationId}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return (answer.body ?? {}) as Record<string, unknown>;
}

/** Whoever logs in as the example does, under another name and with another password. */
async function logIn(username?: string, password?: string): Promise<Rest> {
  const others = { ...(username !== undefined && { username }), ...(password !== undefined && { password }) };
  const { token } = await send(anonymous, 'issueToken', others);
  return openRest(hub.url, token as Token['token']);
}

test('the examples work for user1, from the login to the file', async (t) => {
  const rest = await logIn();
  const me = await send(rest, 'getCurrentUser');
  const { users } = await send(rest, 'listUsers');
  t.is((users as unknown[]).length, 1);
  const { conversation_id } = (await send(rest, 'createConversation')) as { conversation_id: string };
  const message = await send(rest, 'sendMessage', { conversation_id });
  t.like(message, { status: 'accepted' });
  t.like(await send(rest, 'getMessage'), { conversation_id, from: me['user_id'] });
  const page = await send(rest, 'listMessages', { conversation_id });
  t.is(page['total'], 1);
  t.like(await send(rest, 'listConversations'), { total: 1 });
  t.like(await send(rest, 'getConversation', { conversation_id }), { conversation_id });

  const { file_id } = (await send(rest, 'initiateUpload')) as { file_id: string };
  await send(rest, 'uploadChunk', { file_id });
  t.like(await send(rest, 'uploadChunk', { file_id }, 'application/octet-stream'), { status: 'uploaded' });
  t.like(await send(rest, 'completeUpload', { file_id }), { status: 'completed' });
  t.like(await send(rest, 'getFile', { file_id }), { filename: 'hello.txt' });
  await send(rest, 'deleteFile', { file_id });
  await send(rest, 'leaveConversation', { conversation_id });
});

test('the examples for administrators work for one', async (t) => {
  const rest = await logIn('user5');
  const profile = await send(rest, 'setProfile');
  t.like(profile, { rate_limit: 100 });
  t.deepEqual(await send(rest, 'getProfile'), profile);
  t.like(await send(rest, 'resetProfile'), { rate_limit: 0 });
  for (const id of ['listEffects', 'listDeadLetters', 'replayDeadLetters', 'getAudit']) {
    t.truthy(await send(rest, id));
  }
});

test('the examples of accounts and tools work, from registering to what was used', async (t) => {
  const dataOf = async (...[rest, operationId, ids = {}]: Parameters<typeof send>) =>
    (await send(rest, operationId, ids))['data'] as Record<string, unknown>;
  t.like(await dataOf(anonymous, 'register'), { username: 'ada', role: 'user' });
  const { access_token, refresh_token } = await dataOf(anonymous, 'login');
  const rest = openRest(hub.url, access_token as string);
  t.like(await dataOf(rest, 'getAccount'), { username: 'user1', email: 'user1@example.com' });
  t.like(await dataOf(rest, 'updateAccount'), { name: 'User 1' });
  const { id, key } = await dataOf(rest, 'createApiKey');
  t.regex(key as string, /^c4a_/);
  t.is(((await dataOf(rest, 'listApiKeys')) as unknown as unknown[]).length, 1);
  t.deepEqual(await dataOf(rest, 'revokeApiKey', { key_id: id as string }), {});
  t.deepEqual(await dataOf(anonymous, 'requestPasswordReset'), {});
  const refreshed = await dataOf(anonymous, 'refreshTokens', { refresh_token: refresh_token as string });
  t.deepEqual(await dataOf(rest, 'logout', { refresh_token: refreshed['refresh_token'] as string }), {});

  const admin = await logIn('admin@example.com', 'Admin-12345');
  t.like(await dataOf(admin, 'updateUser'), { username: 'user2', role: 'user' });
  t.true(((await dataOf(admin, 'listAccounts')) as unknown as unknown[]).length > 5);
  t.deepEqual((await dataOf(admin, 'listAuditEvents')) as unknown, []);

  const listOf = async (caller: Rest, operationId: string) =>
    (await dataOf(caller, operationId)) as unknown as Record<string, unknown>[];
  t.deepEqual(
    (await listOf(rest, 'listTools')).map(({ name }) => name),
    ['echo', 'text-stats'],
  );
  t.like(await dataOf(rest, 'getTool'), { name: 'echo' });
  t.is((await listOf(rest, 'listPlans')).length, 3);
  t.like(await dataOf(rest, 'subscribe'), { plan: 'free', status: 'active' });
  t.deepEqual((await dataOf(rest, 'invokeTool'))['output'], { echo: { text: 'Hello' } });
  t.is((await listOf(rest, 'listUsage')).length, 1);
  t.like(await dataOf(rest, 'getUsageSummary'), { total_invocations: 1 });
  t.like(await dataOf(rest, 'cancelSubscription'), { status: 'cancelled' });
  t.like(await dataOf(rest, 'getSubscription'), { status: 'cancelled' });

  t.like(await dataOf(admin, 'createTool'), { name: 'translate', is_active: true });
  t.like(await dataOf(admin, 'updateTool'), { name: 'echo', is_active: true });
  t.is((await listOf(admin, 'listAllTools')).length, 3);
  t.like(await dataOf(admin, 'getUsageStats'), { total_invocations: 1 });
  t.deepEqual(await send(admin, 'deleteTool'), {});
  t.deepEqual(
    (await listOf(admin, 'listAuditEvents')).map(({ action }) => action),
    ['tool.delete', 'tool.create'],
  );
});
