import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What a tool was asked. */
export interface Asked {
  path: string;
  headers: IncomingMessage['headers'];
  body: string;
}

export type Behaviour = (response: ServerResponse, asked: Asked) => void;

/** An HTTP server that is a tool, or several, for tests. */
export interface ToolServer {
  /** Without a slash at the end. */
  url: string;
  /** All that it was asked, in this order. */
  asked: Asked[];
  /** How often it was asked on a path. */
  count(path: string): number;
  /** How it answers on a path from now on; 404 on all others. */
  on(path: string, behaviour: Behaviour): void;
  stop(): Promise<void>;
}

/** Answers with JSON. */
export function answering(value: unknown, status = 200): Behaviour {
  return (response) => {
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(value));
  };
}

/** On loopback, on a free port. */
export async function startToolServer(host = '127.0.0.1'): Promise<ToolServer> {
  const behaviours = new Map<string, Behaviour>();
  const asked: Asked[] = [];
  const server: Server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on('data', (piece: Buffer) => pieces.push(piece));
    request.on('error', () => {});
    request.on('end', () => {
      const path = request.url ?? '';
      const one = { path, headers: request.headers, body: Buffer.concat(pieces).toString() };
      asked.push(one);
      const behaviour = behaviours.get(path);
      if (behaviour === undefined) response.writeHead(404).end();
      else behaviour(response, one);
    });
  });
  server.listen(0, host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    asked,
    count: (path) => asked.filter((one) => one.path === path).length,
    on: (path, behaviour) => void behaviours.set(path, behaviour),
    async stop() {
      server.closeAllConnections();
      await once(server.close(), 'close');
    },
  };
}
