import { McpServer, type CallToolResult, type ToolAnnotations } from '@modelcontextprotocol/server';
import { z } from 'zod';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { ToolCaller } from '../toolbox/toolbox.ts';

/** What a tool of ours is called with, beside its arguments. */
export interface ToolCall {
  /** The caller, by the token, never by an argument. */
  caller: ToolCaller;
  /** For calls by the assistant: the call's id, the same when the call is repeated. */
  callId: string | undefined;
  /** Aborted when the answer is of no use any more. */
  signal: AbortSignal;
}

/** A tool of a server of ours. Made by `tool`. */
export interface OurTool {
  name: string;
  title: string;
  description: string;
  annotations: Required<Omit<ToolAnnotations, 'title'>>;
  input: z.ZodObject;
  /** The input as a JSON schema. */
  inputSchema: Record<string, unknown>;
  output: z.ZodObject;
  run(input: unknown, call: ToolCall): Promise<Record<string, unknown>>;
}

/** One of our MCP servers, with its tools. */
export interface OurServer {
  name: string;
  title: string;
  /** How to use it, for models. */
  instructions: string;
  tools: readonly OurTool[];
}

/** The member of a call's `_meta` with the assistant's call id. Only accepted from the assistant. */
export const callIdKey = 'chat4all.dev/call-id';

const version = '1.0.0';

/** Describes a tool. Unknown arguments are refused, so that none can name another user to act for. */
export function tool<Input extends z.ZodRawShape, Output extends z.ZodRawShape>({
  input,
  output,
  run,
  ...about
}: Pick<OurTool, 'name' | 'title' | 'description' | 'annotations'> & {
  input: Input;
  output: Output;
  run: (input: z.output<z.ZodObject<Input>>, call: ToolCall) => Promise<z.input<z.ZodObject<Output>>>;
}): OurTool {
  const schema = z.strictObject(input);
  return {
    ...about,
    input: schema,
    inputSchema: z.toJSONSchema(schema),
    output: z.strictObject(output),
    run: run as unknown as OurTool['run'],
  };
}

/** Serves a server of ours to one caller, once: over a connection, or for a request. */
export function serveTools(
  server: OurServer,
  {
    caller,
    log,
    fromAssistant = false,
  }: {
    caller: ToolCaller;
    log: Logger;
    /** Whether the assistant itself calls, not an agent of somebody. */
    fromAssistant?: boolean;
  },
): McpServer {
  const { name, title, instructions, tools } = server;
  const served = new McpServer(
    { name: `chat4all-${name}`, title, version },
    { instructions, capabilities: { tools: { listChanged: false } } },
  );
  for (const each of tools) {
    const { name: toolName, title: toolTitle, description, annotations, input, output, run } = each;
    const about = { title: toolTitle, description, annotations, inputSchema: input, outputSchema: output };
    served.registerTool(toolName, about, async (given, { mcpReq }): Promise<CallToolResult> => {
      const said = fromAssistant ? mcpReq._meta?.[callIdKey] : undefined;
      const callId = typeof said === 'string' ? said : undefined;
      try {
        const result = await run(given, { caller, callId, signal: mcpReq.signal });
        return { content: [{ type: 'text', text: JSON.stringify(result) }], structuredContent: result };
      } catch (error) {
        return failed(error, { log, tool: `${name}__${toolName}` });
      }
    });
  }
  return served;
}

function failed(error: unknown, { log, tool: name }: { log: Logger; tool: string }): CallToolResult {
  const isForCallers = error instanceof HubError;
  if (!isForCallers) log.error({ err: error, tool: name }, 'A tool has failed with an unexpected error');
  const text = isForCallers ? sentenceOf(error) : 'Something went wrong on our side';
  return { content: [{ type: 'text', text }], isError: true };
}

function sentenceOf({ message, fields }: HubError): string {
  if (fields.length === 0) return message;
  return `${message} (${fields.map(({ field, description }) => `${field}: ${description}`).join('; ')})`;
}
