import test from 'ava';
import type { Page } from 'puppeteer-core';
import { createClient } from '../../client/client.ts';
import type { HistoryMessage } from '../../client/gen/chat4all/assistant/v1/assistant.pb.ts';
import { accessibilityProblems, chromiumIsThere, openBrowser, setNetwork } from '../../test/browser.ts';
import { fill, follow, logIn, press, shows, textOf } from '../../test/console.ts';
import { eventually } from '../../test/eventually.ts';
import { startMesh } from '../../test/harness.ts';
import {
  beginEvents,
  calling,
  chunk,
  saying,
  sendEvent,
  startModelServer,
  usageChunk,
  type Answering,
} from '../../test/model-server.ts';
import { opened } from '../../test/opened.ts';
import { blocksOf } from './blocks.ts';

/** The assistant, as people use it in a browser, with a model that says what a test wants: the tests run one after the other. */

const inBrowser = chromiumIsThere ? test.serial : test.skip;
const model = opened(
  () => startModelServer(),
  (server) => server.stop(),
);
const mesh = opened(
  () =>
    startMesh({
      bus: 'embedded',
      env: { SEED_USERS: '8', ASSISTANT_BASE_URL: model.url, ASSISTANT_MODEL: 'told' },
    }),
  (mesh) => mesh.stop(),
);
const browser = opened(openBrowser, (browser) => browser.close());

const question = 'Message to the assistant';

async function ask(page: Page, text: string): Promise<void> {
  await fill(page, question, text);
  await page.keyboard.press('Enter');
}

/** Answers the calls of the model one after the other; the last of these answers all that come after. */
function inTurn(...answerings: readonly Answering[]): Answering {
  let next = 0;
  return (response, call) => {
    const answering = answerings[Math.min(next, answerings.length - 1)]!;
    next += 1;
    return answering(response, call);
  };
}

/** An answer of the model that comes as a test says it. */
function speech() {
  const begun = Promise.withResolvers<{ say(text: string): void; end(): void; gone: AbortSignal }>();
  const answering: Answering = (response, { gone }) => {
    beginEvents(response);
    begun.resolve({
      gone,
      say: (text) => sendEvent(response, chunk({ content: text })),
      end() {
        sendEvent(response, chunk({}, 'stop'));
        sendEvent(response, usageChunk(3, 2));
        response.end('data: [DONE]\n\n');
      },
    });
  };
  return { answering, begun: begun.promise };
}

/** All that a user has said to the assistant, and was answered. */
async function everythingOf(number: number): Promise<HistoryMessage[]> {
  const { token } = await createClient({ baseUrl: mesh.url }).auth.issueToken({
    username: `user${number}`,
    password: 'password123',
  });
  const { assistant } = createClient({ baseUrl: mesh.url, token: () => token });
  const user_id = String(number);
  const { conversations } = await assistant.listConversations({ user_id });
  const histories = conversations.map(({ id }) => assistant.getHistory({ user_id, conversation_id: id }));
  return (await Promise.all(histories)).flat();
}

test('texts are divided at the fences of code, also where its end has not come yet', (t) => {
  t.deepEqual(blocksOf('Look:\n\n```ts\nlet a = `b`;\n```\nThat is **all**'), [
    { kind: 'prose', text: 'Look:', language: '' },
    { kind: 'code', text: 'let a = `b`;', language: 'ts' },
    { kind: 'prose', text: 'That is **all**', language: '' },
  ]);
  t.deepEqual(blocksOf('~~~~\n```\n~~~\nstill code'), [{ kind: 'code', text: '```\n~~~\nstill code', language: '' }]);
  t.deepEqual(blocksOf('a\n\n  b'), [{ kind: 'prose', text: 'a\n\n  b', language: '' }]);
  t.deepEqual(blocksOf('\n'), []);
});

inBrowser(
  'somebody asks: the tool that was called is shown, another answer beside the first, the task, a title',
  async (t) => {
    const context = await browser.openContext();
    t.teardown(() => context.close());
    const { page, complaints } = await logIn(context, mesh.url, 'user1');
    await follow(page, 'Assistant');
    await shows(page, 'What can be done for you?');
    t.deepEqual(await accessibilityProblems(page), []);
    model.on(
      inTurn(
        calling({ id: 'a', name: 'tasks__add_task', arguments: '{"title": "Buy groceries"}' }),
        saying('It is on your list.'),
        saying('Buy groceries: noted.'),
      ),
    );
    await ask(page, 'Add a task to buy groceries');
    await shows(page, 'It is on your list.');
    await shows(page, 'Answer again');
    t.regex(page.url(), /\/console\/assistant\/\d+$/);
    t.is(await page.$eval('[data-tool=add_task]', (call) => (call as unknown as { open: boolean }).open), false);
    await page.locator('[data-tool=add_task] summary').click();
    await shows(page, '"title": "Buy groceries"');
    await shows(page, '"status": "created"');
    t.deepEqual(await accessibilityProblems(page), []);

    await press(page, 'Answer again');
    await shows(page, '2 of 2');
    t.false((await textOf(page)).includes('It is on your list.'));
    await press(page, 'The answer before');
    await shows(page, 'It is on your list.');
    t.deepEqual(await accessibilityProblems(page), []);

    await press(page, 'Change the title');
    await fill(page, 'Title', 'Shopping <b>list</b>');
    t.deepEqual(await accessibilityProblems(page), []);
    await press(page, 'Change');
    await eventually(
      'the list has the title',
      () => page.$eval('.conversation-entry .title', (title) => title.textContent),
      (title) => title === 'Shopping <b>list</b>',
    );
    await follow(page, 'Tasks');
    await shows(page, 'Buy groceries');
    await page.locator('.task input').click();
    await page.waitForSelector('.task .done');
    t.deepEqual(await accessibilityProblems(page), []);
    await page.goBack();
    await shows(page, 'Buy groceries: noted.');
    await press(page, 'Delete the conversation');
    t.deepEqual(await accessibilityProblems(page), []);
    await press(page, 'Delete');
    await shows(page, 'No conversations yet');
    t.deepEqual(await everythingOf(1), []);
    t.deepEqual(complaints, []);
  },
);

inBrowser('what would be deleted waits for the user, also after a reload: denied, then approved', async (t) => {
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page, complaints } = await logIn(context, mesh.url, 'user2', { view: '/assistant' });
  const wanted = (id: string) => calling({ id, name: 'tasks__delete_task', arguments: '{"task_id": 4711}' });
  model.on(inTurn(wanted('a'), saying('I have left it.')));
  await ask(page, 'Delete task 4711');
  await shows(page, 'May the assistant call delete_task?');
  t.deepEqual(await accessibilityProblems(page), []);
  await page.reload();
  await shows(page, 'May the assistant call delete_task?');
  await press(page, 'Deny');
  await shows(page, 'I have left it.');
  await shows(page, 'Answer again');
  const outcome = () => page.$$eval('[data-tool=delete_task] .outcome', (all) => all.map((each) => each.textContent));
  t.deepEqual(await outcome(), ['Failed']);

  model.on(inTurn(wanted('b'), saying('There is no such task.')));
  await ask(page, 'Delete it now');
  await press(page, 'Approve');
  await shows(page, 'There is no such task.');
  await shows(page, 'Answer again');
  t.deepEqual(await outcome(), ['Failed', 'Failed']);
  const [, , , approved] = await everythingOf(2);
  t.notRegex(JSON.stringify(approved!.tool_calls), /refused/);
  t.deepEqual(await accessibilityProblems(page), []);
  t.deepEqual(complaints, []);
});

inBrowser('a reload in the middle of an answer: it goes on where it was, and is stopped', async (t) => {
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page, complaints } = await logIn(context, mesh.url, 'user3', { view: '/assistant/new' });
  const { answering, begun } = speech();
  model.on(answering);
  await ask(page, 'Tell me a story');
  const { say, gone } = await begun;
  say('Once');
  await shows(page, 'Once');
  t.deepEqual(await accessibilityProblems(page), []);
  await page.reload();
  await shows(page, 'Once');
  say(' upon a time');
  await shows(page, 'Once upon a time');
  await press(page, 'Stop');
  await shows(page, 'Stopped.');
  await eventually('the model is told', () => gone.aborted, Boolean);
  t.deepEqual(await accessibilityProblems(page), []);
  const [asked, answer] = await everythingOf(3);
  t.like(asked, { role: 'user', content: 'Tell me a story' });
  t.like(answer, { role: 'assistant', content: 'Once upon a time', status: 'stopped' });
  t.deepEqual(complaints, []);
});

inBrowser('what is asked while the hub is away survives a reload, and is asked once', async (t) => {
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page } = await logIn(context, mesh.url, 'user4', { view: '/assistant/new' });
  await shows(page, 'What can be done for you?');
  model.on(saying('Heard.'));
  // Its answers are lost: what arrives is sent again, and stays one question.
  const answers = await page.createCDPSession();
  await answers.send('Fetch.enable', { patterns: [{ urlPattern: '*/api/*/chat', requestStage: 'Response' }] });
  answers.on('Fetch.requestPaused', ({ requestId }) => {
    answers.send('Fetch.failRequest', { requestId, errorReason: 'ConnectionReset' }).catch(() => {});
  });
  await ask(page, 'Is anybody there?');
  await eventually(
    'the hub has it',
    () => everythingOf(4),
    ({ length }) => length === 2,
  );
  await shows(page, 'Not sent yet');
  await fill(page, question, 'Not even ask');
  await page.reload();
  await shows(page, 'Not sent yet');
  await answers.detach();
  await shows(page, 'Heard.');
  await shows(page, 'Answer again');
  await setNetwork(page, { upload: 0 });
  await fill(page, question, 'And now?');
  await press(page, 'Send');
  await shows(page, 'Not sent yet');
  await fill(page, question, 'Half of a sen');
  await setNetwork(page);
  await eventually(
    'the hub has that, too',
    () => everythingOf(4),
    ({ length }) => length === 4,
  );
  await eventually(
    'both are answered',
    () => page.$$eval('.answer .text', (texts) => texts.map((text) => text.textContent)),
    (texts) => texts.join() === 'Heard.,Heard.',
  );
  t.is(await page.$eval('textarea', (field) => field.value), 'Half of a sen');
  t.deepEqual(
    (await everythingOf(4)).map(({ content }) => content),
    ['Is anybody there?', 'Heard.', 'And now?', 'Heard.'],
  );
});

inBrowser(
  'the gateway restarts in the middle of an answer: the page says so, and nothing of it is missing',
  async (t) => {
    const context = await browser.openContext();
    t.teardown(() => context.close());
    const { page } = await logIn(context, mesh.url, 'user5', { view: '/assistant/new' });
    const { answering, begun } = speech();
    model.on(answering);
    await ask(page, 'Tell me a story');
    const { say, end } = await begun;
    say('Once');
    await shows(page, 'Once');
    const { port } = mesh.gateway;
    await mesh.gateway.stop();
    await shows(page, 'The connection is lost.');
    t.deepEqual(await accessibilityProblems(page), []);
    say(' upon');
    await mesh.startGateway({ PORT: String(port) });
    say(' a time');
    await shows(page, 'Once upon a time');
    end();
    await shows(page, 'Answer again');
    t.deepEqual(await page.$$eval('.answer .text', (texts) => texts.map((text) => text.textContent)), [
      'Once upon a time',
    ]);
  },
);

inBrowser(
  'a phone: markup is text, code and long words have room, and who reads further up is not disturbed by what comes',
  async (t) => {
    const context = await browser.openContext();
    t.teardown(() => context.close());
    const size = { width: 390, height: 800 };
    const { page, complaints } = await logIn(context, mesh.url, 'user6', { view: '/assistant/new', size });
    const { answering, begun } = speech();
    model.on(answering);
    await ask(page, '<img src=x onerror=alert(1)>');
    const { say, end } = await begun;
    const paragraphs = Array.from({ length: 60 }, (_, index) => `Paragraph ${index}`).join('\n\n');
    say(`<b>bold</b> مرحبا ${'W'.repeat(400)}\n\`\`\`html\n<i>${'x'.repeat(300)}</i>\n\`\`\`\n${paragraphs}`);
    await shows(page, 'Paragraph 59');
    t.is(await page.$('.message img, .message b, .message i'), null);
    t.is(await page.$eval('.code code', (code) => code.textContent), `<i>${'x'.repeat(300)}</i>`);
    await page.$eval('.scroller', (scroller) => void (scroller.scrollTop = 300));
    const place = () => page.$eval('.scroller', (scroller) => scroller.scrollTop);
    await shows(page, 'To the end');
    const before = await place();
    say(`\n\n${'More to come. '.repeat(100)}`);
    await shows(page, 'More to come.');
    t.is(await place(), before);
    await press(page, 'To the end');
    say('\n\nThe very end');
    await shows(page, 'The very end');
    end();
    await shows(page, 'Answer again');
    const left = () =>
      page.$eval('.scroller', (scroller) => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight);
    await eventually('the end is seen', left, (pixels) => pixels < 2);
    await page.setViewport({ ...size, height: 500 });
    await eventually('the end is seen beside a keyboard', left, (pixels) => pixels < 2);
    const [wide, seen] = (await page.evaluate('[document.documentElement.scrollWidth, innerWidth]')) as [
      number,
      number,
    ];
    t.true(wide <= seen, `${wide} of ${seen}`);
    t.deepEqual(await accessibilityProblems(page), []);
    t.deepEqual(complaints, []);
  },
);

inBrowser('an answer that fails says why, and can be asked for again', async (t) => {
  const context = await browser.openContext();
  t.teardown(() => context.close());
  const { page } = await logIn(context, mesh.url, 'user7', { view: '/assistant/new' });
  model.on((response) => void response.writeHead(500).end('{}'));
  await ask(page, 'Hello?');
  await page.waitForSelector('.answer .notice.bad');
  t.deepEqual(await accessibilityProblems(page), []);
  model.on(saying('Now I am there.'));
  await press(page, 'Answer again');
  await shows(page, 'Now I am there.');
  t.is(await page.$('.answer .notice.bad'), null);
});
