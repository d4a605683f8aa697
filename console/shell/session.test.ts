import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { accessibilityProblems, chromiumIsThere, openBrowser, openPage } from '../../test/browser.ts';
import { fill, follow, logIn, press, shows, textOf } from '../../test/console.ts';
import { eventually } from '../../test/eventually.ts';
import { openConversation, openedMeshes, send, type Person } from '../../test/flows/meshes.ts';
import { opened } from '../../test/opened.ts';

/** Logins in a browser: how long they last, and what becomes of the work of somebody whose login ends. */

const inBrowser = chromiumIsThere ? test.serial : test.skip;
/** Access tokens of seconds: each of these tests sees several. */
const [mesh] = openedMeshes(['embedded'], { people: 6, env: { ACCESS_TOKEN_TTL: '3s', REFRESH_TOKEN_TTL: '30s' } });
const browser = opened(openBrowser, (browser) => browser.close());

inBrowser('tabs share a session: a new one needs no login, and renewing in all of them logs nobody out', async (t) => {
  const [user1, user2] = mesh!.people as [Person, Person];
  const id = await openConversation([user2, user1]);
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const one = await logIn(context, mesh!.url, 'user1');
  const two = await openPage(context);
  await two.page.goto(`${mesh!.url}/console/messages/${id}`);
  await shows(two.page, 'Write the first one.');
  const refreshed = () => mesh!.gateway.lines.filter((line) => line.includes('/api/v1/auth/refresh')).length;
  t.true((await eventually('tokens were renewed', refreshed, (count) => count >= 3, 40_000)) >= 3);
  await send(user2, id, { payload: { type: 'text', text: 'Still there?' } });
  await Promise.all([one, two].map(({ page }) => shows(page, 'Still there?')));
  await press(two.page, 'Log out');
  await shows(one.page, 'Forgotten the password?');
});

inBrowser('logging out in one tab ends the session of another one that is just renewing it', async (t) => {
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const one = await logIn(context, mesh!.url, 'user1');
  const two = await openPage(context);
  await two.page.goto(`${mesh!.url}/console/messages`);
  await shows(two.page, 'Log out');
  // The answer to a renewal is kept back until the other tab has logged out, and so is the page that begins anew.
  const devtools = await one.page.createCDPSession();
  const paused: { requestId: string; isAnswer: boolean }[] = [];
  devtools.on('Fetch.requestPaused', ({ requestId, responseStatusCode }) => {
    paused.push({ requestId, isAnswer: responseStatusCode !== undefined });
  });
  await devtools.send('Fetch.enable', {
    patterns: [
      { urlPattern: '*/api/v1/auth/refresh', requestStage: 'Response' },
      { urlPattern: `${mesh!.url}/console`, resourceType: 'Document', requestStage: 'Request' },
    ],
  });
  const held = (isAnswer: boolean) => paused.filter((each) => each.isAnswer === isAnswer);
  const some = (found: readonly unknown[]) => found.length > 0;
  const [renewal] = await eventually('it renews', () => held(true), some, 40_000);
  await press(two.page, 'Log out');
  const [page] = await eventually('it begins anew', () => held(false), some, 20_000);
  await devtools.send('Fetch.continueRequest', { requestId: renewal!.requestId });
  // What came for the user is dealt with.
  await sleep(200);
  await devtools.send('Fetch.continueRequest', { requestId: page!.requestId });
  await Promise.all([one, two].map(({ page }) => shows(page, 'Forgotten the password?')));
  for (const { page } of [one, two]) t.notRegex(await textOf(page), /Log out/);
});

inBrowser('a session that ends: the login comes over the page, and what was typed is there behind it', async (t) => {
  const [, , user3, user4] = mesh!.people as Person[] as [Person, Person, Person, Person];
  const id = await openConversation([user3, user4]);
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page } = await logIn(context, mesh!.url, 'user3', { view: `/messages/${id}` });
  await fill(page, 'Message', 'Half of a sen');
  // Somewhere else, the session is ended.
  const refresh = (await page.evaluate('JSON.parse(sessionStorage["chat4all.tokens"]).refresh')) as string;
  const login = await user3.rest.call('POST', '/api/v1/auth/login', {
    json: { email: 'user3', password: 'password123' },
  });
  const { access_token } = (login.body as { data: { access_token: string } }).data;
  const ended = await fetch(`${mesh!.url}/api/v1/auth/logout`, {
    method: 'POST',
    headers: { authorization: `Bearer ${access_token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ refresh_token: refresh }),
  });
  t.is(ended.status, 200);
  await shows(page, 'Your login has ended');
  t.deepEqual(await accessibilityProblems(page), []);
  await fill(page, 'Password', 'password123');
  await press(page, 'Log in');
  await page.waitForSelector('dialog', { hidden: true });
  t.true(page.url().endsWith(`/console/messages/${id}`));
  t.is(await page.$eval('textarea', (field) => field.value), 'Half of a sen');
  await press(page, 'Send');
  await shows(page, 'WhatsApp\nDelivered');
});

inBrowser('register, wrong password, forgotten password: each says what is wrong with which field', async (t) => {
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page } = await openPage(context);
  await page.goto(`${mesh!.url}/console/register`);
  await fill(page, 'Name', 'Ada <b>Lovelace</b>');
  await fill(page, 'Email', 'ada@example.com');
  await fill(page, 'Password', 'too-simple');
  await press(page, 'Create the account');
  await page.waitForSelector('[aria-invalid=true][type=password]');
  t.deepEqual(await accessibilityProblems(page), []);
  await fill(page, 'Password', 'Engine-1843');
  await press(page, 'Create the account');
  await shows(page, 'No conversations yet');
  await press(page, 'Log out');
  await fill(page, 'Username or email', 'ada@example.com');
  await fill(page, 'Password', 'Engine-1844');
  await press(page, 'Log in');
  await shows(page, 'The name or the password is wrong.');
  t.deepEqual(await accessibilityProblems(page), []);
  await follow(page, 'Forgotten the password?');
  await fill(page, 'Email', 'ada@example.com');
  await press(page, 'Send the link');
  await shows(page, 'a mail with a link is on its way');
  t.deepEqual(await accessibilityProblems(page), []);
  const link = await eventually(
    'the mail',
    () => linkIn(mesh!.mailDir),
    (found) => found !== undefined,
  );
  await page.goto(`${mesh!.url}/console/reset?token=${link!}`);
  await fill(page, 'New password', 'Engine-1845');
  t.deepEqual(await accessibilityProblems(page), []);
  await press(page, 'Change the password');
  await shows(page, 'The password is changed.');
  t.false(page.url().includes('token'));
  await follow(page, 'Back to the login');
  await fill(page, 'Username or email', 'ada');
  await fill(page, 'Password', 'Engine-1845');
  await press(page, 'Log in');
  await shows(page, 'No conversations yet');
  t.false((await textOf(page)).includes('Log in'));
});

/** The token in the link of a mail that was written. */
async function linkIn(folder: string): Promise<string | undefined> {
  for (const name of await readdir(folder)) {
    const [, token] =
      /token=(?:3D)?(c4p_[\w-]+)/.exec((await readFile(path.join(folder, name), 'utf8')).replaceAll('=\n', '')) ?? [];
    if (token !== undefined) return token;
  }
  return undefined;
}
