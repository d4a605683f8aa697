import test from 'ava';
import type { Page } from 'puppeteer-core';
import { createClient } from '../../client/client.ts';
import type { GetAuditRequest, GetAuditResponse } from '../../client/gen/chat4all/message/v1/operations.pb.ts';
import { accessibilityProblems, chromiumIsThere, openBrowser, openPage } from '../../test/browser.ts';
import { fill, follow, logIn, press, shows, textOf } from '../../test/console.ts';
import { eventually } from '../../test/eventually.ts';
import { breakTable, ended, openConversation, send, startFlowMesh, type Person } from '../../test/flows/meshes.ts';
import { opened } from '../../test/opened.ts';
import { answering, startToolServer } from '../../test/tool-servers.ts';
import { startReceiver } from '../../test/webhook-receiver.ts';
import { auditOf } from './audit.ts';

/** The dashboard, as people and administrators use it in a browser. `npm run console:build` makes what is tested. */

const inBrowser = chromiumIsThere ? test.serial : test.skip;
const tools = opened(startToolServer, (server) => server.stop());
const receiver = opened(startReceiver, (server) => server.stop());
const mesh = opened(
  () => startFlowMesh('embedded', { env: { DEMO_TOOLS_URL: tools.url, WEBHOOK_ALLOWED_HOSTS: '127.0.0.1' } }),
  (mesh) => mesh.stop(),
);
const browser = opened(openBrowser, (browser) => browser.close());

/** A client for the administrator that every laptop has. */
async function administrator() {
  const anonymous = createClient({ baseUrl: mesh.url });
  const { access_token } = await anonymous.account.login({ email: 'admin@example.com', password: 'Admin-12345' });
  return createClient({ baseUrl: mesh.url, token: () => access_token });
}

const asAdministrator = { password: 'Admin-12345' };

/** What is wrong, other than that the browser notes down each refusal. */
function realComplaints(complaints: readonly string[]): string[] {
  return complaints.filter((each) => !/the server responded with a status of 4\d\d/.test(each));
}

/** Presses a button of that name in one part of the page. */
async function pressIn(page: Page, part: string, name: string): Promise<void> {
  await page.locator(`${part} ::-p-aria([name="${name}"][role="button"])`).click();
}

async function search(page: Page, words: string): Promise<void> {
  await page.locator('::-p-aria([name="Search"][role="searchbox"])').fill(words);
}

/** Waits until the page does not show a text any more. */
async function hides(page: Page, text: string): Promise<void> {
  await eventually(
    `the page does not show ${JSON.stringify(text)}`,
    () => textOf(page),
    (found) => !found.includes(text),
  );
}

/** Whether a page, and the part of the console in it, is no wider than the screen. */
async function isNarrow(page: Page): Promise<boolean> {
  return (await page.evaluate(
    '[document.documentElement, document.getElementById("part")].every((each) => each.scrollWidth <= innerWidth)',
  )) as boolean;
}

test('books that the hub reads in parts are added up, and one part that does not balance spoils all of them', async (t) => {
  const none = { accepted: 0, delivered: 0, failed: 0, in_flight: 0 };
  const part = (changes: Partial<GetAuditResponse>): GetAuditResponse => ({
    from: '',
    to: '',
    balanced: true,
    messages: none,
    deliveries: none,
    mismatched: [],
    mismatched_total: 0,
    overdue: 0,
    gaps: [],
    gaps_total: 0,
    oldest_in_flight: null,
    outbox_events: 0,
    outbox_age_ms: 0,
    dead_letters_waiting: 0,
    lag: [],
    lag_known: true,
    next: null,
    removed_before: null,
    ...changes,
  });
  const oldest = { message_id: 'a', accepted_at: '', age_ms: 9 };
  const parts = [
    part({
      from: '2026-11-30T10:00:00.000Z',
      messages: { accepted: 10, delivered: 7, failed: 1, in_flight: 2 },
      oldest_in_flight: oldest,
      next: '2026-11-30T10:20:00Z',
    }),
    part({ balanced: false, mismatched: ['b'], mismatched_total: 1, next: '2026-11-30T10:40:00Z' }),
    part({
      to: '2026-11-30T11:00:00.000Z',
      messages: { accepted: 5, delivered: 5, failed: 0, in_flight: 0 },
      dead_letters_waiting: 3,
    }),
  ];
  const asked: GetAuditRequest[] = [];
  const ask = async (period: GetAuditRequest) => parts[asked.push(period) - 1]!;
  const books = await auditOf(ask, 1, Date.parse('2026-11-30T11:00:00Z'));
  const to = '2026-11-30T11:00:00.000Z';
  t.deepEqual(asked, [
    { from: '2026-11-30T10:00:00.000Z', to },
    { from: '2026-11-30T10:20:00Z', to },
    { from: '2026-11-30T10:40:00Z', to },
  ]);
  t.like(books, {
    from: '2026-11-30T10:00:00.000Z',
    to,
    balanced: false,
    messages: { accepted: 15, delivered: 12, failed: 1, in_flight: 2 },
    mismatched: ['b'],
    mismatched_total: 1,
    oldest_in_flight: oldest,
    dead_letters_waiting: 3,
    next: null,
  });
});

inBrowser('who registers makes a key, chooses a plan, tries a tool out, and finds it in the chart', async (t) => {
  tools.on('/text-stats', answering({ words: 3, tokens_used: 42 }));
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page, complaints } = await openPage(context);
  await page.goto(`${mesh.url}/console/register`);
  await fill(page, 'Name', 'Ada Lovelace');
  await fill(page, 'Email', 'ada@example.com');
  await fill(page, 'Password', 'Engine-1843');
  await press(page, 'Create the account');
  await shows(page, 'No conversations yet');
  await follow(page, 'Dashboard');
  await shows(page, 'You have no plan so far.');
  await shows(page, 'No calls in these days');
  t.true(page.url().endsWith('/console/dashboard/usage'));
  t.deepEqual(await accessibilityProblems(page), []);
  t.false((await textOf(page)).includes('For administrators'));

  await follow(page, 'Tools');
  await shows(page, 'echo');
  await search(page, 'TEXT');
  await shows(page, '1 found.');
  t.false((await textOf(page)).includes('echo\n'));
  t.deepEqual(await accessibilityProblems(page), []);
  await page.locator('.entry').click();
  await press(page, 'Run');
  await shows(page, 'It takes a plan to use tools.');
  t.is(tools.count('/text-stats'), 0);

  await follow(page, 'Choose a plan');
  await press(page, 'Choose Free');
  t.deepEqual(await accessibilityProblems(page), []);
  await press(page, 'Take Free');
  await shows(page, 'You have the plan Free now.');
  await page.goBack();

  await fill(page, 'Input', '{"text": ');
  await press(page, 'Run');
  await shows(page, 'This is not JSON');
  await fill(page, 'Input', '["text"]');
  await press(page, 'Run');
  await shows(page, 'It has to be an object');
  t.deepEqual(await accessibilityProblems(page), []);
  await fill(page, 'Input', '{"text": "one two three"}');
  await page.reload();
  await press(page, 'Run');
  await shows(page, 'for 42 tokens.');
  await shows(page, '"words": 3');
  t.deepEqual(
    tools.asked.filter(({ path }) => path === '/text-stats').map(({ body }) => JSON.parse(body) as unknown),
    [{ text: 'one two three' }],
  );
  t.deepEqual(await accessibilityProblems(page), []);

  await follow(page, 'Usage of this tool');
  await page.waitForSelector('.chart');
  const bars = await page.$$eval('.chart .day', (days) =>
    days
      .filter((day) => day.getAttribute('data-value') !== '0')
      .map((day) => [day.querySelectorAll('.bar').length, day.getAttribute('data-value')]),
  );
  t.deepEqual(bars, [[1, '42']]);
  await page.locator('.chart summary').click();
  t.deepEqual(await page.$$eval('.chart td', (cells) => cells.map((cell) => cell.textContent)), ['42']);
  const byTool = await page.$$eval('[data-tool="text-stats"] .number', (cells) =>
    cells.map((cell) => cell.textContent),
  );
  t.deepEqual(byTool, ['42', '1']);
  await shows(page, 'Succeeded');
  t.deepEqual(await accessibilityProblems(page), []);

  await follow(page, 'Plan');
  await press(page, 'Choose Pro');
  await press(page, 'Take Pro');
  await shows(page, 'You have the plan Pro now.');
  await eventually(
    'the plan is marked',
    () => page.$eval('[data-plan=pro]', (plan) => plan.textContent),
    (found) => found.includes('Your plan'),
  );
  await press(page, 'Cancel the plan');
  await press(page, 'Cancel it');
  await shows(page, 'Cancelled: it ends on');
  t.deepEqual(await accessibilityProblems(page), []);

  await follow(page, 'API keys');
  await press(page, 'New key');
  await fill(page, 'Name', '   ');
  await press(page, 'Make the key');
  await page.waitForSelector('[aria-invalid=true]');
  t.deepEqual(await accessibilityProblems(page), []);
  await fill(page, 'Name', 'laptop');
  await press(page, 'Make the key');
  await shows(page, 'it is not shown again');
  t.deepEqual(await accessibilityProblems(page), []);
  const key = await page.$eval('dialog input', (field) => field.value);
  const withKey = createClient({ baseUrl: mesh.url, apiKey: key });
  t.is((await withKey.tool.listTools()).length, 2);
  await press(page, 'I have kept it');
  await shows(page, 'laptop');
  const kept = (await page.evaluate('JSON.stringify([localStorage, sessionStorage])')) as string;
  t.false(kept.includes(key));
  t.deepEqual(await accessibilityProblems(page), []);
  await press(page, 'Revoke laptop');
  await press(page, 'Revoke it');
  await shows(page, 'No API keys');
  await eventually(
    'the key is refused',
    () =>
      withKey.tool.listTools().then(
        () => 200,
        ({ status }: { status: number }) => status,
      ),
    (status) => status === 401,
  );

  await follow(page, 'Profile');
  await fill(page, 'Name', '<b>Ada</b>');
  await press(page, 'Save');
  await shows(page, 'Saved.');
  t.is(await page.$('main b'), null);
  t.deepEqual(await accessibilityProblems(page), []);

  // Where a phone is as wide.
  await page.setViewport({ width: 390, height: 800 });
  for (const view of ['usage', 'tools', 'plan', 'keys', 'webhooks', 'profile']) {
    await page.goto(`${mesh.url}/console/dashboard/${view}`);
    await page.waitForSelector('.view .part-title');
    await page.waitForSelector('.state.loading', { hidden: true });
    t.true(await isNarrow(page), view);
    t.deepEqual(await accessibilityProblems(page), []);
  }
  await page.goto(`${mesh.url}/console/dashboard/books`);
  await shows(page, 'For administrators only');
  t.deepEqual(realComplaints(complaints), []);
});

inBrowser('a webhook: its secret is shown once; ping, pause, resume, delete', async (t) => {
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page, complaints } = await logIn(context, mesh.url, 'user1', { view: '/dashboard/webhooks' });
  await press(page, 'New webhook');
  t.deepEqual(await accessibilityProblems(page), []);
  await fill(page, 'URL', 'ftp://example.com/');
  await press(page, 'Make the webhook');
  await page.waitForSelector('[aria-invalid=true]');
  await fill(page, 'URL', `${receiver.url}/hook`);
  await page.locator('::-p-aria([name="Message accepted"][role="checkbox"])').click();
  await press(page, 'Make the webhook');
  await shows(page, 'it is not shown again');
  t.regex(await page.$eval('dialog input', (field) => field.value), /^whsec_/);
  await press(page, 'I have kept it');
  await shows(page, 'Nothing so far');
  await press(page, 'Ping');
  await shows(page, 'The ping was answered with 204');
  t.is(receiver.on('/hook').length, 1);
  await press(page, 'Pause');
  await shows(page, 'Paused');
  t.deepEqual(await accessibilityProblems(page), []);
  await press(page, 'Resume');
  await shows(page, 'Active');
  const [webhook] = (await mesh.people[0]!.rest.client.webhooks.listWebhooks()).webhooks;
  t.like(webhook, { status: 'active', types: ['message_accepted'] });
  await press(page, 'Delete');
  await press(page, 'Delete it');
  await shows(page, 'No webhooks');
  t.deepEqual(realComplaints(complaints), []);
});

inBrowser('an administrator sees that nothing is lost, and replays what has failed', async (t) => {
  const [user1, user2] = mesh.people as [Person, Person];
  const conversation = await openConversation([user1, user2]);
  const mend = await breakTable(mesh, 'connectors.deliveries', `new.channel = 'whatsapp'`);
  const id = await send(user1, conversation, { channels: ['whatsapp'] });
  t.is((await ended(user2, id)).status, 'failed');
  await mend();

  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page, complaints } = await logIn(context, mesh.url, 'admin@example.com', {
    view: '/dashboard/books',
    ...asAdministrator,
  });
  const balance = () =>
    page.$$eval('[data-balance="Messages"] .number', (cells) => cells.map((cell) => cell.textContent));
  await shows(page, 'Nothing is lost');
  t.deepEqual(await balance(), ['1', '0', '1', '0']);
  t.deepEqual(await accessibilityProblems(page), []);

  await follow(page, 'Dead letters');
  await shows(page, 'broken on purpose');
  t.deepEqual(await accessibilityProblems(page), []);
  await follow(page, id);
  await shows(page, user2.userId);
  t.deepEqual(await accessibilityProblems(page), []);
  await page.goBack();
  await page.locator('.table tbody tr td:nth-child(2) a').click();
  await shows(page, '"text": "Oi"');
  t.deepEqual(await accessibilityProblems(page), []);
  await page.goBack();
  await press(page, 'Replay all that wait');
  await press(page, 'Replay');
  await shows(page, '1 dead letter replayed: 1 message begins again.');
  t.is((await ended(user2, id)).status, 'delivered');
  await shows(page, 'No dead letters wait');

  await follow(page, 'Books');
  await eventually(
    'the books have it',
    async () => {
      await press(page, 'Refresh');
      return balance();
    },
    (found) => found.join() === '1,1,0,0',
  );
  t.deepEqual(realComplaints(complaints), []);
});

inBrowser('an administrator changes networks, users and tools, and finds it among the changes', async (t) => {
  const admin = await administrator();
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page, complaints } = await logIn(context, mesh.url, 'admin@example.com', {
    view: '/dashboard/networks',
    ...asAdministrator,
  });
  const whatsapp = '[data-network="whatsapp"]';
  await page.waitForSelector(`${whatsapp} .presets`);
  await pressIn(page, whatsapp, 'Down');
  await shows(page, 'Out of order until');
  t.is((await admin.simulation.getProfile({ channel: 'whatsapp' })).outages.length, 1);
  t.deepEqual(await accessibilityProblems(page), []);
  await pressIn(page, whatsapp, 'Slow');
  await shows(page, '10 % of the requests fail for the moment');
  await pressIn(page, whatsapp, 'By numbers');
  const number = (name: string) => page.locator(`${whatsapp} ::-p-aria([name="${name}"][role="spinbutton"])`);
  await number('All but one in a hundred within, ms').fill('5');
  await pressIn(page, whatsapp, 'Save');
  await page.waitForSelector(`${whatsapp} [aria-invalid=true]`);
  t.deepEqual(await accessibilityProblems(page), []);
  await number('All but one in a hundred within, ms').fill('4000');
  await pressIn(page, whatsapp, 'Save');
  await shows(page, 'one in a hundred after more than 4.0 s');
  t.like(await admin.simulation.getProfile({ channel: 'whatsapp' }), {
    latency: { p50_ms: 2_000, p99_ms: 4_000 },
    transient_errors: 0.1,
    outages: [],
  });
  await pressIn(page, whatsapp, 'As configured');
  await hides(page, 'one in a hundred after');

  await follow(page, 'Users');
  await search(page, 'USER2@');
  await shows(page, '1 found.');
  await press(page, 'Disable user2');
  t.deepEqual(await accessibilityProblems(page), []);
  await press(page, 'Disable');
  await press(page, 'Enable user2');
  await press(page, 'Enable');
  await page.waitForSelector('dialog', { hidden: true });
  await search(page, 'admin@');
  await press(page, 'Make a user admin');
  await press(page, 'Do it');
  await page.waitForSelector('dialog [role=alert]');
  t.deepEqual(await accessibilityProblems(page), []);
  await press(page, 'Go back');
  t.is((await admin.account.getAccount()).role, 'admin');

  await follow(page, 'All tools');
  await press(page, 'New tool');
  await fill(page, 'Name', 'reverse');
  await fill(page, 'Description', 'Turns a text round');
  await fill(page, 'Endpoint', 'http://10.0.0.1/');
  await press(page, 'Add the tool');
  await page.waitForSelector('[aria-invalid=true]');
  t.deepEqual(await accessibilityProblems(page), []);
  await fill(page, 'Endpoint', `${tools.url}/reverse`);
  await press(page, 'Add the tool');
  await press(page, 'Deactivate reverse');
  await press(page, 'Activate reverse');
  t.deepEqual(await accessibilityProblems(page), []);
  await press(page, 'Delete reverse');
  await press(page, 'Delete it');
  await hides(page, 'reverse');

  await follow(page, 'Changes');
  await shows(page, 'Deleted a tool');
  const changes = await page.$$eval('.table tbody tr td:nth-child(2)', (cells) =>
    cells.map((cell) => cell.textContent),
  );
  t.deepEqual(changes, [
    'Deleted a tool',
    'Changed a tool',
    'Changed a tool',
    'Added a tool',
    'Changed a user',
    'Changed a user',
  ]);
  t.deepEqual(await accessibilityProblems(page), []);

  await follow(page, 'Statistics');
  await shows(page, 'Users in all');
  t.deepEqual(await accessibilityProblems(page), []);

  await page.setViewport({ width: 390, height: 800 });
  const views = ['books', 'dead-letters', 'trace', 'networks', 'users', 'all-tools', 'statistics', 'changes'];
  for (const view of views) {
    await page.goto(`${mesh.url}/console/dashboard/${view}`);
    await page.waitForSelector('.view .part-title');
    await page.waitForSelector('.state.loading', { hidden: true });
    t.true(await isNarrow(page), view);
    t.deepEqual(await accessibilityProblems(page), []);
  }
  t.deepEqual(realComplaints(complaints), []);
});
