import test from 'ava';
import { v4 as uuid } from 'uuid';
import { RefusedError } from '../../client/fetch.ts';
import { AccountService, UserAdminService } from '../../client/gen/chat4all/account/v1/account.pb.ts';
import { AuthService } from '../../client/gen/chat4all/auth/v1/auth.pb.ts';
import { startMesh } from '../harness.ts';
import { opened } from '../opened.ts';

/** The client of the API under /api/v1, as somebody uses it who has nothing else. */

const mesh = opened(
  () => startMesh({ bus: 'embedded', services: ['auth'], env: { SEED_USERS: '1' } }),
  (mesh) => mesh.stop(),
);

const password = 'Engine-1843';
const open = () => ({ pathPrefix: mesh.url });

async function bearer(email: string, secret: string) {
  const { access_token: token } = await AccountService.Login({ email, password: secret }, open());
  return { ...open(), headers: { authorization: `Bearer ${token}` } };
}

test('client: an account, an API key, and what that may do here and in the hub', async (t) => {
  const email = `${uuid()}@example.com`;
  const account = await AccountService.Register({ name: 'Ada Lovelace', email, password }, open());
  t.like(account, { name: 'Ada Lovelace', email, role: 'user' });
  const init = await bearer(email, password);
  const { id, key } = await AccountService.CreateApiKey({ name: 'my laptop' }, init);
  const withKey = { ...open(), apiKey: key };
  t.like(await AccountService.GetAccount({}, withKey), { id: account.id });
  t.like(await AuthService.GetCurrentUser({}, withKey), { user_id: account.id });
  const [listed] = await AccountService.ListApiKeys({}, init);
  t.like(listed, { id, name: 'my laptop', active: true });
  t.false('expires_at' in listed!);
  t.deepEqual(await AccountService.RevokeApiKey({ key_id: id }, init), {});
});

test('client: a refusal has its code, all that is wrong, and the id of its request', async (t) => {
  const refused = async (call: Promise<unknown>) => (await t.throwsAsync(call, { instanceOf: RefusedError }))!;
  const weak = await refused(AccountService.Register({ name: '', email: 'nobody', password: 'weak' }, open()));
  t.like(weak, { status: 400, code: 'VALIDATION_ERROR' });
  t.deepEqual(new Set(weak.details.map(({ field }) => field)), new Set(['name', 'email', 'password']));
  t.true(weak.details.every(({ message, rule }) => message !== '' && rule !== undefined));
  t.regex(weak.requestId!, /^[\w.:-]+$/);
  t.like(await refused(AccountService.GetAccount({}, open())), { status: 401, code: 'UNAUTHORIZED', details: [] });
  const key = { ...open(), apiKey: `c4a_${'x'.repeat(43)}` };
  t.like(await refused(AccountService.GetAccount({}, key)), { status: 401, code: 'UNAUTHORIZED' });
  t.like(await refused(AuthService.GetCurrentUser({}, key)), { status: 401, code: 'API_KEY_INVALID' });
});

test('client: a page says beside its list how much there is in all', async (t) => {
  const init = await bearer('admin@example.com', 'Admin-12345');
  const users = await UserAdminService.ListAccounts({ limit: 1 }, init);
  t.is(users.length, 1);
  t.like(users.pagination, { offset: 0, limit: 1 });
  t.true(users.pagination.total >= 2);
});
