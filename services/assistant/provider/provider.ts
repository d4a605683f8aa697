/** A tool as a model is told of it. */
export interface ToolDefinition {
  /** Unique among all that the model is told: `server__tool`. */
  name: string;
  description: string;
  /** A JSON schema of type `object`. */
  parameters: Record<string, unknown>;
}

/** A model's wish to have a tool called. */
export interface ToolRequest {
  id: string;
  /** As in its definition. */
  name: string;
  /** What the model wrote: JSON, if it keeps to the rules. */
  arguments: string;
}

/** A message of what a model reads. */
export type PromptMessage =
  | { role: 'system' | 'user'; content: string }
  | { role: 'assistant'; content: string; toolRequests: readonly ToolRequest[] }
  /** Its content is what `toolContent` makes of an outcome. */
  | { role: 'tool'; toolRequestId: string; content: string };

/** What one call of a model is about. */
export interface Prompt {
  messages: readonly PromptMessage[];
  tools: readonly ToolDefinition[];
  /** Members of the request that a client of the completions API may choose by itself, such as `temperature`; others are refused. */
  options?: Readonly<Record<string, unknown>>;
}

export interface TokenUsage {
  inputTokens: number;
  outputTokens: number;
}

/** What comes of a call, piece by piece. The last one is `finish`; without it the call has failed. */
export type ProviderEvent =
  | { kind: 'text'; delta: string }
  /** A whole one, once all of its arguments have come. */
  | { kind: 'toolRequest'; request: ToolRequest }
  | { kind: 'finish'; reason: 'stop' | 'length' | 'toolRequests'; usage: TokenUsage };

/** A model that completes prompts. */
export interface Provider {
  /** The name under which its answers are kept. */
  readonly model: string;
  /**
   * Calls the model once. Ends the call at the provider when `signal` is aborted, or when nobody reads any more.
   *
   * @throws ProviderError
   */
  complete(prompt: Prompt, signal: AbortSignal): AsyncIterable<ProviderEvent>;
  close(): Promise<void>;
}

/** Why a provider has given no answer. */
export class ProviderError extends Error {
  override name = 'ProviderError';
  readonly reason: 'PROVIDER_ERROR' | 'PROVIDER_UNAVAILABLE' | 'PROVIDER_TIMEOUT';
  /** Milliseconds after which it may be asked again, if it said so. */
  readonly retryAfter: number | undefined;

  constructor(
    reason: ProviderError['reason'],
    message: string,
    { cause, retryAfter }: { cause?: unknown; retryAfter?: number } = {},
  ) {
    super(message, { cause });
    this.reason = reason;
    this.retryAfter = retryAfter;
  }
}
