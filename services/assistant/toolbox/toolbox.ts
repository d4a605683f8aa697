import type { Credentials } from '#lib/rpc/call.ts';

/** For whom tools are called. */
export interface ToolCaller {
  /** UUID. */
  userId: string;
  /** The user's number. */
  numId: bigint;
  /** The user's own token or API key, with which tools act in the hub. */
  credentials: Credentials;
  requestId: string;
}

/** A tool of an MCP server. */
export interface Tool {
  server: string;
  /** Its name at the server. */
  name: string;
  description: string;
  /** A JSON schema of type `object`. */
  inputSchema: Record<string, unknown>;
  /** Whether it is destructive: then the user's approval is required, if the request says so. */
  needsApproval: boolean;
  /** Whether it has no side effects, so that it may be repeated. */
  isReadOnly: boolean;
}

export interface ToolOutcome {
  /** Any JSON. */
  result: unknown;
  isError: boolean;
}

/** The tools of one turn. */
export interface ToolSet {
  tools: readonly Tool[];
  /** Servers that can't be reached now, and why: their tools are missing. */
  missing: readonly { server: string; why: string }[];
  /**
   * Calls a tool. Failures, refusals and unknown tools are outcomes with `isError`, for the model and the user.
   *
   * @param callId the same when a call is repeated, so that a side effect happens once
   */
  call(
    call: { server: string; name: string; arguments: unknown; callId: string },
    signal: AbortSignal,
  ): Promise<ToolOutcome>;
  close(): Promise<void>;
}

/** The MCP servers: ours, and those of ASSISTANT_MCP_FILE. */
export interface Toolbox {
  open(caller: ToolCaller, signal: AbortSignal): Promise<ToolSet>;
  /** The names of the servers of ASSISTANT_MCP_FILE. */
  others: readonly string[];
  /** Those of them that can't be used now, and why. */
  problems(): readonly { server: string; why: string }[];
  close(): Promise<void>;
}
