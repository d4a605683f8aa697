import { performance } from 'node:perf_hooks';
import { endedCall, type FinishReason, type Step, type StoredCall } from '../conversations/conversation.ts';
import {
  ProviderError,
  type PromptMessage,
  type Provider,
  type ToolDefinition,
  type ToolRequest,
} from '../provider/provider.ts';
import { toolContent } from '../provider/tool-content.ts';
import type { Tool, ToolOutcome, ToolSet } from '../toolbox/toolbox.ts';
import { unlessAborted } from '#lib/deadline.ts';
import { inSpan, type SpanOptions } from '#lib/tracing.ts';
import { eachUnlessAborted } from './aborting.ts';
import { argumentsOf, maxJsonDepth, isShallow, storable, storableText } from './tool-arguments.ts';
import { definitionsOf, nameTools } from './tool-names.ts';
import { after, type TurnEvent, type TurnState } from './turn.ts';

/** The events of the agent. */
export type AgentEvent =
  { kind: 'text'; delta: string } | { kind: 'toolCall'; call: StoredCall } | { kind: 'toolResult'; call: StoredCall };

/** The progress of a turn. */
export interface Progress {
  state: TurnState;
  steps: readonly Step[];
  inputTokens: number;
  outputTokens: number;
}

/** How the agent's work ends. */
export type AgentEnd = Progress &
  (
    | { state: 'completed'; finishReason: Exclude<FinishReason, 'stopped'>; clientRequests?: readonly ToolRequest[] }
    | { state: 'waiting'; waitingFor: StoredCall }
    | { state: 'stopped' }
    | { state: 'failed'; error: ProviderError }
  );

/** The reason of an abort that ends a turn regularly: the user has stopped it, or the time is up. Any other reason is thrown. */
export class Interruption extends Error {
  override name = 'Interruption';
  readonly event: 'stop' | 'timeUp';

  constructor(event: Interruption['event']) {
    super(event === 'stop' ? 'The user has stopped the answer' : 'The answer has taken as long as it may');
    this.event = event;
  }
}

export interface AgentOptions {
  provider: Provider;
  toolSet: ToolSet;
  /** The system message, the earlier messages, and the message to answer. */
  messages: readonly PromptMessage[];
  /** The progress of a turn that goes on; undefined for a new one. */
  progress?: Progress;
  /** The maximum number of model calls, including those in `progress`. */
  maxSteps: number;
  /** Whether the user is asked before tools that need it. */
  approveTools: boolean;
  /** The id of a tool call: always the same for the same place in a turn. */
  callId: (step: number, index: number) => string;
  /** Aborted with an `Interruption`, or with anything else that is then thrown. */
  signal: AbortSignal;
  /** Called with each event at once. */
  emit: (event: AgentEvent) => void;
  /** Stores the progress before a tool is called and after it has answered; an error ends the turn. */
  save: (progress: Progress) => Promise<void>;
  /** Called for each call of the model and of a tool, for traces. */
  observe?: (observation: Observation) => void;
  /** Tools that the client of the completions API calls itself: a step that requests one of them is the last. */
  clientTools?: readonly ToolDefinition[];
  /** Members of the request to the model. */
  modelOptions?: Readonly<Record<string, unknown>>;
}

export type Observation = { startedAt: number; durationMs: number; error?: unknown } & (
  | {
      kind: 'model';
      model: string;
      inputTokens: number;
      outputTokens: number;
      finishReason: string | undefined;
      /** Milliseconds until the first text or tool request. */
      firstAfterMs: number | undefined;
    }
  | { kind: 'tool'; server: string; name: string; callId: string; isError: boolean }
);

/** The maximum number of tool calls in a step. */
const maxCallsPerStep = 32;
/** The maximum length of the model's text in a turn. */
const maxTextLength = 1_000_000;

/**
 * Answers a message: calls the model, the tools that it requests, and the model again, until it requests none.
 *
 * @throws what `save` throws, and the reason of `signal` unless that is an `Interruption`
 */
export async function runAgent(options: AgentOptions): Promise<AgentEnd> {
  return new Agent(options).run();
}

class Agent {
  readonly #options: AgentOptions;
  readonly #tools: ReturnType<typeof nameTools>;
  readonly #definitions: readonly ToolDefinition[];
  readonly #clientTools: ReadonlySet<string>;
  readonly #steps: Step[];
  #state: TurnState;
  #inputTokens: number;
  #outputTokens: number;
  #textLength = 0;
  #finishReason: Exclude<FinishReason, 'stopped'> = 'stop';
  #error: ProviderError | undefined;
  #waitingFor: StoredCall | undefined;
  #clientRequests: readonly ToolRequest[] | undefined;

  constructor(options: AgentOptions) {
    this.#options = options;
    const { toolSet, clientTools = [], progress } = options;
    this.#tools = nameTools(toolSet.tools);
    this.#clientTools = new Set(clientTools.map(({ name }) => name));
    this.#definitions = [
      ...definitionsOf(this.#tools).filter(({ name }) => !this.#clientTools.has(name)),
      ...clientTools,
    ];
    this.#state = progress?.state ?? 'calling';
    this.#steps = (progress?.steps ?? []).map((step) => ({ ...step, calls: [...step.calls] }));
    this.#inputTokens = progress?.inputTokens ?? 0;
    this.#outputTokens = progress?.outputTokens ?? 0;
  }

  async run(): Promise<AgentEnd> {
    while (this.#state === 'calling' || this.#state === 'acting') {
      try {
        this.#options.signal.throwIfAborted();
        if (this.#state === 'calling') await inSpan('chat', this.#spanOfModel(), () => this.#callModel());
        else await this.#callTools();
      } catch (error) {
        this.#interrupt(error);
      }
    }
    return this.#end();
  }

  #move(event: TurnEvent): void {
    this.#state = after(this.#state, event);
  }

  /** After an abort any error may be thrown: the reason of the signal counts. */
  #interrupt(error: unknown): void {
    const { signal } = this.#options;
    if (signal.aborted) {
      const reason: unknown = signal.reason;
      if (!(reason instanceof Interruption)) throw reason;
      if (reason.event === 'timeUp') this.#finishReason = 'max_steps';
      this.#move(reason.event);
    } else if (error instanceof ProviderError) {
      this.#error = error;
      this.#move('providerFailed');
    } else {
      throw error;
    }
  }

  #progress(): Progress {
    return {
      state: this.#state,
      steps: this.#steps,
      inputTokens: this.#inputTokens,
      outputTokens: this.#outputTokens,
    };
  }

  #end(): AgentEnd {
    const progress = this.#progress();
    switch (this.#state) {
      case 'completed':
        return {
          ...progress,
          state: 'completed',
          finishReason: this.#finishReason,
          ...(this.#clientRequests && { clientRequests: this.#clientRequests }),
        };
      case 'waiting':
        return { ...progress, state: 'waiting', waitingFor: this.#waitingFor! };
      case 'failed':
        return { ...progress, state: 'failed', error: this.#error! };
      default:
        return { ...progress, state: 'stopped' };
    }
  }

  /** By OpenTelemetry's semantic conventions for generative AI. */
  #spanOfModel(): SpanOptions {
    const { model } = this.#options.provider;
    return { kind: 'client', attributes: { 'gen_ai.operation.name': 'chat', 'gen_ai.request.model': model } };
  }

  async #callModel(): Promise<void> {
    const { provider, messages, modelOptions, signal, emit } = this.#options;
    const prompt = {
      messages: [...messages, ...this.#steps.flatMap((step) => messagesOfStep(step))],
      tools: this.#definitions,
      ...(modelOptions && { options: modelOptions }),
    };
    const step = { text: '', calls: [] as StoredCall[] };
    const requests: ToolRequest[] = [];
    this.#steps.push(step);
    const watch = observed(this.#options, { kind: 'model', model: provider.model, inputTokens: 0, outputTokens: 0 });
    const whole = wholeCharacters();
    let finish: 'stop' | 'length' | 'toolRequests' | undefined;
    try {
      for await (const event of eachUnlessAborted(signal, provider.complete(prompt, signal))) {
        if (event.kind !== 'finish') watch.first();
        if (event.kind === 'text') {
          const delta = whole(event.delta);
          step.text += delta;
          this.#textLength += delta.length;
          if (delta !== '') emit({ kind: 'text', delta });
          if (this.#textLength > maxTextLength) {
            finish = 'length';
            break;
          }
        } else if (event.kind === 'toolRequest') {
          const { id, name, arguments: written } = event.request;
          requests.push({ id: storableText(id), name: storableText(name), arguments: storableText(written) });
        } else {
          finish = event.reason;
          this.#inputTokens += event.usage.inputTokens;
          this.#outputTokens += event.usage.outputTokens;
          watch.note({ ...event.usage, finishReason: event.reason });
        }
      }
      // The abort may have ended the stream as if it were complete.
      signal.throwIfAborted();
      if (finish === undefined) throw new ProviderError('PROVIDER_ERROR', 'The answer of the model was cut off');
    } catch (error) {
      watch.end(error);
      if (step.text === '') this.#steps.pop();
      throw error;
    }
    watch.end();

    if (finish === 'length' || requests.length === 0) {
      this.#finishReason = finish === 'length' ? 'length' : 'stop';
      this.#move('answered');
      return;
    }
    const foreign = requests.filter(({ name }) => this.#clientTools.has(name));
    if (foreign.length > 0) this.#clientRequests = foreign;
    const place = this.#steps.length - 1;
    const own = requests.filter(({ name }) => !this.#clientTools.has(name));
    step.calls = own.map((request, index) => this.#callOf(request, place, index));
    this.#move('asked');
  }

  #callOf(request: ToolRequest, step: number, index: number): StoredCall {
    const { approveTools, callId } = this.#options;
    const tool = this.#tools.get(request.name);
    const call: StoredCall = {
      id: callId(step, index),
      requestId: request.id,
      toolName: request.name,
      rawArguments: request.arguments,
      ...placeOf(request.name, tool),
      arguments: {},
    };
    const refuse = (result: string): StoredCall => ({ ...call, outcome: { result, isError: true, durationMs: 0 } });
    if (index >= maxCallsPerStep) return refuse(`Not called: one step may call ${maxCallsPerStep} tools at most`);
    const given = argumentsOf(request.arguments);
    if ('problem' in given) return refuse(`Not called: ${given.problem}`);
    call.arguments = given.arguments;
    if (tool === undefined) return refuse(`Not called: there is no tool ${request.name}`);
    if (approveTools && tool.needsApproval) call.approval = { id: `approval_${call.id}` };
    return call;
  }

  /** Calls those tools of the last step that have no outcome yet, each after the one before. */
  async #callTools(): Promise<void> {
    const { emit, save, maxSteps } = this.#options;
    const calls = this.#steps.at(-1)!.calls as StoredCall[];
    for (const [index, call] of calls.entries()) {
      if (call.outcome !== undefined && call.isTold === true) continue;
      if (call.approval !== undefined && call.approval.isApproved === undefined && call.outcome === undefined) {
        this.#waitingFor = call;
        this.#move('held');
        return;
      }
      const tool = this.#tools.get(call.toolName);
      const finished = await this.#callTool(call, tool, (begun) => (calls[index] = begun));
      calls[index] = { ...finished, isTold: true };
      emit({ kind: 'toolResult', call: calls[index] });
      if (index < calls.length - 1) {
        this.#move('acted');
        await save(this.#progress());
        this.#options.signal.throwIfAborted();
      }
    }
    if (this.#clientRequests !== undefined || this.#steps.length >= maxSteps) {
      this.#finishReason = this.#clientRequests === undefined ? 'max_steps' : 'stop';
      this.#move('stepsUsed');
    } else {
      this.#move('told');
      await save(this.#progress());
    }
  }

  async #callTool(call: StoredCall, tool: Tool | undefined, keep: (begun: StoredCall) => void): Promise<StoredCall> {
    const { toolSet, signal, emit, save } = this.#options;
    const refused = (result: string) => ({ ...call, outcome: { result, isError: true, durationMs: 0 } });
    if (call.outcome !== undefined || call.approval?.isApproved === false || tool === undefined) {
      emit({ kind: 'toolCall', call });
      if (call.outcome !== undefined) return call;
      return refused(
        tool === undefined
          ? `Not called: there is no tool ${call.toolName} any more`
          : 'Not called: the user has refused it',
      );
    }
    const begun = { ...call, isBegun: true };
    keep(begun);
    // From here on the tool may have had its effect.
    await save(this.#progress());
    emit({ kind: 'toolCall', call: begun });
    const { server, name } = call;
    const watch = observed(this.#options, { kind: 'tool', server, name, callId: call.id, isError: false });
    const began = performance.now();
    let outcome: ToolOutcome;
    try {
      const attributes = { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': call.toolName };
      const asked = inSpan('execute_tool', { attributes }, () =>
        toolSet.call({ server, name, arguments: call.arguments, callId: call.id }, signal),
      );
      outcome = await unlessAborted(signal, asked);
    } catch (error) {
      watch.end(error);
      throw error;
    }
    watch.note({ isError: outcome.isError });
    watch.end();
    const result = isShallow(outcome.result, maxJsonDepth) ? outcome.result : JSON.stringify(outcome.result);
    const durationMs = Math.round(performance.now() - began);
    return { ...begun, outcome: { result: storable(result), isError: outcome.isError, durationMs } };
  }
}

/** Joins characters that were split between pieces of text, and makes each piece storable. */
function wholeCharacters(): (delta: string) => string {
  let carried = '';
  return (delta) => {
    const text = carried + delta;
    carried = /[\ud800-\udbff]$/.exec(text)?.[0] ?? '';
    return storableText(text.slice(0, text.length - carried.length));
  };
}

function placeOf(name: string, tool: Tool | undefined): { server: string; name: string } {
  if (tool !== undefined) return { server: tool.server, name: tool.name };
  const [server, ...rest] = name.split('__');
  return rest.length === 0 ? { server: '', name } : { server: server!, name: rest.join('__') };
}

/** What the model reads of a step: what it said and asked for, and what came of it. */
export function messagesOfStep({ text, calls }: Step): PromptMessage[] {
  const toolRequests = calls.map(({ requestId, toolName, rawArguments }) => ({
    id: requestId,
    name: toolName,
    arguments: rawArguments,
  }));
  return [
    { role: 'assistant', content: text, toolRequests },
    ...calls.map((call) => ({
      role: 'tool' as const,
      toolRequestId: call.requestId,
      content: toolContent(endedCall(call).outcome),
    })),
  ];
}

type Started =
  | { kind: 'model'; model: string; inputTokens: number; outputTokens: number }
  | { kind: 'tool'; server: string; name: string; callId: string; isError: boolean };

function observed({ observe }: AgentOptions, started: Started) {
  const startedAt = Date.now();
  const began = performance.now();
  let firstAfterMs: number | undefined;
  let noted: Record<string, unknown> = started.kind === 'model' ? { finishReason: undefined } : {};
  return {
    first: () => void (firstAfterMs ??= performance.now() - began),
    note: (more: Record<string, unknown>) => void (noted = { ...noted, ...more }),
    end(error?: unknown) {
      observe?.({
        startedAt,
        durationMs: performance.now() - began,
        ...started,
        ...(started.kind === 'model' ? { firstAfterMs } : {}),
        ...noted,
        ...(error === undefined ? {} : { error }),
      } as Observation);
    },
  };
}
