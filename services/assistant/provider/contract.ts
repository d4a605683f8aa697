import type { TestFn } from 'ava';
import type { Prompt, PromptMessage, Provider, ProviderEvent } from './provider.ts';
import { toolContent } from './tool-content.ts';

/** What comes of a call of a model, until its end. */
export async function eventsOf(
  provider: Provider,
  prompt: Prompt,
  signal = new AbortController().signal,
): Promise<ProviderEvent[]> {
  const events: ProviderEvent[] = [];
  for await (const event of provider.complete(prompt, signal)) events.push(event);
  return events;
}

export function textOf(events: readonly ProviderEvent[]): string {
  return events.map((event) => (event.kind === 'text' ? event.delta : '')).join('');
}

export function requestsOf(events: readonly ProviderEvent[]) {
  return events.flatMap((event) => (event.kind === 'toolRequest' ? [event.request] : []));
}

const user = (content: string): PromptMessage => ({ role: 'user', content });
const addTask = {
  name: 'tasks__add_task',
  description: 'Adds a task',
  parameters: { type: 'object', properties: { title: { type: 'string' } }, required: ['title'] },
};

/** What every provider must do. Its model understands the phrases of the scripted one. */
export function providerContract(test: TestFn, open: () => Promise<Provider>): void {
  test('complete: text comes in pieces, and the end last, once, with what was used', async (t) => {
    const provider = await open();
    const events = await eventsOf(provider, { messages: [user('Hello')], tools: [] });
    t.true(events.filter(({ kind }) => kind === 'text').length > 1);
    t.deepEqual(
      events.flatMap((event, index) => (event.kind === 'finish' ? [index] : [])),
      [events.length - 1],
    );
    const last = events.at(-1)!;
    if (last.kind !== 'finish') return t.fail();
    t.is(last.reason, 'stop');
    t.true(Number.isSafeInteger(last.usage.inputTokens) && last.usage.inputTokens > 0);
    t.true(Number.isSafeInteger(last.usage.outputTokens) && last.usage.outputTokens > 0);
    await provider.close();
  });

  test('complete: a tool is wanted as a whole, under its name, and its result answered', async (t) => {
    const provider = await open();
    const messages = [user('Add a task to buy groceries')];
    const wanted = await eventsOf(provider, { messages, tools: [addTask] });
    const requests = requestsOf(wanted);
    t.is(requests.length, 1);
    t.is(requests[0]!.name, addTask.name);
    t.not(requests[0]!.id, '');
    t.deepEqual(JSON.parse(requests[0]!.arguments), { title: 'Buy groceries' });
    t.like(wanted.at(-1), { kind: 'finish', reason: 'toolRequests' });

    const content = toolContent({ result: { task_id: 7, title: 'Buy groceries' }, isError: false });
    const after = await eventsOf(provider, {
      messages: [
        ...messages,
        { role: 'assistant', content: textOf(wanted), toolRequests: requests },
        { role: 'tool', toolRequestId: requests[0]!.id, content },
      ],
      tools: [addTask],
    });
    t.deepEqual(requestsOf(after), []);
    t.regex(textOf(after), /7/);
    t.like(after.at(-1), { kind: 'finish', reason: 'stop' });
    await provider.close();
  });

  test('complete: what is aborted before it begins, or in the middle, ends with the reason of its signal', async (t) => {
    const provider = await open();
    const prompt = { messages: [user('Hello')], tools: [] };
    const reason = new Error('stopped');
    const error = await t.throwsAsync(eventsOf(provider, prompt, AbortSignal.abort(reason)));
    t.is(error, reason);
    const stopping = new AbortController();
    let pieces = 0;
    const late = await t.throwsAsync(async () => {
      for await (const _event of provider.complete(prompt, stopping.signal)) {
        pieces += 1;
        if (pieces === 1) stopping.abort(reason);
      }
    });
    t.is(late, reason);
    await provider.close();
  });

  test('complete: calls at once have nothing of each other', async (t) => {
    const provider = await open();
    const titles = Array.from({ length: 20 }, (_, index) => `Item ${index}`);
    const found = await Promise.all(
      titles.map(async (title) => {
        const prompt = { messages: [user(`Add a task to ${title}`)], tools: [addTask] };
        return requestsOf(await eventsOf(provider, prompt)).map((request) => JSON.parse(request.arguments));
      }),
    );
    t.deepEqual(
      found,
      titles.map((title) => [{ title }]),
    );
    await provider.close();
  });

  test('complete: a limit of tokens ends the answer there, as `length`', async (t) => {
    const provider = await open();
    const events = await eventsOf(provider, { messages: [user('Hello')], tools: [], options: { max_tokens: 3 } });
    t.like(events.at(-1), { kind: 'finish', reason: 'length' });
    await provider.close();
  });
}
