import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import pg from 'pg';
import type { Page } from 'puppeteer-core';
import { accessibilityProblems, chromiumIsThere, openBrowser, patience, setNetwork } from '../../test/browser.ts';
import { fill, follow, logIn, press, shows, textOf } from '../../test/console.ts';
import { eventually } from '../../test/eventually.ts';
import { everyMessage, openConversation, openedMeshes, send, type Person } from '../../test/flows/meshes.ts';
import { opened } from '../../test/opened.ts';

/** Messages, as people use them in a browser. `npm run console:build` makes what is tested. */

const inBrowser = chromiumIsThere ? test.serial : test.skip;
const [mesh] = openedMeshes(['embedded'], { people: 12 });
const browser = opened(openBrowser, (browser) => browser.close());

/** The status of each channel of a message that is on the page, as its ticks say it. */
async function ticksOf(page: Page, text: string): Promise<string[]> {
  return (await page.evaluate(
    `[...document.querySelectorAll('.message')].filter((each) => each.querySelector('.text, .name')?.textContent === ${JSON.stringify(text)})
      .flatMap((each) => [...each.querySelectorAll('[data-status]')].map((tick) => tick.dataset.status))`,
  )) as string[];
}

async function hasTicks(page: Page, text: string, wanted: readonly string[], limit = patience): Promise<void> {
  const isIt = (found: string[]) => found.join() === wanted.join();
  await eventually(`the ticks of ${text}`, () => ticksOf(page, text), isIt, limit);
}

async function write(page: Page, text: string): Promise<void> {
  await fill(page, 'Message', text);
  await page.keyboard.press('Enter');
}

/** Fills a conversation with delivered messages from 1 on, as if they had been sent. */
async function fillConversation(id: string, sender: Person, recipient: Person, count: number): Promise<void> {
  const database = new pg.Client(mesh!.databaseUrl('message'));
  await database.connect();
  try {
    await database.query('set search_path to message');
    await database.query(
      `insert into messages (message_id, conversation_id, seq, sender_id, sender_username, recipient_ids, channels, payload_type,
          payload_text, priority, status, fingerprint, created_at, updated_at, deliver_by, expires_at, history)
        select gen_random_uuid(), $1::uuid, n, $2::uuid, $3, array[$4::uuid], array['whatsapp'], 'text',
            'Message ' || n || repeat(' and so on', n % 17), 'normal', 'delivered', sha256(n::text::bytea), at, at, at, at,
            jsonb_build_array(jsonb_build_object('status', 'delivered', 'at', at, 'note', ''))
          from generate_series(1, $5::int) as n, lateral (select now() - ($5 - n) * interval '10 minutes' as at) as t`,
      [id, sender.userId, sender.username, recipient.userId, count],
    );
    await database.query('insert into conversation_heads (conversation_id, last_seq) values ($1, $2)', [id, count]);
  } finally {
    await database.end();
  }
}

inBrowser(
  'two browsers: what one writes the other sees at once, the ticks follow, and who reads and writes is told',
  async (t) => {
    const contexts = await Promise.all([browser.openContext(), browser.openContext()]);
    t.teardown(() => Promise.all(contexts.map((context) => context.close())));
    const [one, two] = await Promise.all([
      logIn(contexts[0]!, mesh!.url, 'user1'),
      logIn(contexts[1]!, mesh!.url, 'user2'),
    ]);
    await follow(one.page, 'New conversation');
    await fill(one.page, 'With whom', 'nobody-of-this-name');
    await press(one.page, 'Begin');
    await shows(one.page, 'There is nobody called nobody-of-this-name.');
    await fill(one.page, 'With whom', 'user2');
    await press(one.page, 'Begin');
    await write(one.page, 'Hello, user2');
    await hasTicks(one.page, 'Hello, user2', ['delivered', 'delivered']);

    await shows(two.page, 'Hello, user2');
    await two.page.locator('.conversation-entry').click();
    await shows(one.page, 'Read');
    await fill(two.page, 'Message', 'And hello');
    await shows(one.page, 'user2 is writing…');
    await press(two.page, 'Send');
    await shows(one.page, 'And hello');
    t.false((await textOf(one.page)).includes('is writing'));

    await one.page.locator('.message .details').click();
    await shows(one.page, 'user2 over WhatsApp: Delivered');
    await shows(one.page, 'Accepted');
    t.deepEqual(await accessibilityProblems(one.page), []);
    await one.page.goBack();
    await one.page.waitForSelector('.side', { hidden: true });
    t.deepEqual(await accessibilityProblems(two.page), []);
    t.deepEqual([...one.complaints, ...two.complaints], []);
  },
);

inBrowser('texts: markup, right to left, emoji, long words and 64 KiB are shown as they are written', async (t) => {
  const [writer, reader] = mesh!.people.slice(2, 4) as [Person, Person];
  const id = await openConversation([writer, reader]);
  const long = 'é'.repeat(32_768);
  const texts = ['<img src=x onerror=alert(1)><b>bold</b>', 'مرحبا، كيف الحال؟', '👩‍👩‍👧‍👦🏳️‍🌈', 'W'.repeat(2_000), long];
  for (const text of texts) await send(writer, id, { payload: { type: 'text', text } });
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page, complaints } = await logIn(context, mesh!.url, reader.username, { view: `/messages/${id}` });
  for (const text of texts.slice(0, 4)) await shows(page, text);
  t.is(await page.$('.text img, .text b'), null);
  await press(page, 'Show all of it');
  await eventually(
    'the whole text is shown',
    () => page.evaluate('[...document.querySelectorAll(".text")].at(-1).textContent.length') as Promise<number>,
    (length) => length === long.length,
  );
  const [wide, seen] = (await page.evaluate('[document.documentElement.scrollWidth, innerWidth]')) as [number, number];
  t.true(wide <= seen, `${wide} of ${seen}`);
  t.deepEqual(await accessibilityProblems(page), []);
  t.deepEqual(complaints, []);
});

inBrowser('what is written while the hub is away survives a reload, and is sent once', async (t) => {
  const [writer, reader] = mesh!.people.slice(4, 6) as [Person, Person];
  const id = await openConversation([writer, reader]);
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page } = await logIn(context, mesh!.url, writer.username, { view: `/messages/${id}` });
  await shows(page, 'Write the first one.');
  // Its answers are lost: what arrives is sent again, and stays one message.
  const answers = await page.createCDPSession();
  await answers.send('Fetch.enable', { patterns: [{ urlPattern: '*/v1/messages', requestStage: 'Response' }] });
  answers.on('Fetch.requestPaused', ({ requestId }) => {
    answers.send('Fetch.failRequest', { requestId, errorReason: 'ConnectionReset' }).catch(() => {});
  });
  await write(page, 'Sent, but was it heard?');
  await eventually(
    'the hub has it',
    () => everyMessage(reader, id),
    ({ length }) => length === 1,
  );
  await answers.detach();
  await setNetwork(page, { upload: 0 });
  await write(page, 'Written without a connection');
  await fill(page, 'Message', 'Not even sent');
  await shows(page, 'Not sent yet');
  await setNetwork(page);
  await page.reload();
  await hasTicks(page, 'Written without a connection', ['delivered', 'delivered']);
  await hasTicks(page, 'Sent, but was it heard?', ['delivered', 'delivered']);
  t.is(await page.$eval('textarea', (field) => field.value), 'Not even sent');
  const all = await everyMessage(reader, id);
  t.deepEqual(
    all.map(({ payload }) => payload.text),
    ['Sent, but was it heard?', 'Written without a connection'],
  );
});

inBrowser(
  'files: sent with a progress bar, paused, gone on with after a reload, downloaded by the other one',
  async (t) => {
    const [writer, reader] = mesh!.people.slice(6, 8) as [Person, Person];
    const id = await openConversation([writer, reader]);
    const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-console-'));
    const context = await browser.openContext();
    t.teardown(async () => {
      await context.close();
      await rm(folder, { recursive: true, force: true });
    });
    const small = path.join(folder, 'note.txt');
    await writeFile(small, 'bytes of a note');
    const large = path.join(folder, 'holiday.bin');
    await writeFile(large, Buffer.alloc(40_000_000, 7));
    const { page, complaints } = await logIn(context, mesh!.url, writer.username, { view: `/messages/${id}` });
    const workers: string[] = [];
    page.on('workercreated', (worker) => workers.push(worker.url()));
    const attach = async (label: string, file: string) => {
      const input = (await page.waitForSelector(`input[type=file][aria-label="${label}"]`))!;
      await (input as unknown as { uploadFile(file: string): Promise<void> }).uploadFile(file);
    };
    await attach('Files to send', small);
    await hasTicks(page, 'note.txt', ['delivered', 'delivered']);

    // Slow enough to be interrupted.
    await setNetwork(page, { upload: 1_000_000 });
    await attach('Files to send', large);
    await page.waitForSelector('.upload progress');
    await press(page, 'Pause holiday.bin');
    await shows(page, 'Paused');
    t.deepEqual(await accessibilityProblems(page), []);
    await page.reload();
    await shows(page, 'Choose the file again to go on');
    await setNetwork(page);
    await attach('Choose holiday.bin again', large);
    await hasTicks(page, 'holiday.bin', ['delivered', 'delivered'], 60_000);
    // Its checksum is computed beside the page, once for each time that it was chosen.
    t.is(workers.filter((url) => /\/checksum-worker-\w+\.js$/.test(url)).length, 3, workers.join());
    t.deepEqual(complaints, []);

    const other = await browser.openContext();
    t.teardown(() => other.close());
    const theirs = await logIn(other, mesh!.url, reader.username, { view: `/messages/${id}` });
    const session = await theirs.page.createCDPSession();
    await session.send('Browser.setDownloadBehavior', {
      behavior: 'allow',
      downloadPath: folder,
      eventsEnabled: true,
      browserContextId: other.id!,
    });
    const done = new Promise<void>((resolve) => {
      session.on('Browser.downloadProgress', ({ state }) => state === 'completed' && resolve());
    });
    await rm(small);
    await press(theirs.page, 'Download note.txt');
    await done;
    t.is(await readFile(small, 'utf8'), 'bytes of a note');
  },
);

inBrowser(
  'ten thousand messages: any part is shown, reading is not disturbed by what comes, and a phone has room for it',
  async (t) => {
    const [writer, reader] = mesh!.people.slice(8, 10) as [Person, Person];
    const id = await openConversation([writer, reader]);
    await fillConversation(id, writer, reader, 10_000);
    const context = await browser.openContext();
    t.teardown(() => context.close());
    const { page, complaints } = await logIn(context, mesh!.url, reader.username, {
      view: `/messages/${id}`,
      size: { width: 390, height: 800 },
    });
    await shows(page, 'Message 10000');
    const count = () => page.$$eval('.item', (items) => items.length);
    t.true((await count()) < 60, `${await count()} are on the page`);
    const scrollTo = (part: number) =>
      page.$eval('.scroller', (scroller, part) => void (scroller.scrollTop = scroller.scrollHeight * part), part);
    await scrollTo(0);
    await shows(page, 'Message 1 and so on');
    await scrollTo(0.5);
    await shows(page, 'Message 50');
    const place = () =>
      page.$$eval('.item', (items) => {
        const top = items.find((item) => item.getBoundingClientRect().top > 100)!;
        return `${top.querySelector('.text')!.textContent} ${Math.round(top.getBoundingClientRect().top)}`;
      });
    const before = await eventually('the list is at rest', place, (found) => found.startsWith('Message'));
    await send(writer, id, { payload: { type: 'text', text: 'Something new' } });
    await shows(page, 'To the newest');
    t.is(await place(), before);
    t.deepEqual(await accessibilityProblems(page), []);
    await press(page, 'To the newest');
    await shows(page, 'Something new');
    const [wide, seen] = (await page.evaluate('[document.documentElement.scrollWidth, innerWidth]')) as [
      number,
      number,
    ];
    t.true(wide <= seen);
    t.deepEqual(complaints, []);
  },
);

inBrowser('the gateway restarts: the page says so, and goes on where it was', async (t) => {
  const [writer, reader] = mesh!.people.slice(10, 12) as [Person, Person];
  const id = await openConversation([writer, reader]);
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page } = await logIn(context, mesh!.url, reader.username, { view: `/messages/${id}` });
  await send(writer, id, { payload: { type: 'text', text: 'Before' } });
  await shows(page, 'Before');
  const { port } = mesh!.gateway;
  await mesh!.gateway.stop();
  await shows(page, 'No connection to the hub.');
  await write(page, 'Meanwhile');
  await shows(page, 'Not sent yet');
  t.deepEqual(await accessibilityProblems(page), []);
  await mesh!.startGateway({ PORT: String(port) });
  await hasTicks(page, 'Meanwhile', ['delivered', 'delivered']);
  await send(writer, id, { payload: { type: 'text', text: 'Afterwards' } });
  await shows(page, 'Afterwards');
  t.false((await textOf(page)).includes('No connection'));
});
