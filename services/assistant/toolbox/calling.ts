import { ProtocolError, SdkError, SdkErrorCode, type CallToolResult, type Client } from '@modelcontextprotocol/client';
import type { Logger } from '#lib/log.ts';
import type { ToolOutcome } from './toolbox.ts';

/** Characters of the JSON of a result; what is longer is cut. */
const maxResultLength = 100_000;

/** The server is unavailable, or the connection to it has broken. */
export class ServerLost extends Error {
  override name = 'ServerLost';
}

/**
 * Calls a tool over a connection. What the tool or its server says is an outcome.
 *
 * @throws ServerLost if the connection is of no use any more
 */
export async function callTool(
  client: Client,
  {
    name,
    arguments: given,
    meta,
    timeout,
  }: { name: string; arguments: unknown; meta?: Record<string, unknown>; timeout: number },
  { signal, log }: { signal: AbortSignal; log: Logger },
): Promise<ToolOutcome> {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    return failure('The arguments must be a JSON object');
  }
  const params = { name, arguments: given as Record<string, unknown>, ...(meta === undefined ? {} : { _meta: meta }) };
  try {
    return outcomeOf(await client.callTool(params, { signal, timeout, maxTotalTimeout: timeout }));
  } catch (error) {
    if (signal.aborted) return failure('The call was stopped');
    if (error instanceof ProtocolError) return failure(error.message);
    if (error instanceof SdkError && error.code === SdkErrorCode.RequestTimeout) {
      return failure(
        `The tool has not answered within ${timeout / 1_000} s; whether it has done anything is not known`,
      );
    }
    log.warn({ err: error, tool: name }, 'A call of a tool has failed');
    throw new ServerLost('The server of the tool has failed', { cause: error });
  }
}

export function failure(text: string): ToolOutcome {
  return { result: text, isError: true };
}

/** The outcome for the model and the user: the structured result, or else the texts. */
export function outcomeOf({ structuredContent, content, isError = false }: CallToolResult): ToolOutcome {
  return { result: bounded(structuredContent ?? resultOf(content)), isError };
}

function resultOf(content: CallToolResult['content']): unknown {
  const parts = content.map((part) => {
    if (part.type === 'text') return part.text;
    if (part.type === 'resource' && 'text' in part.resource) return part.resource.text;
    if (part.type === 'resource_link') return part.uri;
    // The model reads text.
    return `[${part.type === 'resource' ? 'file' : part.type}]`;
  });
  return parts.join('\n');
}

function bounded(result: unknown): unknown {
  const json = JSON.stringify(result);
  if (json.length <= maxResultLength) return result;
  const text = typeof result === 'string' ? result : json;
  return { cut_off: true, beginning: text.slice(0, maxResultLength).toWellFormed() };
}
