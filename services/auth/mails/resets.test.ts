import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import ava, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { AccountServiceService } from '#gen/chat4all/account/v1/account.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { hashOf } from '../sessions/opaque-tokens.ts';
import { database } from '../database.ts';
import { openStore } from '../store.ts';

/** One after another: hashing keeps every core busy, and what is done at once would wait for it. */
const test = ava.serial;

const hub = opened(openHarness, (hub) => hub.stop());
const auth = opened(() =>
  hub.startService('auth', { LOGIN_FAILURES: '2', RESET_URL: 'https://app.example/reset?t={token}' }),
);
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 3, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);

const password = 'Engine-1843';
const better = 'Engine-1844';
const from = (address: string = uuid()) =>
  hub.client(AccountServiceService, auth.address, { metadata: { 'x-forwarded-for': address } });

async function reasonOf(t: ExecutionContext, call: Promise<unknown>): Promise<string> {
  const { kind, reason } = (await t.throwsAsync(call, { instanceOf: HubError })) as HubError;
  return `${kind} ${reason}`;
}

const invalid = 'INVALID_ARGUMENT INVALID_RESET_TOKEN';

async function newcomer() {
  const email = `${uuid()}@example.com`;
  const { id, username } = await from().register({ name: 'Ada', email, password });
  return { id, email, username };
}

/** The text of the mails to somebody, as it is in their files. */
async function mailsTo(email: string): Promise<string[]> {
  const files = (await readdir(hub.mailDir)).filter((name) => name.endsWith('.eml'));
  const texts = await Promise.all(files.map((name) => readFile(path.join(hub.mailDir, name), 'utf8')));
  return texts.filter((text) => text.includes(`To: ${email}`));
}

const seen = new Set<string>();

/** Asks for a mail, and takes the token out of it. */
async function askFor(email: string): Promise<string> {
  const to = email.toLowerCase();
  const before = (await mailsTo(to)).length;
  await from().requestPasswordReset({ email });
  const mails = await eventually(
    'the mail is there',
    () => mailsTo(to),
    (found) => found.length > before,
  );
  const tokens = mails.flatMap((mail) => [...mail.matchAll(/c4p_[\w-]{28}/g)].map(([token]) => token));
  const token = tokens.find((each) => !seen.has(each))!;
  seen.add(token);
  return token;
}

test('requestPasswordReset: sends a mail whose link sets a new password, once', async (t) => {
  const { email, id } = await newcomer();
  const session = await from().login({ email, password });
  const token = await askFor(email.toUpperCase());
  const [mail] = await mailsTo(email);
  t.regex(mail!, /Subject: Choose a new password/);
  t.true(mail!.includes('https://app.example/reset?t'), mail);
  t.regex(mail!, /^Auto-Submitted: auto-generated/m);
  const [file] = await readdir(hub.mailDir);
  t.is((await stat(path.join(hub.mailDir, file!))).mode & 0o777, 0o600);

  t.deepEqual(await from().resetPassword({ token, newPassword: better }), {});
  t.is(await reasonOf(t, from().resetPassword({ token, newPassword: 'Engine-1845' })), invalid);
  t.is(await reasonOf(t, from().login({ email, password })), 'UNAUTHENTICATED INVALID_CREDENTIALS');
  t.is((await from().login({ email, password: better })).tokenType, 'bearer');
  t.is(
    await reasonOf(t, from().refreshTokens({ refreshToken: session.refreshToken })),
    'UNAUTHENTICATED REFRESH_TOKEN_REUSED',
    'all sessions have ended',
  );
  t.deepEqual(await db.sql('select from mails where user_id = $1', [id]), [], 'a mail that is sent is forgotten');
});

test('resetPassword: a weak password leaves the token usable, and every unmet rule is named', async (t) => {
  const { email } = await newcomer();
  const token = await askFor(email);
  const error = await t.throwsAsync<HubError>(from().resetPassword({ token, newPassword: 'weak' }) as Promise<never>);
  t.deepEqual(
    error!.fields.map(({ field, rule }) => `${field} ${rule}`),
    ['new_password min_length', 'new_password uppercase', 'new_password digit', 'new_password special'],
  );
  t.deepEqual(await from().resetPassword({ token, newPassword: better }), {});
});

test('resetPassword: of many at once with one token one succeeds', async (t) => {
  const { email } = await newcomer();
  const token = await askFor(email);
  const outcomes = await Promise.allSettled(
    Array.from({ length: 5 }, (_, number) => from().resetPassword({ token, newPassword: `Engine-185${number}` })),
  );
  t.is(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
  const reasons = outcomes.flatMap((each) => (each.status === 'rejected' ? [(each.reason as HubError).reason] : []));
  t.deepEqual([...new Set(reasons)], ['INVALID_RESET_TOKEN']);
});

test("resetPassword: the user's other tokens die with it, and somebody else's do not", async (t) => {
  const [one, other] = [await newcomer(), await newcomer()];
  const [first, second] = [await askFor(one.email), await askFor(one.email)];
  const theirs = await askFor(other.email);
  t.deepEqual(await from().resetPassword({ token: second, newPassword: better }), {});
  t.is(await reasonOf(t, from().resetPassword({ token: first, newPassword: better })), invalid);
  t.deepEqual(await from().resetPassword({ token: theirs, newPassword: better }), {});
});

test('resetPassword: a token that is too old, or of another kind, is no good', async (t) => {
  const { email } = await newcomer();
  const token = await askFor(email);
  await db.sql('update reset_tokens set expires_at = now() where token_hash = $1', [hashOf(token)]);
  const { refreshToken, accessToken } = await from().login({ email, password });
  for (const wrong of [token, refreshToken, accessToken, 'nonsense', hashOf(token).toString('hex')]) {
    t.is(await reasonOf(t, from().resetPassword({ token: wrong, newPassword: better })), invalid);
  }
});

test('resetPassword: who was shut out by failures gets in again, from this address', async (t) => {
  const { email } = await newcomer();
  const token = await askFor(email);
  const address = uuid();
  for (let failure = 0; failure < 2; failure += 1) {
    await reasonOf(t, from(address).login({ email, password: 'wrong' }));
  }
  t.is(await reasonOf(t, from(address).login({ email, password })), 'RESOURCE_EXHAUSTED TOO_MANY_LOGIN_FAILURES');
  await from(address).resetPassword({ token, newPassword: better });
  t.is((await from(address).login({ email, password: better })).tokenType, 'bearer');
});

test('requestPasswordReset: what it does is the same, in the same time, for an unknown email', async (t) => {
  const known = (await newcomer()).email;
  const times: Record<'known' | 'unknown', number[]> = { known: [], unknown: [] };
  for (let round = 0; round < 15; round += 1) {
    for (const kind of ['known', 'unknown'] as const) {
      const email = kind === 'known' ? known : `${uuid()}@example.com`;
      const client = from();
      await client.refreshTokens({ refreshToken: 'connects' }).catch(() => {});
      const began = performance.now();
      t.deepEqual(await client.requestPasswordReset({ email }), {});
      times[kind].push(performance.now() - began);
    }
  }
  const median = (some: number[]) => some.toSorted((a, b) => a - b)[7]!;
  const [one, other] = [median(times.known), median(times.unknown)];
  t.true(Math.abs(one - other) < Math.max(5, 0.5 * Math.max(one, other)), `${one} ms and ${other} ms`);
});

test('requestPasswordReset: one email gets three mails in an hour, with the same answer beyond', async (t) => {
  const { email, id } = await newcomer();
  for (let request = 0; request < 6; request += 1) t.deepEqual(await from().requestPasswordReset({ email }), {});
  await eventually(
    'all requests are answered',
    () => db.sql('select from reset_requests where email_key = $1 and pending', [email]),
    (waiting) => waiting.length === 0,
  );
  const tokens = await db.sql('select from reset_tokens where user_id = $1', [id]);
  t.is(tokens.length, 3);
});

test('requestPasswordReset: one address is served thirty times in an hour, with the same answer beyond', async (t) => {
  const address = uuid();
  for (let request = 0; request < 35; request += 1) {
    t.deepEqual(await from(address).requestPasswordReset({ email: `${uuid()}@example.com` }), {});
  }
  t.is((await db.sql('select from reset_requests where address = $1', [address])).length, 30);
});

test('requestPasswordReset: a disabled user gets no mail', async (t) => {
  const { email, id } = await newcomer();
  await db.sql(`update users set status = 'disabled' where id = $1`, [id]);
  await from().requestPasswordReset({ email });
  await eventually(
    'the request is answered',
    () => db.sql('select from reset_requests where email_key = $1 and not pending', [email]),
    (answered) => answered.length === 1,
  );
  t.deepEqual(await mailsTo(email), []);
  t.deepEqual(await db.sql('select from reset_tokens where user_id = $1', [id]), []);
});

test('requestPasswordReset: an email that is none is named', async (t) => {
  const error = await t.throwsAsync<HubError>(from().requestPasswordReset({ email: 'nobody' }) as Promise<never>);
  t.deepEqual(error!.fields[0]?.field, 'email');
});

test('sweeping: old requests and tokens are forgotten, a bounded batch at a time', async (t) => {
  const { id } = await newcomer();
  const old = new Date('2001-01-01');
  for (let number = 0; number < 3; number += 1) {
    await db.sql(`insert into reset_tokens (token_hash, user_id, created_at, expires_at) values ($1, $2, $3, $3)`, [
      hashOf(uuid()),
      id,
      old,
    ]);
    await db.sql(
      `insert into reset_requests (id, email_key, address, requested_at, pending) values ($1, 'x', 'x', $2, false)`,
      [uuid(), old],
    );
  }
  t.deepEqual([await store.sweepResetTokens(old, 2), await store.sweepResetTokens(old, 2)], [2, 1]);
  t.deepEqual([await store.sweepResetRequests(old, 2), await store.sweepResetRequests(old, 2)], [2, 1]);
});

test('the log shows no reset token', async (t) => {
  const { email } = await newcomer();
  const token = await askFor(email);
  await from().resetPassword({ token, newPassword: better });
  const log = auth.lines.join('');
  t.regex(log, /A mail is sent/);
  t.false(log.includes(token));
});
