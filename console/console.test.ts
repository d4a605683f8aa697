import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { accessibilityProblems, chromiumIsThere, openBrowser } from '../test/browser.ts';
import { logIn, press, shows, textOf } from '../test/console.ts';
import { openConversation, openedMeshes, send, type Person } from '../test/flows/meshes.ts';
import { opened } from '../test/opened.ts';

/** The console as the gateway serves it, in a browser. `npm run console:build` makes what is tested. */

const inBrowser = chromiumIsThere ? test.serial : test.skip;
const [mesh] = openedMeshes(['embedded']);
const browser = opened(openBrowser, (browser) => browser.close());

test('the page may be loaded under a strict policy, and its files be kept for good', async (t) => {
  const page = await fetch(`${mesh!.url}/console/messages/x`);
  t.is(page.status, 200);
  t.is(page.headers.get('content-type'), 'text/html; charset=utf-8');
  t.is(page.headers.get('cache-control'), 'no-cache');
  const policy = page.headers.get('content-security-policy')!;
  t.false(/unsafe|\*|http:/.test(policy), policy);
  for (const part of ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"]) t.true(policy.includes(part));
  const files = [...(await page.text()).matchAll(/"(\/console\/assets\/[^"]+)"/g)].map(([, file]) => file!);
  t.is(files.length, 2);
  let bytes = 0;
  for (const file of files) {
    const plain = await fetch(mesh!.url + file, { headers: { 'accept-encoding': 'identity' } });
    const packed = await fetch(mesh!.url + file, { headers: { 'accept-encoding': 'br' } });
    t.is(packed.headers.get('content-encoding'), 'br');
    t.is(packed.headers.get('cache-control'), 'public, max-age=31536000, immutable');
    t.is(packed.headers.get('x-content-type-options'), 'nosniff');
    t.is(await packed.text(), await plain.text());
    bytes += Number(packed.headers.get('content-length'));
  }
  t.true(bytes < 150_000, `${bytes} bytes`);
  for (const path of ['/console', '/console/', '/console/dashboard/keys']) {
    t.is((await fetch(mesh!.url + path)).status, 200, path);
  }
  t.is((await fetch(`${mesh!.url}/console/assets/none.js`)).status, 404);
});

inBrowser(
  'login: the view that was asked for is shown, a reload keeps the login, and no token is in localStorage',
  async (t) => {
    const [user1, user2] = mesh!.people as [Person, Person];
    const id = await openConversation([user2, user1]);
    await send(user2, id, { payload: { type: 'text', text: 'Are you there?' } });
    const context = await browser.openContext();
    const { page, complaints } = await logIn(context, mesh!.url, 'user1');
    await shows(page, 'Are you there?');
    t.true(page.url().endsWith('/console/messages'));
    await page.reload();
    await shows(page, 'Are you there?');
    const kept = (await page.evaluate('JSON.stringify(localStorage)')) as string;
    t.false(/c4[ar]_/.test(kept), kept);

    // Without being asked for.
    const other = await openConversation([user2, user1]);
    await send(user2, other, { payload: { type: 'text', text: 'Just now' } });
    await shows(page, 'Just now');

    t.deepEqual(await accessibilityProblems(page), []);
    for (const [view, words] of [
      ['/messages/new', 'With whom'],
      [`/messages/${id}/people`, 'Leave the conversation'],
      ['/nowhere', 'There is nothing here'],
    ] as const) {
      await page.goto(`${mesh!.url}/console${view}`);
      await shows(page, words);
      t.deepEqual(await accessibilityProblems(page), []);
    }
    await press(page, 'Log out');
    await shows(page, 'Forgotten the password?');
    t.false((await textOf(page)).includes('Just now'));
    for (const [view, words] of [
      ['/login', 'Create an account'],
      ['/forgotten', 'Send the link'],
      ['/reset', 'Change the password'],
    ] as const) {
      await page.goto(`${mesh!.url}/console${view}`);
      await shows(page, words);
      t.deepEqual(await accessibilityProblems(page), []);
    }
    t.deepEqual(complaints, []);
    await context.close();
  },
);

inBrowser('pages that are left hold no connection, and follow the events again on the way back', async (t) => {
  const [user1, user2] = mesh!.people as [Person, Person];
  const context = await browser.openContext();
  const { page } = await logIn(context, mesh!.url, 'user1');
  // Browsers open six connections to a server, and may keep a page that is left as it is.
  for (let count = 0; count < 10; count += 1) {
    await page.goto(`${mesh!.url}/console/messages?${count}`);
    // It has its stream by then.
    await sleep(700);
  }
  await page.goto('about:blank');
  await page.goBack();
  const id = await openConversation([user2, user1]);
  await send(user2, id, { payload: { type: 'text', text: 'While you were away' } });
  await shows(page, 'While you were away');
  t.true(page.url().endsWith('?9'), page.url());
  await context.close();
});
