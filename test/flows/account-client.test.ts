import test from 'ava';
import { v4 as uuid } from 'uuid';
import { createClient, RefusedError } from '../../client/client.ts';
import { startMesh } from '../harness.ts';
import { opened } from '../opened.ts';

/** The client of the API under /api/v1, as somebody uses it who has nothing else. */

const mesh = opened(
  () => startMesh({ bus: 'embedded', services: ['auth'], env: { SEED_USERS: '1' } }),
  (mesh) => mesh.stop(),
);

const password = 'Engine-1843';
const open = (apiKey?: string) => createClient({ baseUrl: mesh.url, ...(apiKey && { apiKey }) });

async function bearer(email: string, secret: string) {
  const { access_token: token } = await open().account.login({ email, password: secret });
  return createClient({ baseUrl: mesh.url, token: () => token });
}

test('client: an account, an API key, and what that may do here and in the hub', async (t) => {
  const email = `${uuid()}@example.com`;
  const account = await open().account.register({ name: 'Ada Lovelace', email, password });
  t.like(account, { name: 'Ada Lovelace', email, role: 'user' });
  const client = await bearer(email, password);
  const { id, key } = await client.account.createApiKey({ name: 'my laptop' });
  const withKey = open(key);
  t.like(await withKey.account.getAccount({}), { id: account.id });
  t.like(await withKey.auth.getCurrentUser({}), { user_id: account.id });
  const [listed] = await client.account.listApiKeys({});
  t.like(listed, { id, name: 'my laptop', active: true });
  t.false('expires_at' in listed!);
  t.deepEqual(await client.account.revokeApiKey({ key_id: id }), {});
});

test('client: a refusal has its code, all that is wrong, and the id of its request', async (t) => {
  const refused = async (call: Promise<unknown>) => (await t.throwsAsync(call, { instanceOf: RefusedError }))!;
  const weak = await refused(open().account.register({ name: '', email: 'nobody', password: 'weak' }));
  t.like(weak, { status: 400, code: 'VALIDATION_ERROR' });
  t.deepEqual([...new Set(weak.details.map(({ field }) => field))].toSorted(), ['email', 'name', 'password']);
  t.true(weak.details.every(({ message, rule }) => message !== '' && rule !== undefined));
  t.regex(weak.requestId!, /^[\w.:-]+$/);
  t.like(await refused(open().account.getAccount({})), { status: 401, code: 'UNAUTHORIZED', details: [] });
  const withKey = open(`c4a_${'x'.repeat(43)}`);
  t.like(await refused(withKey.account.getAccount({})), { status: 401, code: 'UNAUTHORIZED' });
  t.like(await refused(withKey.auth.getCurrentUser({})), { status: 401, code: 'API_KEY_INVALID' });
});

test('client: a page says beside its list how much there is in all', async (t) => {
  const client = await bearer('admin@example.com', 'Admin-12345');
  const users = await client.userAdmin.listAccounts({ limit: 1 });
  t.is(users.length, 1);
  t.like(users.pagination, { offset: 0, limit: 1 });
  t.true(users.pagination.total >= 2);
});
