import type { Credentials } from '#lib/rpc/call.ts';

/** For whom tools are called. */
export interface ToolCaller {
  /** UUID. */
  userId: string;
  /** The user's number. */
  numId: bigint;
  /** The user's own token or API key: what a tool does in the hub, it does with it. */
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
  /** Whether the user is asked before it is called, where a request says so: what destroys something. */
  needsApproval: boolean;
  /** Whether it changes nothing, so that it may be called as often as one likes. */
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
   * Calls a tool. What fails, is refused or is unknown is an outcome with `isError`, too: the model and the user are told.
   *
   * @param callId the same each time that the same call of the model is made: a tool with an effect has it once
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
