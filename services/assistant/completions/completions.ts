import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { hubTime } from '#lib/clock.ts';
import { HubError } from '#lib/errors.ts';
import { providerFailure } from '../provider/failure.ts';
import type { Provider, ToolRequest } from '../provider/provider.ts';
import type { ToolCaller, Toolbox, ToolSet } from '../toolbox/toolbox.ts';
import { Interruption, runAgent, type AgentEnd, type Observation } from '../turns/agent.ts';
import type { Billing } from '../turns/billing.ts';
import { systemMessage } from '../turns/prompt.ts';
import type { CompletionRequest } from './completion-request.ts';
import {
  chunkJson,
  completionJson,
  errorJson,
  toolCallsDelta,
  usageChunkJson,
  type CompletionHead,
  type WireFinishReason,
} from './completion-wire.ts';
import { openMailbox } from './mailbox.ts';

export interface CompletionsOptions {
  provider: Provider;
  toolbox: Toolbox;
  billing: Billing;
  /** The maximum number of model calls for one completion. */
  maxSteps: number;
  /** The time limit of a completion, in milliseconds. */
  limit: number;
  /** Called for each call of the model and of a tool, for traces. */
  observe: (observation: Observation) => void;
}

export interface CompletionCaller extends ToolCaller {
  username: string;
}

/** The agent for clients that keep the conversation themselves. */
export interface Completions {
  models(): readonly string[];
  /**
   * @param onEffect called before a tool with side effects: from then on a retry may repeat them
   * @throws HubError
   */
  complete(
    request: CompletionRequest,
    caller: CompletionCaller,
    signal: AbortSignal,
    onEffect?: () => void,
  ): Promise<object>;
  /**
   * The same as server-sent events. Before the first event it fails as `complete` does; after that an error is an event. The first event is
   * sent before a tool with side effects is called, since clients retry by themselves until they have got one.
   *
   * @throws HubError
   */
  stream(request: CompletionRequest, caller: CompletionCaller, signal: AbortSignal): AsyncIterable<string>;
}

/** After this a stream begins even if the model has sent nothing; until then a failure can be an HTTP status. */
const firstEventTimeoutMs = 10_000;
/** The interval of SSE comments that keep an idle connection open. */
const commentPauseMs = 15_000;

export function openCompletions(options: CompletionsOptions): Completions {
  const { provider, toolbox, billing, maxSteps, limit, observe } = options;

  async function run(
    request: CompletionRequest,
    caller: CompletionCaller,
    signal: AbortSignal,
    tell: (delta: string) => void,
    onEffect: () => void,
  ): Promise<Ended> {
    if (request.model !== provider.model) throw modelNotFound(request.model);
    const bill = await billing.reserve({ userId: caller.userId, requestId: caller.requestId });
    const began = performance.now();
    const id = randomUUID();
    const timeUp = new AbortController();
    const timer = setTimeout(() => timeUp.abort(new Interruption('timeUp')), limit);
    const ending = AbortSignal.any([signal, timeUp.signal]);
    let toolSet: ToolSet | undefined;
    let end: AgentEnd | undefined;
    try {
      toolSet = await toolbox.open(caller, ending);
      const watched = watching(toolSet, onEffect);
      end = await runAgent({
        provider: choosingFirst(provider, request.toolChoice),
        toolSet: watched,
        messages: [systemMessage(caller.username), ...request.messages],
        maxSteps,
        approveTools: false,
        callId: (step, index) => `completion_${id}_${step}_${index}`,
        signal: ending,
        emit: (event) => event.kind === 'text' && tell(event.delta),
        // Nothing is stored: clients repeat their request.
        save: async () => {},
        observe,
        clientTools: request.tools,
        modelOptions: request.options,
      });
    } finally {
      clearTimeout(timer);
      await Promise.all([
        toolSet?.close(),
        bill.settle({
          tokens: (end?.inputTokens ?? 0) + (end?.outputTokens ?? 0),
          status: statusOf(end),
          duration: Math.round(performance.now() - began),
        }),
      ]);
    }
    if (end.state === 'failed') throw providerFailure(end.error);
    if (end.state !== 'completed') throw new Error(`A completion can't be ${end.state}`);
    const toolRequests = end.clientRequests ?? [];
    const note = toolRequests.length > 0 ? noteOf(end, toolSet) : '';
    if (note !== '') tell(note);
    return {
      text: end.steps.map(({ text }) => text).join('') + note,
      toolRequests,
      finishReason: toolRequests.length > 0 ? 'tool_calls' : end.finishReason === 'stop' ? 'stop' : 'length',
      usage: { inputTokens: end.inputTokens, outputTokens: end.outputTokens },
    };
  }

  function newHead(): CompletionHead {
    return { id: `chatcmpl-${randomUUID()}`, created: Math.floor(hubTime() / 1_000), model: provider.model };
  }

  return {
    models: () => [provider.model],

    async complete(request, caller, signal, onEffect = () => {}) {
      return completionJson(newHead(), await run(request, caller, signal, () => {}, onEffect));
    },

    async *stream(request, caller, signal) {
      const head = newHead();
      const leaving = new AbortController();
      const { includeUsage } = request;
      const event = (value: object) => `data: ${JSON.stringify(value)}\n\n`;
      const deltas = openMailbox<string>();
      const ending = AbortSignal.any([signal, leaving.signal]);
      const running = run(
        request,
        caller,
        ending,
        (delta) => deltas.put(delta),
        () => deltas.put(''),
      );
      running.then(
        () => deltas.end(),
        () => deltas.end(),
      );
      try {
        let hasBegun = false;
        const begin = () => event(chunkJson(head, { role: 'assistant', content: '', refusal: null }, { includeUsage }));
        for (;;) {
          const delta = await deltas.take(hasBegun ? commentPauseMs : firstEventTimeoutMs);
          if (delta === 'ended') break;
          if (!hasBegun) yield begin();
          hasBegun = true;
          if (delta !== 'late' && delta.item === '') continue;
          yield delta === 'late'
            ? ': still at it\n\n'
            : event(chunkJson(head, { content: delta.item }, { includeUsage }));
        }
        try {
          const { toolRequests, finishReason, usage } = await running;
          if (!hasBegun) yield begin();
          if (toolRequests.length > 0) yield event(chunkJson(head, toolCallsDelta(toolRequests), { includeUsage }));
          yield event(chunkJson(head, {}, { finishReason, includeUsage }));
          if (includeUsage) yield event(usageChunkJson(head, usage));
          yield 'data: [DONE]\n\n';
        } catch (error) {
          if (!hasBegun || !(error instanceof HubError)) throw error;
          yield event(errorJson(error));
        }
      } finally {
        leaving.abort(new Error('Nobody reads the completion any more'));
        await running.catch(() => {});
      }
    },
  };
}

function statusOf(end: AgentEnd | undefined): 'success' | 'error' | 'timeout' {
  if (end?.state === 'failed') return end.error.reason === 'PROVIDER_TIMEOUT' ? 'timeout' : 'error';
  return end === undefined ? 'error' : 'success';
}

interface Ended {
  text: string;
  toolRequests: readonly ToolRequest[];
  finishReason: WireFinishReason;
  usage: { inputTokens: number; outputTokens: number };
}

/** The client's `tool_choice` is only for the first step: with each step the model would call tools without end. */
function choosingFirst(provider: Provider, toolChoice: unknown): Provider {
  if (toolChoice === undefined) return provider;
  let isFirst = true;
  return {
    model: provider.model,
    complete(prompt, signal) {
      const choice = isFirst || toolChoice === 'none' ? { tool_choice: toolChoice } : {};
      isFirst = false;
      return provider.complete({ ...prompt, options: { ...prompt.options, ...choice } }, signal);
    },
    close: async () => {},
  };
}

/**
 * Names the tools with side effects that were called before the client is asked to call one of its own. The client sends this back with the
 * result, so that the model doesn't call them again.
 */
function noteOf(end: AgentEnd, toolSet: ToolSet): string {
  const done = end.steps
    .flatMap(({ calls }) => calls)
    .filter(({ server, name, outcome }) => outcome?.isError === false && hasEffect(toolSet, server, name))
    .map(({ server, name, arguments: given }) => `${server}__${name} ${JSON.stringify(given)}`);
  if (done.length === 0) return '';
  const isBehindText = end.steps.some(({ text }) => text !== '');
  return `${isBehindText ? '\n' : ''}[Done already: ${done.join('; ')}]`;
}

function hasEffect({ tools }: ToolSet, server: string, name: string): boolean {
  return tools.some((tool) => tool.server === server && tool.name === name && !tool.isReadOnly);
}

/** Wraps tools so that `onEffect` is called before each one with side effects. */
function watching(toolSet: ToolSet, onEffect: () => void): ToolSet {
  return {
    tools: toolSet.tools,
    missing: toolSet.missing,
    call(call, signal) {
      if (hasEffect(toolSet, call.server, call.name)) onEffect();
      return toolSet.call(call, signal);
    },
    close: () => toolSet.close(),
  };
}

export function modelNotFound(model: string): HubError {
  const text = `There is no model ${JSON.stringify(model.slice(0, 100))} here: GET /v1/models lists those that there are`;
  return new HubError('NOT_FOUND', 'MODEL_NOT_FOUND', text);
}
