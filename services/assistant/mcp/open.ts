import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { MessageServiceService } from '#gen/chat4all/message/v1/message.ts';
import { list, text, type Config } from '#lib/config.ts';
import type { Database } from '#lib/database.ts';
import type { Identities } from '#lib/identity.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import type { authoritySettings } from '#lib/rpc/authority.ts';
import { connect, serviceAddress } from '#lib/rpc/client.ts';
import { service, type serverSettings, type ServedService } from '#lib/rpc/server.ts';
import { McpServiceService } from '#gen/chat4all/assistant/v1/protocols.ts';
import type { Tasks } from '../tasks/tasks-store.ts';
import { readServers } from '../toolbox/configuration.ts';
import { openToolbox } from '../toolbox/open.ts';
import type { Toolbox } from '../toolbox/toolbox.ts';
import { openEndpoint } from './endpoint.ts';
import { hubServer } from './hub-server.ts';
import { mcpHandlers } from './mcp-handlers.ts';
import { openMessageIds } from './message-ids-store.ts';
import { serveTools, type OurServer } from './our-server.ts';
import { openMcpSessions } from './sessions-store.ts';
import { tasksServer } from './tasks-server.ts';

export const mcpSettings = {
  CONVERSATION_ADDRESS: serviceAddress().describe('host:port of the conversation service'),
  MESSAGE_ADDRESS: serviceAddress().describe('host:port of the message service'),
  ASSISTANT_MCP_FILE: text()
    .optional()
    .describe(
      'JSON file with MCP servers of others whose tools the assistant may use: {"mcpServers": {"<name>": {"command", "args", "env"} or {"url", "headers"}}}',
    ),
  ASSISTANT_MCP_ORIGINS: list()
    .default(['localhost', '127.0.0.1', '[::1]'])
    .describe('hosts whose web pages may use the MCP servers of the hub, with commas between them'),
};

type McpConfig = Config<typeof mcpSettings & typeof serverSettings & typeof authoritySettings>;

/** The interval of the sweep for unused sessions. */
const sweepPauseMs = 60_000;

export interface Mcp {
  /** The tools for the assistant's turns. */
  toolbox: Toolbox;
  /** The service for other agents. */
  service: ServedService;
  /** Ends the streams of clients that only listen. */
  retire(): void;
  stop(): Promise<void>;
}

/** Opens the hub's MCP servers, for other agents and for the assistant, which also uses those of ASSISTANT_MCP_FILE. */
export function openMcp({
  config,
  db,
  tasks,
  identities,
  log,
}: {
  config: McpConfig;
  db: Database;
  tasks: Tasks;
  identities: Identities;
  log: Logger;
}): Mcp {
  const own = ['tasks', 'hub'];
  const others = readServers(config.ASSISTANT_MCP_FILE, own);
  const shared = { config, identities };
  const auth = connect(AuthServiceService, { ...shared, target: 'auth', address: config.AUTH_ADDRESS });
  const conversations = connect(ConversationServiceService, {
    ...shared,
    target: 'conversation',
    address: config.CONVERSATION_ADDRESS,
  });
  const messages = connect(MessageServiceService, { ...shared, target: 'message', address: config.MESSAGE_ADDRESS });
  const servers = {
    tasks: tasksServer(tasks),
    hub: hubServer({ auth, conversations, messages }, openMessageIds(db)),
  };

  const sessions = openMcpSessions(db);
  const endpointOf = (server: OurServer) =>
    openEndpoint({
      name: server.name,
      serve: (caller) => serveTools(server, { caller, log }),
      sessions,
      origins: config.ASSISTANT_MCP_ORIGINS,
      log,
    });
  const endpoints = { tasks: endpointOf(servers.tasks), hub: endpointOf(servers.hub) };
  const sweep = repeat('Ending MCP sessions that nobody uses', log, async () => {
    await sessions.sweep();
    return sweepPauseMs;
  });
  const toolbox = openToolbox({ own: [servers.tasks, servers.hub], others, log });

  return {
    toolbox,
    service: service(McpServiceService, mcpHandlers(endpoints)),
    retire() {
      endpoints.tasks.retire();
      endpoints.hub.retire();
    },

    async stop() {
      await Promise.all([toolbox.close(), endpoints.tasks.close(), endpoints.hub.close(), sweep.stop()]);
      for (const connection of [auth, conversations, messages]) connection.close();
    },
  };
}
