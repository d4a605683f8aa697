import test from 'ava';
import { ProviderError, type Prompt, type Provider, type ProviderEvent } from '../provider/provider.ts';
import type { Tool, ToolOutcome, ToolSet } from '../toolbox/toolbox.ts';
import {
  Interruption,
  runAgent,
  type AgentEvent,
  type AgentOptions,
  type Observation,
  type Progress,
} from './agent.ts';
import { transitions } from './turn.ts';

const usage = { inputTokens: 10, outputTokens: 5 };
const says = (text: string, reason: 'stop' | 'length' = 'stop'): ProviderEvent[] => [
  ...Array.from(text, (delta) => ({ kind: 'text', delta }) as const),
  { kind: 'finish', reason, usage },
];
const asks = (...requests: [name: string, args: string][]): ProviderEvent[] => [
  ...requests.map(([name, args], index) => ({
    kind: 'toolRequest' as const,
    request: { id: `r${index}`, name, arguments: args },
  })),
  { kind: 'finish', reason: 'toolRequests', usage },
];

/** A model that says what it is told to, call by call. */
function modelOf(...answers: (ProviderEvent[] | ((signal: AbortSignal) => AsyncIterable<ProviderEvent>))[]) {
  const prompts: Prompt[] = [];
  const provider: Provider = {
    model: 'told',
    async *complete(prompt, signal) {
      prompts.push(structuredClone(prompt));
      const answer = answers[prompts.length - 1] ?? [];
      yield* typeof answer === 'function' ? answer(signal) : answer;
    },
    close: async () => {},
  };
  return { provider, prompts };
}

const tool = (name: string, more: Partial<Tool> = {}): Tool => ({
  server: 'tasks',
  name,
  description: '',
  inputSchema: { type: 'object' },
  needsApproval: false,
  isReadOnly: false,
  ...more,
});

function toolsOf(tools: Tool[], answer: (name: string, signal: AbortSignal) => Promise<ToolOutcome> | ToolOutcome) {
  const called: { name: string; arguments: unknown; callId: string }[] = [];
  const toolSet: ToolSet = {
    tools,
    missing: [],
    async call({ name, arguments: given, callId }, signal) {
      called.push({ name, arguments: given, callId });
      return answer(name, signal);
    },
    close: async () => {},
  };
  return { toolSet, called };
}

const done = () => ({ result: { status: 'done' }, isError: false });

function run(options: Pick<AgentOptions, 'provider' | 'toolSet'> & Partial<AgentOptions>) {
  const events: AgentEvent[] = [];
  const saved: Progress[] = [];
  const observed: Observation[] = [];
  const end = runAgent({
    messages: [{ role: 'user', content: 'Hello' }],
    maxSteps: 8,
    approveTools: false,
    callId: (step, index) => `call_${step}_${index}`,
    signal: new AbortController().signal,
    emit: (event) => void events.push(structuredClone(event)),
    save: async (progress) => void saved.push(structuredClone(progress)),
    observe: (observation) => void observed.push(observation),
    ...options,
  });
  return { end, events, saved, observed };
}

test('an answer without tools: its text comes in pieces, and its usage is counted', async (t) => {
  const { provider, prompts } = modelOf(says('Hi!'));
  const { end, events, saved } = run({ provider, toolSet: toolsOf([], done).toolSet });
  t.like(await end, { state: 'completed', finishReason: 'stop', inputTokens: 10, outputTokens: 5 });
  t.deepEqual(
    events,
    ['H', 'i', '!'].map((delta) => ({ kind: 'text', delta })),
  );
  t.deepEqual(saved, []);
  t.deepEqual(prompts[0]!.messages, [{ role: 'user', content: 'Hello' }]);
});

test('tools of one step are called in order, each is kept before it is called, and the model reads what came of them', async (t) => {
  const { provider, prompts } = modelOf(
    asks(['tasks__add_task', '{"title":"a"}'], ['tasks__list_tasks', '']),
    says('Done'),
  );
  const { toolSet, called } = toolsOf([tool('add_task'), tool('list_tasks')], done);
  const { end, events, saved } = run({ provider, toolSet });
  t.like(await end, { state: 'completed', finishReason: 'stop', inputTokens: 20, outputTokens: 10 });
  t.deepEqual(called, [
    { name: 'add_task', arguments: { title: 'a' }, callId: 'call_0_0' },
    { name: 'list_tasks', arguments: {}, callId: 'call_0_1' },
  ]);
  t.deepEqual(
    saved.map(({ state, steps }) => [state, steps[0]!.calls.map(({ isBegun, outcome }) => [isBegun, outcome?.result])]),
    [
      [
        'acting',
        [
          [true, undefined],
          [undefined, undefined],
        ],
      ],
      [
        'acting',
        [
          [true, { status: 'done' }],
          [undefined, undefined],
        ],
      ],
      [
        'acting',
        [
          [true, { status: 'done' }],
          [true, undefined],
        ],
      ],
      [
        'calling',
        [
          [true, { status: 'done' }],
          [true, { status: 'done' }],
        ],
      ],
    ],
  );
  t.deepEqual(
    events.map((event) => (event.kind === 'text' ? event.delta : `${event.kind} ${event.call.name}`)).slice(0, 4),
    ['toolCall add_task', 'toolResult add_task', 'toolCall list_tasks', 'toolResult list_tasks'],
  );
  t.deepEqual(prompts[1]!.messages.slice(1), [
    {
      role: 'assistant',
      content: '',
      toolRequests: [
        { id: 'r0', name: 'tasks__add_task', arguments: '{"title":"a"}' },
        { id: 'r1', name: 'tasks__list_tasks', arguments: '' },
      ],
    },
    { role: 'tool', toolRequestId: 'r0', content: '{"data":{"status":"done"}}' },
    { role: 'tool', toolRequestId: 'r1', content: '{"data":{"status":"done"}}' },
  ]);
});

test('what the model asks for wrongly is told to it, and no tool is called', async (t) => {
  const deep = '{"a":'.repeat(100) + '1' + '}'.repeat(100);
  const { provider, prompts } = modelOf(
    asks(['tasks__add_task', '{"title"'], ['tasks__add_task', '[1]'], ['nothing', '{}'], ['tasks__add_task', deep]),
    says('Sorry'),
  );
  const { toolSet, called } = toolsOf([tool('add_task')], done);
  const { end, events } = run({ provider, toolSet });
  const { state, steps } = await end;
  t.is(state, 'completed');
  t.deepEqual(called, []);
  t.true(steps[0]!.calls.every(({ outcome }) => outcome!.isError));
  t.deepEqual(
    steps[0]!.calls.map(({ outcome }) => String(outcome!.result).replace(/^Not called: /, '')),
    [
      'its arguments are not valid JSON',
      'its arguments are not a JSON object',
      'there is no tool nothing',
      'its arguments are nested more than 64 levels deep',
    ],
  );
  t.is(events.filter(({ kind }) => kind === 'toolResult').length, 4);
  t.regex(JSON.stringify(prompts[1]!.messages.at(-1)), /error/);
});

test('a tool that fails is told to the model, and the turn goes on', async (t) => {
  const { provider, prompts } = modelOf(asks(['tasks__add_task', '{}']), says('It failed'));
  const { toolSet } = toolsOf([tool('add_task')], () => ({ result: 'No such task', isError: true }));
  const { end } = run({ provider, toolSet });
  t.is((await end).state, 'completed');
  t.like(prompts[1]!.messages.at(-1), { role: 'tool', content: '{"error":"No such task"}' });
});

test('a model that always wants tools is called so often and no more, and the last tools still run', async (t) => {
  const { provider, prompts } = modelOf(...Array.from({ length: 9 }, () => asks(['tasks__add_task', '{}'])));
  const { toolSet, called } = toolsOf([tool('add_task')], done);
  const { end } = run({ provider, toolSet, maxSteps: 3 });
  t.like(await end, { state: 'completed', finishReason: 'max_steps' });
  t.is(prompts.length, 3);
  t.is(called.length, 3);
});

test('a tool that destroys something waits for the user; with his decision the work goes on from there', async (t) => {
  const dangerous = [tool('add_task'), tool('delete_task', { needsApproval: true })];
  const model = modelOf(asks(['tasks__add_task', '{}'], ['tasks__delete_task', '{}']));
  const first = toolsOf(dangerous, done);
  const held = await run({ provider: model.provider, toolSet: first.toolSet, approveTools: true }).end;
  if (held.state !== 'waiting') return t.fail(held.state);
  t.deepEqual(
    first.called.map(({ name }) => name),
    ['add_task'],
  );
  t.like(held.waitingFor, { id: 'call_0_1', approval: { id: 'approval_call_0_1' } });

  for (const isApproved of [true, false]) {
    const progress = structuredClone(held) as Progress & { steps: typeof held.steps };
    const call = progress.steps[0]!.calls[1]!;
    call.approval!.isApproved = isApproved;
    const { provider, prompts } = modelOf(says('So be it'));
    const { toolSet, called } = toolsOf(dangerous, done);
    const goesOn = run({ provider, toolSet, approveTools: true, progress: { ...progress, state: 'acting' } });
    t.like(await goesOn.end, { state: 'completed', inputTokens: 20 });
    t.is(called.length, isApproved ? 1 : 0);
    t.regex(JSON.stringify(prompts[0]!.messages.at(-1)), isApproved ? /done/ : /the user has refused it/);
    t.deepEqual(
      goesOn.events.slice(0, 2).map(({ kind }) => kind),
      ['toolCall', 'toolResult'],
    );
  }
});

test('without that wish nobody is asked', async (t) => {
  const { provider } = modelOf(asks(['tasks__delete_task', '{}']), says('Gone'));
  const { toolSet, called } = toolsOf([tool('delete_task', { needsApproval: true })], done);
  t.is((await run({ provider, toolSet }).end).state, 'completed');
  t.is(called.length, 1);
});

test('a provider that fails or breaks off ends the turn as failed; what it said is kept', async (t) => {
  const { toolSet } = toolsOf([], done);
  const broken = modelOf(async function* () {
    yield { kind: 'text', delta: 'Hal' };
    throw new ProviderError('PROVIDER_UNAVAILABLE', 'Too much to do', { retryAfter: 3_000 });
  });
  const failed = await run({ provider: broken.provider, toolSet }).end;
  if (failed.state !== 'failed') return t.fail(failed.state);
  t.is(failed.error.reason, 'PROVIDER_UNAVAILABLE');
  t.is(failed.steps[0]!.text, 'Hal');

  const cut = await run({ provider: modelOf([{ kind: 'text', delta: 'Hal' }]).provider, toolSet }).end;
  t.is(cut.state === 'failed' ? cut.error.reason : undefined, 'PROVIDER_ERROR');
});

for (const event of ['stop', 'timeUp'] as const) {
  test(`${event} while the model speaks: ends at once what doesn't notice it, and keeps what was said`, async (t) => {
    const control = new AbortController();
    const deaf = modelOf(async function* () {
      yield { kind: 'text', delta: 'Once' };
      await new Promise(() => {});
    });
    const { end } = run({
      provider: deaf.provider,
      toolSet: toolsOf([], done).toolSet,
      signal: control.signal,
      emit: () => control.abort(new Interruption(event)),
    });
    const ended = await end;
    t.is(ended.state, event === 'stop' ? 'stopped' : 'completed');
    if (ended.state === 'completed') t.is(ended.finishReason, 'max_steps');
    t.is(ended.steps[0]!.text, 'Once');
  });

  test(`${event} while a tool is called: it is told so, and its call is kept without an outcome`, async (t) => {
    const control = new AbortController();
    let isAborted = false;
    const { provider, prompts } = modelOf(asks(['tasks__add_task', '{}']), says('never'));
    const { toolSet } = toolsOf([tool('add_task')], async (_name, signal) => {
      signal.addEventListener('abort', () => (isAborted = true));
      control.abort(new Interruption(event));
      return new Promise(() => {});
    });
    const ended = await run({ provider, toolSet, signal: control.signal }).end;
    t.is(ended.state, event === 'stop' ? 'stopped' : 'completed');
    t.true(isAborted);
    t.is(prompts.length, 1);
    t.like(ended.steps[0]!.calls[0], { isBegun: true, outcome: undefined });
  });
}

test('an abort for any other reason is thrown', async (t) => {
  const control = new AbortController();
  const reason = new Error('The process stops');
  const { provider } = modelOf(says('Hi'));
  const emit = () => control.abort(reason);
  const { end } = run({ provider, toolSet: toolsOf([], done).toolSet, signal: control.signal, emit });
  t.is(await t.throwsAsync(end), reason);
});

test('the tools of whoever asks: the step that asks for one is the last, and ours have been called', async (t) => {
  const { provider, prompts } = modelOf(asks(['weather', '{"city":"Rome"}'], ['tasks__add_task', '{}']));
  const { toolSet, called } = toolsOf([tool('add_task')], done);
  const clientTools = [{ name: 'weather', description: '', parameters: { type: 'object' } }];
  const ended = await run({ provider, toolSet, clientTools }).end;
  t.like(ended, { state: 'completed', finishReason: 'stop' });
  t.deepEqual('clientRequests' in ended ? ended.clientRequests : undefined, [
    { id: 'r0', name: 'weather', arguments: '{"city":"Rome"}' },
  ]);
  t.deepEqual(
    called.map(({ name }) => name),
    ['add_task'],
  );
  t.deepEqual(
    prompts[0]!.tools.map(({ name }) => name),
    ['tasks__add_task', 'weather'],
  );
});

test('a character that comes in two pieces is whole, and half of one is no end', async (t) => {
  const { provider } = modelOf([
    { kind: 'text', delta: 'a\ud83d' },
    { kind: 'text', delta: '\ude00b\udc00\0' },
    { kind: 'finish', reason: 'stop', usage },
  ]);
  const { end, events } = run({ provider, toolSet: toolsOf([], done).toolSet });
  await end;
  t.deepEqual(
    events.map((event) => event.kind === 'text' && event.delta),
    ['a', '😀b\ufffd\ufffd'],
  );
});

test('what a trace needs is told of each call, and no content', async (t) => {
  const { provider } = modelOf(asks(['tasks__add_task', '{"title":"secret"}']), says('secret'));
  const { toolSet } = toolsOf([tool('add_task')], () => ({ result: 'secret', isError: false }));
  const { end, observed } = run({ provider, toolSet });
  await end;
  t.deepEqual(
    observed.map(({ kind }) => kind),
    ['model', 'tool', 'model'],
  );
  t.like(observed[0], { model: 'told', inputTokens: 10, outputTokens: 5, finishReason: 'toolRequests' });
  t.like(observed[1], { server: 'tasks', name: 'add_task', callId: 'call_0_0', isError: false });
  t.notRegex(JSON.stringify(observed), /secret/);
});

test('transitions: an end stays one, whatever happens', (t) => {
  for (const end of ['completed', 'stopped', 'failed'] as const) {
    t.deepEqual(new Set(Object.values(transitions[end])), new Set(['impossible', 'ignored']));
  }
});
