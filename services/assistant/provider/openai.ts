import { randomUUID } from 'node:crypto';
import type { OpenAI } from 'openai';
import type { ChatCompletionChunk, ChatCompletionMessageParam } from 'openai/resources/chat/completions';
import {
  ProviderError,
  type Prompt,
  type PromptMessage,
  type Provider,
  type ProviderEvent,
  type ToolRequest,
} from './provider.ts';
import { tokensIn, tokensInPrompt } from './tokens.ts';

export interface OpenAiOptions {
  /** Base URL of the API with its version: `http://localhost:11434/v1`. */
  baseUrl: string;
  /** Undefined if the provider needs none. */
  apiKey: string | undefined;
  model: string;
  /** How long the provider may be silent, in milliseconds. */
  timeout: number;
  /** Maximum tokens of an answer; undefined leaves it to the provider. */
  maxOutputTokens: number | undefined;
}

/** The maximum length of text and arguments in an answer, far more than models write; a longer one is an error. */
const maxCharacters = 1024 * 1024;
const maxToolRequests = 64;
/** How long to wait for the usage once the answer is complete. */
const usageTimeoutMs = 2_000;
/** The wait before a retry if the provider sends no Retry-After. */
const defaultRetryAfterMs = 5_000;
const maxRetryAfterMs = 3_600_000;

/** Members of a request that some providers refuse, with their substitutes. */
const substitutes = {
  stream_options: (_body: RequestBody) => ({}),
  max_tokens: ({ max_tokens: limit }: RequestBody) => ({ max_completion_tokens: limit }),
} satisfies Record<string, (body: RequestBody) => Partial<RequestBody>>;
type Doubtful = keyof typeof substitutes;

type RequestBody = OpenAI.ChatCompletionCreateParamsStreaming;

/**
 * Chunks are untrusted: providers that call themselves compatible leave members out, or send null or another type.
 */
type Loose<T> = T extends readonly (infer Item)[]
  ? readonly Loose<Item>[] | null | undefined
  : T extends object
    ? { [K in keyof T]?: Loose<T[K]> } | null | undefined
    : T | null | undefined;
type Chunk = NonNullable<Loose<ChatCompletionChunk>>;
type Delta = NonNullable<NonNullable<NonNullable<Chunk['choices']>[number]>['delta']>;
type ToolPiece = NonNullable<Delta['tool_calls']>[number];

/** A model behind an OpenAI-compatible endpoint: Chat Completions with streaming. */
export async function openOpenAi(options: OpenAiOptions): Promise<Provider> {
  // Loaded on demand, since it takes time and memory.
  const sdk = await import('openai');
  const client = new sdk.OpenAI({
    baseURL: options.baseUrl,
    // The package requires one; servers that need none ignore it.
    apiKey: options.apiKey ?? 'none',
    // Without these the package would read them from environment variables.
    adminAPIKey: null,
    organization: null,
    project: null,
    webhookSecret: null,
    // No retries: the user sees the error at once, and decides.
    maxRetries: 0,
    // The package's own limit must not come before `Silence`, which covers the whole answer.
    timeout: options.timeout * 2,
    // It would log the messages of users and models.
    logLevel: 'off',
  });
  /** The members that this provider is known to refuse. */
  const refused = new Set<Doubtful>();
  const closing = new AbortController();

  function bodyOf(prompt: Prompt): RequestBody {
    const { max_tokens: asked, ...chosen } = prompt.options ?? {};
    const limits = [asked, options.maxOutputTokens].filter((limit) => typeof limit === 'number');
    let body: RequestBody = {
      ...chosen,
      model: options.model,
      messages: prompt.messages.map(wireMessage),
      stream: true,
      stream_options: { include_usage: true },
    };
    if (limits.length > 0) body.max_tokens = Math.min(...limits);
    if (prompt.tools.length === 0) {
      // Providers refuse options about tools in a request without tools.
      delete body.tool_choice;
      delete body.parallel_tool_calls;
    } else {
      body.tools = prompt.tools.map(({ name, description, parameters }) => ({
        type: 'function',
        function: { name, description, parameters },
      }));
    }
    for (const name of refused) body = without(body, name);
    return body;
  }

  /** Sends the request, and repeats it without a member that the provider refuses, which is remembered. */
  async function request(prompt: Prompt, signal: AbortSignal) {
    for (;;) {
      const body = bodyOf(prompt);
      try {
        return await client.chat.completions.create(body, { signal });
      } catch (error) {
        const name = refusedMember(error, body);
        if (name === undefined || refused.has(name)) throw error;
        refused.add(name);
      }
    }
  }

  /** The reason of the caller's signal, or a ProviderError. */
  function failure(error: unknown, silence: AbortSignal, ended: AbortSignal): unknown {
    if (ended.aborted) return ended.reason;
    if (closing.signal.aborted) return unavailable('The service is stopping');
    if (silence.aborted || error instanceof sdk.APIConnectionTimeoutError) {
      const seconds = options.timeout / 1_000;
      return new ProviderError('PROVIDER_TIMEOUT', `The model's provider has said nothing for ${seconds} s`);
    }
    if (error instanceof ProviderError) return error;
    if (error instanceof sdk.APIConnectionError) {
      if (isUnreachable(error)) return unavailable("The model's provider can't be reached", { cause: error });
      return broken("The model's provider has hung up", error);
    }
    if (error instanceof sdk.APIError) return refusal(error);
    // A broken connection is a TypeError of fetch, invalid JSON a SyntaxError.
    return broken("The answer of the model's provider has broken off, or is no completion", error);
  }

  return {
    model: options.model,

    async *complete(prompt, signal) {
      signal.throwIfAborted();
      const silence = new Silence();
      const leaving = new AbortController();
      const ended = AbortSignal.any([signal, silence.signal, leaving.signal, closing.signal]);
      const answer = new AnswerParts();
      try {
        silence.begin(options.timeout);
        const chunks = await request(prompt, ended);
        silence.begin(options.timeout);
        for await (const chunk of chunks) {
          // The reader's time doesn't count.
          silence.end();
          for (const delta of answer.add(chunk as Chunk)) yield { kind: 'text', delta };
          silence.begin(answer.isComplete ? Math.min(options.timeout, usageTimeoutMs) : options.timeout);
        }
        // The package ends the stream without an error if the signal was what ended it.
        if (!answer.isComplete) ended.throwIfAborted();
      } catch (error) {
        // If the answer is complete, only its usage may be missing.
        if (!answer.isComplete || signal.aborted || error instanceof ProviderError) {
          throw failure(error, silence.signal, signal);
        }
      } finally {
        silence.end();
        leaving.abort();
      }
      signal.throwIfAborted();
      yield* answer.end(prompt);
    },

    async close() {
      closing.abort();
    },
  };
}

function wireMessage(message: PromptMessage): ChatCompletionMessageParam {
  switch (message.role) {
    case 'system':
    case 'user':
      return { role: message.role, content: message.content };
    case 'tool':
      return { role: 'tool', tool_call_id: message.toolRequestId, content: message.content };
    case 'assistant': {
      const { content, toolRequests } = message;
      if (toolRequests.length === 0) return { role: 'assistant', content };
      return {
        role: 'assistant',
        content: content === '' ? null : content,
        tool_calls: toolRequests.map(({ id, name, arguments: given }) => ({
          id,
          type: 'function',
          // Servers that parse the arguments answer 400 or 500 to invalid JSON; the tool's message tells the model what was wrong.
          function: { name, arguments: isJsonObject(given) ? given : '{}' },
        })),
      };
    }
  }
}

function without(body: RequestBody, name: Doubtful): RequestBody {
  if (body[name] === undefined) return body;
  const { [name]: _unknown, ...rest } = body;
  return { ...rest, ...substitutes[name](body) } as RequestBody;
}

/** The member of a request that a provider has refused it for. */
function refusedMember(error: unknown, body: RequestBody): Doubtful | undefined {
  const { status, param, message } = error as { status?: unknown; param?: unknown; message?: unknown };
  if (status !== 400 && status !== 422) return undefined;
  return (Object.keys(substitutes) as Doubtful[])
    .filter((name) => body[name] !== undefined)
    .find((name) => param === name || (typeof message === 'string' && message.includes(name)));
}

/** Detects that the provider has been silent for too long. */
class Silence {
  readonly #controller = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Starts the watch: something must arrive within `milliseconds`. */
  begin(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(), milliseconds);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

/** An answer, put together from its chunks. */
class AnswerParts {
  readonly #requests: { index: number | undefined; id: string; name: string; arguments: string }[] = [];
  #text = '';
  #size = 0;
  #finishReason: string | undefined;
  #usage: Chunk['usage'];

  /** Whether the provider has sent a finish reason. */
  get isComplete(): boolean {
    return this.#finishReason !== undefined;
  }

  /**
   * @returns the pieces of text in a chunk
   * @throws ProviderError if it is no part of a completion
   */
  add(chunk: Chunk): string[] {
    if (typeof chunk !== 'object' || chunk === null) throw broken('The answer of the model is no completion');
    // Some providers send the usage so far with each chunk.
    if (chunk.usage) this.#usage = chunk.usage;
    const choice = Array.isArray(chunk.choices)
      ? (chunk.choices as NonNullable<Chunk['choices']>).find((each) => (each?.index ?? 0) === 0)
      : undefined;
    // Others repeat some of the answer in a last chunk after its end.
    if (!choice || this.isComplete) return [];
    const { delta, finish_reason: finishReason } = choice;
    const texts = [delta?.content, delta?.refusal].filter(
      (text) => typeof text === 'string' && text !== '',
    ) as string[];
    for (const text of texts) {
      this.#text += text;
      this.#count(text);
    }
    if (Array.isArray(delta?.tool_calls)) {
      for (const piece of delta.tool_calls as NonNullable<Delta['tool_calls']>) this.#addToolPiece(piece);
    }
    if (typeof finishReason === 'string' && finishReason.length > 0) this.#finishReason = finishReason;
    return texts;
  }

  /**
   * Pieces of a call have its index; the first one has its id and name. But some servers give each call the index 0, or none, and
   * tell them apart by their ids alone; some repeat id and name in each piece, or have another id in each; some have no ids.
   */
  #addToolPiece(piece: ToolPiece): void {
    if (!piece) return;
    const index = typeof piece.index === 'number' ? piece.index : undefined;
    const id = typeof piece.id === 'string' ? piece.id : '';
    const name = typeof piece.function?.name === 'string' ? piece.function.name : '';
    const given = argumentsOf(piece.function?.arguments);
    const last = this.#requests.findLast((each) => index === undefined || each.index === index);
    const isOther = last && (id === '' ? isJsonObject(last.arguments) : last.id !== '' && id !== last.id);
    if (last !== undefined && (name === '' || !isOther)) {
      last.id ||= id;
      last.name ||= name;
      last.arguments += given;
    } else {
      if (this.#requests.length >= maxToolRequests) throw broken('The model wants too many tools called at once');
      this.#requests.push({ index, id, name, arguments: given });
    }
    this.#count(given);
  }

  #count(piece: string): void {
    this.#size += piece.length;
    if (this.#size > maxCharacters) throw broken('The answer of the model is too long');
  }

  /**
   * What follows the text.
   *
   * @throws ProviderError if all that came is no completion
   */
  *end(prompt: Prompt): Generator<ProviderEvent> {
    const said = this.#finishReason;
    if (said === undefined) throw broken("The answer of the model's provider is empty, or has broken off");
    // A tool call that was cut off must not be made.
    const wanted = said === 'length' ? [] : this.#requests;
    const requests = wanted.filter((each) => each.name !== '' || each.arguments !== '').map(wholeRequest);
    const isWithheld = said === 'content_filter' || said === 'tool_calls' || said === 'function_call';
    if (isWithheld && requests.length === 0 && this.#text === '') {
      const why = said === 'content_filter' ? 'was withheld by its content filter' : 'is no completion';
      throw broken(`The answer of the model's provider ${why}`);
    }
    for (const request of requests) yield { kind: 'toolRequest', request };
    const written = [this.#text, ...this.#requests.flatMap(({ name, arguments: given }) => [name, given])];
    yield {
      kind: 'finish',
      // Some send `stop` although they request tools.
      reason: said === 'length' ? 'length' : requests.length > 0 ? 'toolRequests' : 'stop',
      usage: {
        inputTokens: countOf(this.#usage?.prompt_tokens) ?? tokensInPrompt(prompt.messages, prompt.tools),
        outputTokens: countOf(this.#usage?.completion_tokens) ?? tokensIn(written.join('')),
      },
    };
  }
}

function wholeRequest({ id, name, arguments: given }: ToolRequest): ToolRequest {
  if (name === '') throw broken('The model wants a tool called that has no name');
  return { id: id === '' ? `call_${randomUUID()}` : id, name, arguments: given.trim() === '' ? '{}' : given };
}

/** A piece of JSON text; some servers send the object itself. */
function argumentsOf(value: unknown): string {
  if (typeof value === 'string') return value;
  return typeof value === 'object' && value !== null ? JSON.stringify(value) : '';
}

function isJsonObject(text: string): boolean {
  if (!text.trimStart().startsWith('{')) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function countOf(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined;
}

function broken(message: string, cause?: unknown): ProviderError {
  return new ProviderError('PROVIDER_ERROR', message, { cause });
}

function unavailable(message: string, options: { cause?: unknown; retryAfter?: number | undefined } = {}) {
  const retryAfter = options.retryAfter ?? defaultRetryAfterMs;
  return new ProviderError('PROVIDER_UNAVAILABLE', message, { cause: options.cause, retryAfter });
}

/** Converts an error answer of the provider. Its text is not passed on or logged: it may contain the key, or the user's message. */
function refusal({ status, code, type, headers }: InstanceType<typeof OpenAI.APIError>): ProviderError {
  const names = [code, type].filter((name) => typeof name === 'string' && /^[\w.-]{1,60}$/.test(name));
  const said = [...(status === undefined ? [] : [status]), ...names].join(' ');
  if (status === 429) {
    return unavailable(`The model's provider has too much to do (${said})`, { retryAfter: retryAfterOf(headers) });
  }
  return broken(`The model's provider has answered with an error${said === '' ? '' : ` (${said})`}`);
}

/** Milliseconds that a Retry-After header asks for, in seconds or as a date (RFC 9110, 10.2.3); undefined without one. */
function retryAfterOf(headers: Headers | undefined): number | undefined {
  const text = headers?.get('retry-after')?.trim();
  if (!text) return undefined;
  const milliseconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1_000 : Date.parse(text) - Date.now();
  return Number.isNaN(milliseconds) ? undefined : Math.min(maxRetryAfterMs, Math.max(0, milliseconds));
}

const unreachableCodes = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
]);

/** Whether no connection came about, as its causes say: several where several addresses were tried. */
function isUnreachable(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return false;
  const { code, cause, errors = [] } = error as { code?: unknown; cause?: unknown; errors?: unknown[] };
  return unreachableCodes.has(String(code)) || isUnreachable(cause) || errors.some(isUnreachable);
}
