import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import ava from 'ava';
import { decodeProtectedHeader } from 'jose';
import { AccountServiceService } from '#gen/chat4all/account/v1/account.ts';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { ConversationServiceService, ConversationType } from '#gen/chat4all/conversation/v1/conversation.ts';
import { MessageOrder, MessageServiceService } from '#gen/chat4all/message/v1/message.ts';
import { openHarness, serviceNames } from '../test/harness.ts';
import { makeKeyFolder, rotateKeys } from './key-folder.ts';

/** One after another, so that nothing takes the time of those that call. */
const test = ava.serial;

/** More than a process takes to look at its files again. */
const settle = 2_500;
const hour = 3_600_000;
const compare = (a: string, b: string) => a.localeCompare(b);
const page = { limit: undefined, offset: 0 };
const anySeq = { afterSeq: undefined, beforeSeq: undefined };

interface Jwk {
  kid: string;
  service: string;
  exp?: number;
}

async function openFolder() {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-keys-'));
  await makeKeyFolder(folder, serviceNames);
  const fileOf = (service: string, name: string) => path.join(folder, service, name);
  const read = async (service: string, name: string) => JSON.parse(await readFile(fileOf(service, name), 'utf8'));
  return {
    folder,
    keyOf: async (service: string) => (await read(service, 'identity-key.json')) as Jwk,
    trustedBy: async (service: string) => ((await read(service, 'trusted-keys.json')) as { keys: Jwk[] }).keys,
    envOf: (service: string) => ({
      IDENTITY_KEY: fileOf(service, 'identity-key.json'),
      TRUSTED_KEYS: fileOf(service, 'trusted-keys.json'),
    }),
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

test('rotateKeys: gives new keys to these services, tells all of them, and lets the old ones end', async (t) => {
  const keys = await openFolder();
  t.teardown(keys.remove);
  const before = await keys.keyOf('auth');
  const others = await keys.keyOf('file');
  const rotate = (trustFor: number) => rotateKeys(keys.folder, serviceNames, ['auth'], { trustFor, settle: 1 });

  await rotate(hour);
  const after = await keys.keyOf('auth');
  t.not(after.kid, before.kid);
  t.deepEqual(await keys.keyOf('file'), others);
  for (const service of serviceNames) {
    const known = new Map((await keys.trustedBy(service)).map((key) => [key.kid, key]));
    t.is(known.size, serviceNames.length + 1);
    t.true(Math.abs(known.get(before.kid)!.exp! * 1_000 - Date.now() - hour) < 5_000);
    t.is(known.get(after.kid)!.exp, undefined);
    t.is(known.get(others.kid)!.exp, undefined);
  }
  t.is((await stat(path.join(keys.folder, 'auth/identity-key.json'))).mode & 0o777, 0o600);

  // Twice more, the old ones being worthless at once: they are gone the next time.
  await rotate(0);
  await sleep(1_001);
  await rotate(0);
  const left = (await keys.trustedBy('file')).filter(({ service }) => service === 'auth').map(({ kid }) => kid);
  t.deepEqual(left.length, 2);
  t.true(left.includes((await keys.keyOf('auth')).kid));
});

test('makeKeyFolder: adds the keys of services that have none, and leaves the others as they are', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-keys-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const read = async (service: string, name: string) =>
    JSON.parse(await readFile(path.join(folder, service, name), 'utf8')) as Jwk & { keys: Jwk[] };
  await makeKeyFolder(folder, ['auth', 'file']);
  const first = await read('auth', 'identity-key.json');
  await makeKeyFolder(folder, ['auth', 'file', 'tools']);
  t.deepEqual(await read('auth', 'identity-key.json'), first);
  for (const service of ['auth', 'file', 'tools']) {
    const { keys } = await read(service, 'trusted-keys.json');
    t.deepEqual(
      keys.map((key) => key.service),
      ['auth', 'file', 'tools'],
    );
    t.true(keys.some(({ kid }) => kid === first.kid));
  }
  const before = await read('tools', 'trusted-keys.json');
  await makeKeyFolder(folder, ['auth', 'file', 'tools']);
  t.deepEqual(await read('tools', 'trusted-keys.json'), before);
});

test('secrets.ts: prints what is not set yet, in values that compose and docker can read', async (t) => {
  const print = (env: NodeJS.ProcessEnv) => {
    const text = execFileSync(process.execPath, [path.join(import.meta.dirname, 'secrets.ts')], {
      env,
      encoding: 'utf8',
    });
    return Object.fromEntries(
      text.split('\n').flatMap((line) => [...line.matchAll(/^(\w+)=('.*')$/g)].map((m) => [m[1]!, m[2]!])),
    );
  };
  const all = print({});
  for (const name of ['POSTGRES_PASSWORD', 'UPLOAD_URL_KEYS', 'TRUSTED_KEYS', 'TOOLS_IDENTITY_KEY'])
    t.truthy(all[name], name);
  t.deepEqual(print(all), {}, 'once all are set there is nothing to do');
  const { TOOLS_IDENTITY_KEY: _key, UPLOAD_URL_KEYS: _urls, ...older } = all;
  const added = print(older);
  t.deepEqual(Object.keys(added).toSorted(compare), ['TOOLS_IDENTITY_KEY', 'TRUSTED_KEYS', 'UPLOAD_URL_KEYS']);
  const keysIn = (text: string) => (JSON.parse(text.slice(1, -1)) as { keys: Jwk[] }).keys.map(({ kid }) => kid);
  const { kid } = JSON.parse(added.TOOLS_IDENTITY_KEY!.slice(1, -1)) as Jwk;
  t.deepEqual(keysIn(added.TRUSTED_KEYS!), [...keysIn(all.TRUSTED_KEYS!), kid]);
});

test('rotateKeys: changes nothing where a file is missing or none of ours', async (t) => {
  const keys = await openFolder();
  t.teardown(keys.remove);
  const before = await keys.trustedBy('auth');
  await writeFile(keys.envOf('message').TRUSTED_KEYS, '{"keys":[{}]}');
  await t.throwsAsync(rotateKeys(keys.folder, serviceNames, ['auth'], { trustFor: hour, settle: 1 }));
  await rm(keys.envOf('message').TRUSTED_KEYS);
  await t.throwsAsync(rotateKeys(keys.folder, serviceNames, ['auth'], { trustFor: hour, settle: 1 }));
  t.deepEqual(await keys.trustedBy('auth'), before);
});

test('keys of auth and of message are replaced twice while users and services call, and no call fails', async (t) => {
  t.timeout(180_000);
  const keys = await openFolder();
  t.teardown(keys.remove);
  const hub = await openHarness();
  t.teardown(() => hub.stop());
  const addresses: Record<string, string> = {};
  for (const name of ['auth', 'conversation', 'connectors', 'file', 'message']) {
    const { address } = await hub.startService(name, { SEED_USERS: '2', TOKEN_TTL: '1h', ...keys.envOf(name) });
    addresses[name] = address;
  }
  const login = async () => {
    const auth = hub.client(AuthServiceService, addresses.auth!);
    return (await auth.issueToken({ username: 'user1', password: 'password123' })).token;
  };
  const token = await login();
  const users = hub.client(AuthServiceService, addresses.auth!, { token });
  const conversations = hub.client(ConversationServiceService, addresses.conversation!, { token });
  const { key } = await hub
    .client(AccountServiceService, addresses.auth!, { token })
    .createApiKey({ name: 'of the test', expiresAt: undefined });
  const byKey = hub.client(ConversationServiceService, addresses.conversation!, { metadata: { 'x-api-key': key } });
  const messages = hub.client(MessageServiceService, addresses.message!, { token });
  /** Auth is asked whom it means. */
  const createConversation = () =>
    conversations.createConversation({
      type: ConversationType.CONVERSATION_TYPE_PRIVATE,
      members: ['user1', 'user2'],
      metadata: undefined,
    });
  const { conversation } = await createConversation();
  const conversationId = conversation!.conversationId;

  const done: Record<string, number> = {};
  const failed: string[] = [];
  const kids = new Set<string>();
  let isOver = false;
  const repeatedly = async (what: string, pause: number, call: () => Promise<unknown>) => {
    while (!isOver) {
      await call().then(
        () => (done[what] = (done[what] ?? 0) + 1),
        (error: unknown) => failed.push(`${what}: ${String(error)}`),
      );
      await sleep(pause);
    }
  };
  const load = [
    repeatedly('a user at auth', 2, () => users.getCurrentUser({})),
    repeatedly('a user at conversation', 2, () => conversations.listConversations(page)),
    repeatedly('an API key at conversation', 2, () => byKey.listConversations(page)),
    // Message asks conversation whether the caller is a member.
    repeatedly('message to conversation', 5, () =>
      messages.listMessages({ conversationId, ...page, order: MessageOrder.MESSAGE_ORDER_UNSPECIFIED, ...anySeq }),
    ),
    repeatedly('a login', 100, async () => {
      const fresh = await login();
      kids.add(decodeProtectedHeader(fresh).kid!);
      await hub.client(ConversationServiceService, addresses.conversation!, { token: fresh }).listConversations(page);
    }),
  ];
  try {
    const used = [await keys.keyOf('auth')];
    for (let times = 0; times < 2; times += 1) {
      await rotateKeys(keys.folder, serviceNames, ['auth', 'message'], { trustFor: hour, settle });
      used.push(await keys.keyOf('auth'));
      await sleep(settle);
    }
    t.deepEqual(kids, new Set(used.map(({ kid }) => kid)), 'each key of auth has signed');
  } finally {
    isOver = true;
    await Promise.all(load);
  }
  t.deepEqual(failed, []);
  for (const [what, count] of Object.entries(done)) t.true(count > 10, `${what}: ${count}`);
  t.is(Object.keys(done).length, load.length);
  t.log(JSON.stringify(done));
});
