import type { Logger } from '#lib/log.ts';
import type { OurServer } from '../mcp/our-server.ts';
import { failure } from './calling.ts';
import type { ServerConfiguration } from './configuration.ts';
import { OtherServer } from './other-server.ts';
import { connectOwn, ownTools } from './own-servers.ts';
import type { Toolbox } from './toolbox.ts';

/** Opens the toolbox: servers of ours, each with a connection of its own for each turn, and others that all turns share. */
export function openToolbox({
  own,
  others,
  log,
}: {
  own: readonly OurServer[];
  others: readonly ServerConfiguration[];
  log: Logger;
}): Toolbox {
  const ofOwn = own.flatMap(ownTools);
  const servers = others.map((configuration) => new OtherServer(configuration, log));

  return {
    async open(caller, signal) {
      const connections = new Map(own.map((server) => [server.name, connectOwn(server, { caller, log })]));
      const found = await Promise.all(servers.map(async (server) => ({ server, tools: await server.tools(signal) })));
      const reached = found.filter(({ tools }) => tools !== undefined);
      const missing = found.filter(({ tools }) => tools === undefined);
      if (missing.length > 0) {
        log.warn(
          { servers: missing.map(({ server }) => server.name) },
          'The tools of MCP servers that cannot be reached are missing from a turn',
        );
      }
      const tools = [...ofOwn, ...reached.flatMap(({ tools: each }) => each!)];
      return {
        tools,
        missing: missing.map(({ server }) => ({ server: server.name, why: server.failure ?? 'It is still starting' })),

        async call({ server: serverName, name, arguments: given, callId }, callSignal) {
          if (!tools.some((each) => each.server === serverName && each.name === name)) {
            return failure(`There is no tool ${JSON.stringify(`${serverName}__${name}`)}`);
          }
          const connection = connections.get(serverName);
          if (connection !== undefined) return connection.call({ name, arguments: given, callId }, callSignal);
          const other = servers.find((each) => each.name === serverName)!;
          return other.call({ name, arguments: given }, callSignal);
        },

        async close() {
          await Promise.all([...connections.values()].map((connection) => connection.close()));
        },
      };
    },

    others: servers.map(({ name }) => name),
    problems: () => servers.flatMap(({ name, failure: why }) => (why === undefined ? [] : [{ server: name, why }])),

    async close() {
      await Promise.all(servers.map((server) => server.stop()));
    },
  };
}
