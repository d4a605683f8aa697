/** A tool, as described to a model. */
export interface ToolDefinition {
  /** Unique among the tools of a prompt: `server__tool`. */
  name: string;
  description: string;
  /** A JSON schema of type `object`. */
  parameters: Record<string, unknown>;
}

/** A model's request to call a tool. */
export interface ToolRequest {
  id: string;
  /** As in its definition. */
  name: string;
  /** The model's text, which should be JSON. */
  arguments: string;
}

/** A message of what a model reads. */
export type PromptMessage =
  | { role: 'system' | 'user'; content: string }
  | { role: 'assistant'; content: string; toolRequests: readonly ToolRequest[] }
  /** Its content is what `toolContent` makes of an outcome. */
  | { role: 'tool'; toolRequestId: string; content: string };

/** The input of one call of a model. */
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

/** The events of a call. The last one is `finish`; without it the call has failed. */
export type ProviderEvent =
  | { kind: 'text'; delta: string }
  /** A whole one, once all of its arguments have come. */
  | { kind: 'toolRequest'; request: ToolRequest }
  | { kind: 'finish'; reason: 'stop' | 'length' | 'toolRequests'; usage: TokenUsage };

/** A model that completes prompts. */
export interface Provider {
  /** The name that is stored with its answers. */
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
  /** The provider's Retry-After, in milliseconds. */
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
