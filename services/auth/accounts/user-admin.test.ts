import ava, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import {
  AccountRecordServiceService,
  AccountServiceService,
  Role,
  UserAdminServiceService,
  UserStatus,
  type AuditEvent,
  type ListAccountsRequest,
  type UpdateUserRequest,
} from '#gen/chat4all/account/v1/account.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { openStandings } from '../standings/standings.ts';
import { database } from '../database.ts';
import { openStore } from '../store.ts';

const test = ava.serial;

const hub = opened(openHarness, (hub) => hub.stop());
const auth = opened(() => hub.startService('auth', { SEED_USERS: '5' }));
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 3, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);
const standings = openStandings(db);

const { ROLE_ADMIN, ROLE_UNSPECIFIED, ROLE_USER } = Role;
const { USER_STATUS_ACTIVE, USER_STATUS_DISABLED, USER_STATUS_UNSPECIFIED } = UserStatus;

const userId = (number: number) => `00000000-0000-4000-8000-00000000000${number}`;
const adminId = async () => (await store.findCredentials('admin'))!.id;
const asAdmin = async (id?: string, username = 'admin', metadata: Record<string, string> = {}) =>
  hub.client(UserAdminServiceService, auth.address, {
    token: await hub.userToken({ userId: id ?? (await adminId()), username, admin: true }),
    metadata,
  });
const records = async () =>
  hub.client(AccountRecordServiceService, auth.address, { token: await hub.serviceToken('tools', 'auth') });

const page = (more: Partial<ListAccountsRequest> = {}): ListAccountsRequest => ({
  limit: undefined,
  offset: 0,
  role: ROLE_UNSPECIFIED,
  ...more,
});
const change = (id: string, more: Partial<UpdateUserRequest>): UpdateUserRequest => ({
  userId: id,
  role: ROLE_UNSPECIFIED,
  status: USER_STATUS_UNSPECIFIED,
  ...more,
});
/** Waits until the service has heard that a user is an administrator again. */
const heardOf = async (id: string) => {
  const api = await asAdmin(id);
  await eventually(
    'the administrator is known as one',
    () =>
      api.listAccounts(page({ limit: 1 })).then(
        () => true,
        () => false,
      ),
    (isKnown) => isKnown,
  );
  return api;
};
const audited = async (more: { actor?: string; action?: string; limit?: number; offset?: number } = {}) =>
  (await asAdmin()).listAuditEvents({ limit: undefined, offset: 0, actor: '', action: '', ...more });

async function refusal(t: ExecutionContext, call: Promise<unknown>): Promise<HubError> {
  return (await t.throwsAsync(call, { instanceOf: HubError })) as HubError;
}

test('listAccounts: shows all users, oldest first, or those with a role', async (t) => {
  const api = await asAdmin();
  const { users, pagination } = await api.listAccounts(page());
  t.deepEqual(pagination, { offset: 0, limit: 20, total: 6n });
  t.deepEqual(
    users.map(({ username }) => username),
    ['user1', 'user2', 'user3', 'user4', 'user5', 'admin'],
  );
  t.like(users[0], {
    id: userId(1),
    name: 'User 1',
    email: 'user1@example.com',
    role: ROLE_USER,
    status: USER_STATUS_ACTIVE,
    subscription: undefined,
  });
  const second = await api.listAccounts(page({ limit: 2, offset: 1 }));
  t.deepEqual(
    second.users.map(({ username }) => username),
    ['user2', 'user3'],
  );
  t.deepEqual(second.pagination, { offset: 1, limit: 2, total: 6n });
  const admins = await api.listAccounts(page({ role: ROLE_ADMIN }));
  t.deepEqual(
    admins.users.map(({ username, email }) => [username, email]),
    [['admin', 'admin@example.com']],
  );
  t.is((await api.listAccounts(page({ role: ROLE_USER }))).pagination?.total, 5n);
  for (const bad of [{ limit: 0 }, { limit: 101 }, { offset: -1 }]) {
    t.deepEqual((await refusal(t, api.listAccounts(page(bad)))).fields[0]?.field, Object.keys(bad)[0]);
  }
});

test('recordChanges: a subscription is shown beside its user as it is now, and an older one changes nothing', async (t) => {
  const api = await records();
  const record = async (version: bigint, plan: string, expiresAt: Date | undefined) =>
    api.recordChanges({ subscriptions: [{ userId: userId(1), plan, expiresAt, version }], auditEvents: [] });
  const shown = async () => (await (await asAdmin()).listAccounts(page({ limit: 1 }))).users[0]?.subscription;
  await record(2n, 'pro', undefined);
  t.deepEqual(await shown(), { plan: 'pro', status: 'active' });
  await record(1n, 'free', undefined);
  await record(2n, 'enterprise', undefined);
  t.deepEqual(await shown(), { plan: 'pro', status: 'active' });
  await record(3n, 'pro', new Date(Date.now() + 60_000));
  t.deepEqual(await shown(), { plan: 'pro', status: 'cancelled' });
  await record(4n, 'pro', new Date(Date.now() - 1));
  t.deepEqual(await shown(), { plan: 'pro', status: 'expired' });
  await api.recordChanges({
    subscriptions: [
      { userId: userId(1), plan: 'enterprise', expiresAt: undefined, version: 6n },
      { userId: userId(1), plan: 'free', expiresAt: undefined, version: 5n },
      { userId: uuid(), plan: 'free', expiresAt: undefined, version: 1n },
    ],
    auditEvents: [],
  });
  t.deepEqual(await shown(), { plan: 'enterprise', status: 'active' });
  t.like((await (await asAdmin()).updateUser(change(userId(1), { role: ROLE_USER }))).user, {
    subscription: { plan: 'enterprise', status: 'active' },
  });
});

test('recordChanges: the same at once from many leaves the newest', async (t) => {
  const api = await records();
  const ids = [1, 2, 3, 4, 5].map(userId);
  await Promise.all(
    Array.from({ length: 20 }, (_, number) =>
      api.recordChanges({
        subscriptions: (number % 2 === 0 ? ids : ids.toReversed()).map((id) => ({
          userId: id,
          plan: `plan ${number}`,
          expiresAt: undefined,
          version: BigInt(100 + number),
        })),
        auditEvents: [],
      }),
    ),
  );
  const { users } = await (await asAdmin()).listAccounts(page({ role: ROLE_USER }));
  t.deepEqual(new Set(users.map(({ subscription }) => subscription?.plan)), new Set(['plan 19']));
});

test('recordChanges: an audit event is there once, however often it is told', async (t) => {
  const api = await records();
  const event: AuditEvent = {
    id: uuid(),
    actorId: await adminId(),
    action: 'tool.create',
    target: uuid(),
    at: new Date('2026-11-29T12:00:00.123Z'),
    requestId: 'request-1',
  };
  await api.recordChanges({ subscriptions: [], auditEvents: [event] });
  await api.recordChanges({ subscriptions: [], auditEvents: [event, { ...event, id: uuid(), action: 'tool.delete' }] });
  t.deepEqual((await audited({ action: 'tool.create' })).events, [event]);
  t.is((await audited({ actor: event.actorId })).pagination?.total, 2n);
  t.deepEqual((await refusal(t, audited({ action: 'nonsense' }))).fields[0]?.field, 'action');
  t.deepEqual((await refusal(t, audited({ actor: 'nonsense' }))).fields[0]?.field, 'actor');
});

test('countUsers: counts all of them, for the tools service alone', async (t) => {
  t.is((await (await records()).countUsers({})).total, 6n);
  const other = hub.client(AccountRecordServiceService, auth.address, {
    token: await hub.serviceToken('message', 'auth'),
  });
  t.is((await refusal(t, other.countUsers({}))).kind, 'PERMISSION_DENIED');
});

test('updateUser: changes role and status, takes down who did, and tells all services', async (t) => {
  const actor = await adminId();
  const api = await asAdmin(actor, 'admin', { 'x-request-id': 'change-1' });
  const last = async () => (await standings.changesAfter(0n)).at(-1);
  const { user } = await api.updateUser(change(userId(2), { role: ROLE_ADMIN }));
  t.like(user, { id: userId(2), role: ROLE_ADMIN, status: USER_STATUS_ACTIVE });
  t.deepEqual((await last())?.user, { userId: userId(2), admin: true, disabled: false });
  const { events } = await audited({ action: 'user.update', limit: 1 });
  t.like(events[0], { actorId: actor, target: userId(2), requestId: 'change-1', action: 'user.update' });

  const both = await api.updateUser(change(userId(2), { role: ROLE_USER, status: USER_STATUS_DISABLED }));
  t.like(both.user, { role: ROLE_USER, status: USER_STATUS_DISABLED });
  t.deepEqual((await last())?.user, { userId: userId(2), admin: false, disabled: true });
  await api.updateUser(change(userId(2), { status: USER_STATUS_ACTIVE }));
  t.is((await audited({ action: 'user.update' })).pagination?.total, 3n);
});

test('updateUser: what is so already is no change', async (t) => {
  const before = (await audited()).pagination?.total;
  const { user } = await (
    await asAdmin()
  ).updateUser(change(userId(3), { role: ROLE_USER, status: USER_STATUS_ACTIVE }));
  t.like(user, { id: userId(3), role: ROLE_USER });
  t.is((await audited()).pagination?.total, before);
});

test('updateUser: says which fields are wrong, and who is not there', async (t) => {
  const api = await asAdmin();
  const fields = async (request: UpdateUserRequest) =>
    (await refusal(t, api.updateUser(request))).fields.map(({ field, rule }) => `${field} ${rule}`);
  t.deepEqual(await fields(change(userId(1), {})), ['role required', 'status required']);
  t.deepEqual((await fields(change('nonsense', { role: ROLE_USER }))).length, 1);
  t.deepEqual((await fields(change(userId(1), { role: 7 as Role })))[0]?.split(' ')[0], 'role');
  const { kind, reason } = await refusal(t, api.updateUser(change(uuid(), { role: ROLE_USER })));
  t.is(`${kind} ${reason}`, 'NOT_FOUND USER_NOT_FOUND');
});

test('updateUser: the last active administrator stays one', async (t) => {
  const actor = await adminId();
  const api = await asAdmin();
  await api.updateUser(change(userId(4), { role: ROLE_ADMIN }));
  await api.updateUser(change(userId(4), { status: USER_STATUS_DISABLED }));
  for (const more of [{ role: ROLE_USER }, { status: USER_STATUS_DISABLED }]) {
    const { kind, reason } = await refusal(t, api.updateUser(change(actor, more)));
    t.is(`${kind} ${reason}`, 'ALREADY_EXISTS LAST_ADMIN', 'a disabled administrator is none to count on');
  }
  t.like((await api.updateUser(change(userId(4), { role: ROLE_USER, status: USER_STATUS_ACTIVE }))).user, {
    role: ROLE_USER,
  });
});

test('updateUser: of the last two administrators who demote each other at once one stays', async (t) => {
  const actor = await adminId();
  for (let round = 0; round < 5; round += 1) {
    const first = await heardOf(actor);
    await first.updateUser(change(userId(5), { role: ROLE_ADMIN }));
    const second = await heardOf(userId(5));
    const outcomes = await Promise.allSettled([
      first.updateUser(change(userId(5), { role: ROLE_USER })),
      second.updateUser(change(actor, round % 2 === 0 ? { role: ROLE_USER } : { status: USER_STATUS_DISABLED })),
    ]);
    t.is(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    const left = await db.sql<{ id: string }>(`select id from users where role = 'admin' and status = 'active'`);
    t.is(left.length, 1);
    const survivor = await heardOf(left[0]!.id);
    await survivor.updateUser(change(actor, { role: ROLE_ADMIN, status: USER_STATUS_ACTIVE }));
  }
  await (await heardOf(actor)).updateUser(change(userId(5), { role: ROLE_USER }));
});

test('an email stands beside its user as it was written', async (t) => {
  const anybody = hub.client(AccountServiceService, auth.address);
  const email = `Grace.${uuid()}@Example.com`;
  const { id } = await anybody.register({ name: 'Grace', email, password: 'Engine-1843' });
  const { users } = await (await asAdmin()).listAccounts(page({ limit: 100 }));
  t.is(users.find((user) => user.id === id)?.email, email);
});

test('sweeping: what administrators did long ago is forgotten, a bounded batch at a time', async (t) => {
  const old = (day: number) => ({
    id: uuid(),
    actorId: uuid(),
    action: 'tool.update',
    target: uuid(),
    at: new Date(Date.UTC(2001, 0, day)),
    requestId: 'old',
  });
  await store.recordAuditEvents([old(1), old(2), old(3)]);
  const until = new Date('2001-01-03');
  t.is(await store.sweepAuditEvents(until, 2), 2);
  t.is(await store.sweepAuditEvents(until, 2), 1);
  t.is(await store.sweepAuditEvents(until, 2), 0);
});
