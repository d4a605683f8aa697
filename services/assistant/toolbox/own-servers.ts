import { Client } from '@modelcontextprotocol/client';
import { InMemoryTransport } from '@modelcontextprotocol/server';
import type { Logger } from '#lib/log.ts';
import { callIdKey, serveTools, type OurServer } from '../mcp/our-server.ts';
import { callTool } from './calling.ts';
import { clientInfo } from './client-info.ts';
import type { Tool, ToolCaller, ToolOutcome } from './toolbox.ts';

const timeout = 30_000;

/** A connection to a server of ours for one caller, over the memory of this process: made once it is needed. */
export interface OwnConnection {
  call(call: { name: string; arguments: unknown; callId: string }, signal: AbortSignal): Promise<ToolOutcome>;
  close(): Promise<void>;
}

/** The tools of a server of ours, which are the same for everybody. */
export function ownTools(server: OurServer): Tool[] {
  return server.tools.map(({ name, description, annotations, inputSchema }) => ({
    server: server.name,
    name,
    description,
    inputSchema,
    needsApproval: annotations.destructiveHint,
    isReadOnly: annotations.readOnlyHint,
  }));
}

export function connectOwn(server: OurServer, { caller, log }: { caller: ToolCaller; log: Logger }): OwnConnection {
  let connecting: Promise<Client> | undefined;

  async function connect(): Promise<Client> {
    const [ours, theirs] = InMemoryTransport.createLinkedPair();
    await serveTools(server, { caller, log, fromAssistant: true }).connect(theirs);
    const client = new Client(clientInfo);
    await client.connect(ours);
    return client;
  }

  return {
    async call({ callId, ...call }, signal) {
      connecting ??= connect();
      return callTool(await connecting, { ...call, meta: { [callIdKey]: callId }, timeout }, { signal, log });
    },

    async close() {
      await (await connecting)?.close();
    },
  };
}
