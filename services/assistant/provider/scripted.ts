import { createHash } from 'node:crypto';
import type { ToolOutcome } from '../toolbox/toolbox.ts';
import { understand, type Intent, type Language } from './phrases.ts';
import type { Prompt, PromptMessage, Provider, ProviderEvent, ToolDefinition, ToolRequest } from './provider.ts';
import { replies, type Replies, type TaskLine } from './replies.ts';
import { tokensIn, tokensInPrompt } from './tokens.ts';
import { toolOutcomeOf } from './tool-content.ts';

/** The name of the scripted model. */
export const scriptedModel = 'scripted';

/** A tool call of the turn that is answered now, and what came of it. */
interface Step {
  name: string;
  outcome: ToolOutcome;
}

type Next = { text: string } | { tool: string; arguments: Record<string, unknown> | string };

/**
 * A model that follows rules: the same prompt has the same answer. It understands the phrases of `phrases.ts` and answers anything
 * else with what it can do, so that everything around a model can be tried without one.
 */
export function openScripted(): Provider {
  return {
    model: scriptedModel,

    // oxlint-disable-next-line typescript/require-await -- the port is asynchronous
    async *complete(prompt, signal) {
      signal.throwIfAborted();
      const next = answerTo(prompt);
      const inputTokens = tokensInPrompt(prompt.messages, prompt.tools);
      if ('tool' in next) {
        const request = requestFor(next, prompt.messages);
        yield { kind: 'toolRequest', request };
        const outputTokens = tokensIn(request.name) + tokensIn(request.arguments);
        yield { kind: 'finish', reason: 'toolRequests', usage: { inputTokens, outputTokens } };
        return;
      }
      const words = next.text.match(/\s*\S+\s*?(?=\s|$)/g) ?? [];
      // A word is its token.
      const limit = typeof prompt.options?.['max_tokens'] === 'number' ? prompt.options['max_tokens'] : Infinity;
      for (const delta of words.slice(0, limit)) {
        signal.throwIfAborted();
        yield { kind: 'text', delta } satisfies ProviderEvent;
      }
      signal.throwIfAborted();
      const usage = { inputTokens, outputTokens: Math.min(limit, words.length) };
      yield { kind: 'finish', reason: words.length > limit ? 'length' : 'stop', usage };
    },

    async close() {},
  };
}

/** Its id depends on what was said before, so that no two calls of a conversation have the same one. */
function requestFor(next: Extract<Next, { tool: string }>, messages: readonly PromptMessage[]): ToolRequest {
  const hash = createHash('sha256')
    .update(JSON.stringify([messages, next]))
    .digest('hex');
  const given = typeof next.arguments === 'string' ? next.arguments : JSON.stringify(next.arguments);
  return { id: `call_${hash.slice(0, 24)}`, name: next.tool, arguments: given };
}

function answerTo({ messages, tools, options }: Prompt): Next {
  const asked = messages.findLastIndex(({ role }) => role === 'user');
  const text = messages[asked]?.content ?? '';
  const { intent, language } = understand(text);
  const before = messages.slice(0, Math.max(0, asked));
  const usable = options?.['tool_choice'] === 'none' ? [] : tools;
  const next = follow(intent, { steps: stepsIn(messages.slice(asked + 1)), before, tools: usable, language });
  if (!('text' in next)) return next;
  const isFirst = before.every(({ role }) => role !== 'assistant');
  return { text: isFirst ? `${replies[language].notice} ${next.text}` : next.text };
}

function stepsIn(messages: readonly PromptMessage[]): Step[] {
  const requests = messages.flatMap((message) => (message.role === 'assistant' ? message.toolRequests : []));
  const names = new Map(requests.map(({ id, name }) => [id, name]));
  return messages.flatMap((message) => {
    if (message.role !== 'tool') return [];
    return [{ name: names.get(message.toolRequestId) ?? '', outcome: toolOutcomeOf(message.content) }];
  });
}

interface Situation {
  /** The steps for the current message so far. */
  steps: readonly Step[];
  /** The messages before it. */
  before: readonly PromptMessage[];
  tools: readonly ToolDefinition[];
  language: Language;
}

/** What comes next for a wish. */
function follow(intent: Intent, situation: Situation): Next {
  const { steps, language } = situation;
  const say = replies[language];
  const failed = steps.at(-1);
  if (failed?.outcome.isError) return { text: say.failed(reasonIn(failed.outcome.result)) };
  switch (intent.kind) {
    case 'talk':
      return { text: say.talk };
    case 'add':
      return once('tasks', 'add_task', { title: intent.title }, situation, (result) => say.added(taskIn(result)));
    case 'list': {
      const { status } = intent;
      return once('tasks', 'list_tasks', { status }, situation, (result) => say.listed(status, tasksIn(result)));
    }
    case 'complete':
      return once('tasks', 'complete_task', { task_id: intent.taskId }, situation, (result) =>
        say.completed(taskIn(result)),
      );
    case 'change': {
      const given = { task_id: intent.taskId, title: intent.title };
      return once('tasks', 'update_task', given, situation, (result) => say.changed(taskIn(result)));
    }
    case 'delete':
      return once('tasks', 'delete_task', { task_id: intent.taskId }, situation, (result) =>
        say.deleted(taskIn(result)),
      );
    case 'deleteByTitle':
      return deleteByTitle(intent.words, situation);
    case 'send':
      return sendMessage(intent, situation);
    case 'status': {
      const messageId = lastSent(situation.before);
      if (messageId === undefined) return { text: say.nothingSent };
      return once('hub', 'message_status', { message_id: messageId }, situation, (result) => statusText(say, result));
    }
    case 'call': {
      const tool = situation.tools.find(({ name }) => name === intent.tool || name.endsWith(`__${intent.tool}`));
      if (tool === undefined) return { text: say.unknownTool(intent.tool) };
      const [done] = steps;
      if (done === undefined) return { tool: tool.name, arguments: intent.arguments };
      return { text: say.called(intent.tool, JSON.stringify(done.outcome.result)) };
    }
  }
}

/** A call of one tool, and what is said of its result. */
function once(
  server: string,
  name: string,
  given: Record<string, unknown>,
  { steps, tools, language }: Situation,
  text: (result: unknown) => string,
): Next {
  const done = steps.find((step) => step.name === `${server}__${name}`);
  if (done !== undefined) return { text: text(done.outcome.result) };
  if (!tools.some((tool) => tool.name === `${server}__${name}`)) return { text: replies[language].noTool(server) };
  return { tool: `${server}__${name}`, arguments: given };
}

function deleteByTitle(words: string, situation: Situation): Next {
  const say = replies[situation.language];
  const listed = once('tasks', 'list_tasks', { status: 'all' }, situation, () => '');
  if ('tool' in listed || listed.text !== '') return listed;
  const all = tasksIn(situation.steps.find(({ name }) => name === 'tasks__list_tasks')?.outcome.result);
  const wanted = plain(words);
  const found = all.filter(({ title }) => plain(title).includes(wanted));
  const [only] = found;
  if (only === undefined) return { text: say.noTaskWith(words) };
  if (found.length > 1) return { text: say.whichTask(words, found) };
  return once('tasks', 'delete_task', { task_id: only.id }, situation, (result) => say.deleted(taskIn(result)));
}

function sendMessage({ text, to, channels }: Extract<Intent, { kind: 'send' }>, situation: Situation): Next {
  const say = replies[situation.language];
  const found = once('hub', 'find_users', { query: to }, situation, () => '');
  if ('tool' in found || found.text !== '') return found;
  const users = usersIn(situation.steps.find(({ name }) => name === 'hub__find_users')?.outcome.result);
  const exact = users.filter(({ name }) => plain(name) === plain(to));
  const candidates = exact.length > 0 ? exact : users;
  const [only] = candidates;
  if (only === undefined) return { text: say.noUser(to) };
  if (candidates.length > 1) {
    return {
      text: say.whichUser(
        to,
        candidates.map(({ name }) => name),
      ),
    };
  }
  const given = { to: only.id, text, ...(channels.length > 0 ? { channels } : {}) };
  return once('hub', 'send_message', given, situation, (result) =>
    say.sent(text, only.name, channels, messageIdIn(result)),
  );
}

const uuidPattern = /\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b/gi;

/** The id of the message that was sent last, as results of tools say, or else what the model itself has said. */
function lastSent(messages: readonly PromptMessage[]): string | undefined {
  const steps = stepsIn(messages).filter(({ name, outcome }) => name === 'hub__send_message' && !outcome.isError);
  const id = messageIdIn(steps.at(-1)?.outcome.result);
  if (id !== undefined) return id;
  for (const message of messages.toReversed()) {
    if (message.role !== 'assistant') continue;
    const found = message.content.match(uuidPattern)?.at(-1);
    if (found !== undefined) return found;
  }
  return undefined;
}

function statusText(say: Replies, result: unknown): string {
  const { status } = recordOf(result);
  const deliveries = listIn(result, 'deliveries').map(recordOf);
  const states = deliveries.length > 0 ? deliveries.map((delivery) => delivery['status']) : [status];
  const lines = deliveries.map(({ channel, status: state }) => `${textOf(channel)}: ${textOf(state).toLowerCase()}`);
  const words = lines.length > 0 ? lines.join(', ') : textOf(status).toLowerCase();
  return states.every((state) => /^(?:delivered|read)$/i.test(textOf(state)))
    ? say.delivered(words)
    : say.notDelivered(words);
}

function taskIn(result: unknown): TaskLine {
  const { task_id: id, title } = recordOf(result);
  return { id: id as TaskLine['id'], title: textOf(title), completed: false };
}

function tasksIn(result: unknown): TaskLine[] {
  return listIn(result, 'tasks')
    .map(recordOf)
    .map(({ id, title, completed }) => ({
      id: id as TaskLine['id'],
      title: textOf(title),
      completed: completed === true,
    }));
}

function usersIn(result: unknown): { id: unknown; name: string }[] {
  return listIn(result, 'users')
    .map(recordOf)
    .map(({ id, user_id: userId, username }) => ({ id: id ?? userId ?? username, name: textOf(username) }));
}

function messageIdIn(result: unknown): string | undefined {
  const { message_id: id } = recordOf(result);
  return typeof id === 'string' ? id : undefined;
}

/** Why a tool has failed, in the words that it used. */
function reasonIn(result: unknown): string {
  if (typeof result === 'string') return result;
  const { message, error } = recordOf(result);
  const said = [message, error].find((each) => typeof each === 'string' && each !== '');
  return typeof said === 'string' ? said : JSON.stringify(result);
}

function listIn(result: unknown, member: string): unknown[] {
  if (Array.isArray(result)) return result;
  const list = recordOf(result)[member];
  return Array.isArray(list) ? list : [];
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value ?? '');
}

function recordOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

/** Without accents and letter case. */
function plain(text: string): string {
  return text.normalize('NFD').replaceAll(/\p{M}/gu, '').toLowerCase();
}
