import { env } from 'node:process';
import { McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';

/** An MCP server of somebody else, for tests: one that tells its environment, takes its time, says much, or dies. */
export function exampleServer(): McpServer {
  const served = new McpServer({ name: 'example', version: '1.0.0' });
  const reading = { readOnlyHint: true };
  served.registerTool('environment', { annotations: reading }, () => ({
    content: [{ type: 'text', text: JSON.stringify(env) }],
  }));
  served.registerTool(
    'wait',
    { inputSchema: z.object({ milliseconds: z.number() }), annotations: { destructiveHint: false } },
    async ({ milliseconds }) => {
      await new Promise((resolve) => setTimeout(resolve, milliseconds));
      return { content: [{ type: 'text', text: 'waited' }] };
    },
  );
  served.registerTool(
    'say',
    {
      inputSchema: z.object({ characters: z.number() }),
      annotations: { destructiveHint: false, idempotentHint: true },
    },
    ({ characters }) => ({ content: [{ type: 'text', text: 'x'.repeat(characters) }] }),
  );
  served.registerTool('die', { description: 'Ends the process' }, () => process.exit(1));
  served.registerTool('fail', { annotations: { destructiveHint: true } }, () => {
    throw new Error('It has failed');
  });
  served.registerTool('a.name.that.no.model.takes', {}, () => ({ content: [] }));
  return served;
}

if (import.meta.main) serveStdio(exampleServer);
