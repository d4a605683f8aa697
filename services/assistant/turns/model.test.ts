import test from 'ava';
import fc from 'fast-check';
import pg from 'pg';
import { ChatResponse } from '#gen/chat4all/assistant/v1/assistant.ts';
import { HubError } from '#lib/errors.ts';
import {
  Desk,
  kindOf,
  newAsker,
  openReplica,
  type DeskCall,
  type ModelCall,
  type Replica,
} from '../../../test/assistant-desk.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { ProviderError } from '../provider/provider.ts';
import type { Tool } from '../toolbox/toolbox.ts';
import { after, transitions, type TurnEvent, type TurnState } from './turn.ts';

/**
 * Walks turns through what may happen to them in any order, at two processes of which one may die at any moment, on a real database:
 * each turn has to be where the table of turn.ts says, and whoever follows it has to read a whole story. The walks are the same each
 * time, since they have to go over the whole table.
 */

const hub = opened(openHarness, (hub) => hub.stop());
const database = opened(
  () => {
    const options = '-c search_path=assistant';
    return new pg.Pool({ connectionString: hub.adminDatabaseUrl, max: 2, connectionTimeoutMillis: 10_000, options });
  },
  (pool) => pool.end(),
);

const tool = (name: string, needsApproval: boolean): Tool => ({
  server: 'tasks',
  name,
  description: '',
  inputSchema: { type: 'object' },
  needsApproval,
  isReadOnly: false,
});
const tools = [tool('add', false), tool('destroy', true)];
const maxSteps = 2;
const never = new AbortController().signal;

/** What a turn is known to be. */
interface Model {
  state: TurnState | 'none';
  steps: number;
  /** Tools of this step that have no outcome yet, the next first. */
  pending: ('add' | 'destroy')[];
  questions: number;
  /** What was said in this turn. */
  text: string;
}

interface Real {
  desk: Desk;
  replicas: [Replica, Replica];
  asker: ReturnType<typeof newAsker>;
  conversationId: bigint | undefined;
  messageId: bigint;
  /** Which process works on the turn. */
  owner: 0 | 1;
  modelCall: ModelCall | undefined;
  toolCall: DeskCall | undefined;
  /** Calls that a tool has been asked to make, by their ids. */
  callIds: Set<string>;
  walked: Set<string>;
}

async function stateOf({ messageId }: Real): Promise<TurnState | undefined> {
  const { rows } = await database.query<{ state: TurnState }>('select state from turns where message_id = $1', [
    messageId,
  ]);
  return rows[0]?.state;
}

/** Moves the model as the table says, and waits until the turn is there. */
async function move(model: Model, real: Real, event: TurnEvent): Promise<void> {
  real.walked.add(`${model.state} ${event}`);
  const state = after(model.state as TurnState, event);
  model.state = state;
  await eventually(
    `${event} leads to ${state}`,
    () => stateOf(real),
    (found) => found === state,
  );
  if (state === 'calling') real.modelCall = await real.desk.modelCall();
}

/** The next tool is called, or the user is asked. */
async function goOn(model: Model, real: Real): Promise<void> {
  if (model.pending[0] === 'destroy') return move(model, real, 'held');
  if (model.pending.length > 0) {
    real.toolCall = await real.desk.toolCall();
    if (real.callIds.has(real.toolCall.callId)) throw new Error(`${real.toolCall.callId} was called twice`);
    real.callIds.add(real.toolCall.callId);
    return;
  }
  await move(model, real, model.steps < maxSteps ? 'told' : 'stepsUsed');
}

async function acted(model: Model, real: Real): Promise<void> {
  model.pending.shift();
  if (model.pending.length > 0) {
    real.walked.add('acting acted');
    model.state = after('acting', 'acted');
  }
  await goOn(model, real);
}

async function storyOf(replica: Replica, messageId: bigint): Promise<ChatResponse[]> {
  const events: ChatResponse[] = [];
  for await (const event of replica.turns.follow({ messageId, after: 0 }, never)) events.push(event);
  return events;
}

/** An answer that has ended reads the same everywhere: a beginning, each tool's result behind its call, and one end. */
async function checkStory(model: Model, real: Real): Promise<void> {
  const [story, other] = await Promise.all(real.replicas.map((replica) => storyOf(replica, real.messageId)));
  const kinds = story!.map(kindOf);
  const fail = (why: string) => {
    throw new Error(`${why}: ${kinds.join(' ')}`);
  };
  if (JSON.stringify(kinds) !== JSON.stringify(other!.map(kindOf))) fail('It reads otherwise at the other process');
  if (kinds[0] !== 'start') fail('It has no beginning');
  const ends = { completed: 'finish', stopped: 'stopped', failed: 'error' } as const;
  const lasts = kinds.filter((kind) => Object.values<string>(ends).includes(kind));
  if (lasts.length !== 1 || kinds.at(-1) !== ends[model.state as keyof typeof ends]) fail(`It is ${model.state}`);
  for (const [index, { id }] of story!.entries())
    if (index > 0 && id <= story![index - 1]!.id) fail('Its numbers do not grow');
  const calls = new Set<string>();
  for (const { event } of story!) {
    if (event?.$case === 'toolCall') calls.add(event.value.id);
    if (event?.$case === 'toolResult' && !calls.delete(event.value.id)) fail('A result has no call');
  }
  if (model.state === 'completed' && calls.size > 0) fail('A call has no result');
  const said = story!.map(({ event }) => (event?.$case === 'text' ? event.value.delta : '')).join('');
  if (said !== model.text) fail(`It says ${JSON.stringify(said)} where ${JSON.stringify(model.text)} was said`);
  const { rows } = await database.query<{ content: string; status: string }>(
    'select content, status from messages where id = $1',
    [real.messageId],
  );
  if (rows[0]!.content !== said || rows[0]!.status !== model.state) fail(`What is kept is ${JSON.stringify(rows[0])}`);
}

type Walk = fc.AsyncCommand<Model, Real>;

const command = (
  name: string,
  check: (model: Model) => boolean,
  run: (model: Model, real: Real) => Promise<void>,
): Walk => ({
  check,
  run: async (model, real) => {
    await run(model, real);
    if (model.state !== 'none' && transitions[model.state].stop === 'ignored') await checkStory(model, real);
  },
  toString: () => name,
});

const isOpen = ({ state }: Model) => state === 'calling' || state === 'acting' || state === 'waiting';
const isOwned = ({ state }: Model) => state === 'calling' || state === 'acting';

const chat = (at: 0 | 1) =>
  command(
    `chat at ${at}`,
    () => true,
    async (model, real) => {
      const wish = {
        conversationId: real.conversationId,
        message: `question ${model.questions + 1}`,
        approveTools: true,
        idempotencyKey: '',
      };
      const asked = real.replicas[at].turns.chat(wish, real.asker);
      if (isOpen(model)) {
        const refusal = await asked.then(
          () => undefined,
          (error: unknown) => (error instanceof HubError ? error.reason : error),
        );
        if (refusal !== 'TURN_IN_PROGRESS') throw new Error(`It is not refused: ${String(refusal)}`);
        return;
      }
      const { messageId } = await asked;
      Object.assign(real, { messageId, owner: at });
      const { rows } = await database.query<{ id: string }>(
        'select conversation_id as id from messages where id = $1',
        [messageId],
      );
      real.conversationId = BigInt(rows[0]!.id);
      Object.assign(model, { state: 'calling', steps: 1, pending: [], text: '', questions: model.questions + 1 });
      real.modelCall = await real.desk.modelCall();
      const asks = real.modelCall.prompt.messages.filter(({ role }) => role === 'user');
      if (asks.length !== model.questions) throw new Error('The model does not see every question');
    },
  );

const say = command(
  'say',
  ({ state }) => state === 'calling',
  async (model, real) => {
    model.text += 'x';
    real.modelCall!.say('x');
    await eventually(
      'the text is kept',
      async () => {
        const { events } = await real.replicas[0].store.read(real.messageId, 0);
        return events.map(({ event }) => ChatResponse.decode(event)).filter((each) => kindOf(each) === 'text').length;
      },
      (count) => count === model.text.length,
    );
  },
);

const answer = command(
  'answer',
  ({ state }) => state === 'calling',
  (model, real) => {
    real.modelCall!.finish();
    return move(model, real, 'answered');
  },
);

const ask = (...wanted: ('add' | 'destroy')[]) =>
  command(
    `ask for ${wanted.join(', ')}`,
    ({ state }) => state === 'calling',
    async (model, real) => {
      real.modelCall!.finish(
        'stop',
        wanted.map((name) => [`tasks__${name}`, '{}']),
      );
      real.walked.add('calling asked');
      Object.assign(model, { state: after('calling', 'asked'), pending: [...wanted] });
      await goOn(model, real);
      if (model.state === 'calling') model.steps += 1;
    },
  );

const actedCommand = (isError: boolean) =>
  command(
    isError ? 'a tool fails' : 'a tool answers',
    ({ state }) => state === 'acting',
    async (model, real) => {
      real.toolCall!.answer({ result: 'done', isError });
      await acted(model, real);
      if (model.state === 'calling') model.steps += 1;
    },
  );

const decide = (at: 0 | 1, isApproved: boolean) =>
  command(
    `${isApproved ? 'approve' : 'refuse'} at ${at}`,
    ({ state }) => state !== 'none',
    async (model, real) => {
      const { rows } = await database.query<{ id: string | null }>(
        `select jsonb_path_query(steps, '$[*].calls[*].approval.id') #>> '{}' as id from messages where id = $1`,
        [real.messageId],
      );
      const approvalId = rows.at(-1)?.id ?? 'approval_x';
      const deciding = real.replicas[at].turns.decide(real.conversationId!, approvalId, isApproved, real.asker);
      if (model.state !== 'waiting') {
        const reason = await deciding.then(
          () => undefined,
          (error: unknown) => (error instanceof HubError ? error.reason : error),
        );
        if (reason !== 'ALREADY_DECIDED' && reason !== 'APPROVAL_NOT_FOUND')
          throw new Error(`It is not refused: ${String(reason)}`);
        real.walked.add(`${model.state} decided`);
        return;
      }
      await deciding;
      real.owner = at;
      real.walked.add('waiting decided');
      model.state = after('waiting', 'decided');
      if (isApproved) {
        real.toolCall = await real.desk.toolCall();
        if (real.callIds.has(real.toolCall.callId)) throw new Error(`${real.toolCall.callId} was called twice`);
        real.callIds.add(real.toolCall.callId);
        model.pending[0] = 'add';
        return;
      }
      await acted(model, real);
      if (model.state === 'calling') model.steps += 1;
    },
  );

const stop = (at: 0 | 1) =>
  command(
    `stop at ${at}`,
    ({ state }) => state !== 'none',
    async (model, real) => {
      const wasOpen = isOpen(model);
      const stopped = await real.replicas[at].turns.stop(real.conversationId!);
      if (stopped !== wasOpen) throw new Error(`stopped: ${stopped}`);
      await move(model, real, 'stop');
    },
  );

const providerFails = command(
  'the provider fails',
  ({ state }) => state === 'calling',
  (model, real) => {
    real.modelCall!.fail(new ProviderError('PROVIDER_ERROR', 'No'));
    return move(model, real, 'providerFailed');
  },
);

const dies = command('the process dies', isOwned, async (model, real) => {
  const dead = real.replicas[real.owner];
  dead.die();
  await database.query(`update turns set lease_until = now() - interval '1 second' where message_id = $1`, [
    real.messageId,
  ]);
  await dead.close();
  real.replicas[real.owner] = openReplica(hub, real.desk, { maxSteps });
  await move(model, real, 'ownerLost');
});

test('turns are where the table says, whatever happens in whatever order', async (t) => {
  t.timeout(170_000);
  const walked = new Set<string>();
  const commands = [
    ...([0, 1] as const).flatMap((at) => [chat(at), stop(at), decide(at, true), decide(at, false)]),
    say,
    answer,
    ask('add'),
    ask('destroy'),
    ask('add', 'destroy', 'add'),
    actedCommand(false),
    actedCommand(true),
    providerFails,
    dies,
  ].map((each) => fc.constant(each));
  await fc.assert(
    fc.asyncProperty(fc.commands(commands, { size: '+1', maxCommands: 60 }), async (walk) => {
      const desk = new Desk(tools);
      const real: Real = {
        desk,
        replicas: [openReplica(hub, desk, { maxSteps }), openReplica(hub, desk, { maxSteps })],
        asker: newAsker(),
        conversationId: undefined,
        messageId: 0n,
        owner: 0,
        modelCall: undefined,
        toolCall: undefined,
        callIds: new Set(),
        walked,
      };
      try {
        const model: Model = { state: 'none', steps: 0, pending: [], questions: 0, text: '' };
        await fc.asyncModelRun(() => ({ model, real }), walk);
      } finally {
        await Promise.all(real.replicas.map((replica) => replica.close()));
      }
    }),
    { numRuns: 60, seed: 20_261_129, interruptAfterTimeLimit: 120_000, markInterruptAsFailure: true },
  );
  t.log([...walked].toSorted().join(', '));
  for (const [state, events] of Object.entries(transitions)) {
    for (const [event, next] of Object.entries(events)) {
      // The time limit and the day after which an approval is forgotten have tests of their own.
      if (next === 'impossible' || next === 'ignored' || event === 'timeUp' || event === 'forgotten') continue;
      t.true(walked.has(`${state} ${event}`), `${state}: ${event} was walked`);
    }
  }
});
