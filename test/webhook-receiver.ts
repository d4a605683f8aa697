import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** One request that a receiver of webhooks got. */
export interface Received {
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
  event: { type: string; timestamp: string; data: Record<string, unknown> };
  /** When it came and when it was answered, by performance.now(). */
  began: number;
  ended: number;
}

export type Answer = (response: ServerResponse, received: Received) => void | Promise<void>;

/** An HTTP server on loopback that takes webhooks, well or badly. */
export interface Receiver {
  /** Without a slash at the end. */
  url: string;
  /** All requests, in the order in which they came. */
  received: Received[];
  /** Those on a path. */
  on(path: string): Received[];
  /** How it answers from now on; 204 by default. */
  answer: Answer;
  /** The most requests that were open at once. */
  most: number;
  stop(): Promise<void>;
}

export async function startReceiver(): Promise<Receiver> {
  let open = 0;
  const server = createServer((request, response) => {
    const began = performance.now();
    open += 1;
    receiver.most = Math.max(receiver.most, open);
    const pieces: Buffer[] = [];
    request.on('error', () => {});
    response.on('error', () => {});
    request.on('data', (piece: Buffer) => pieces.push(piece));
    request.on('end', () => {
      const body = Buffer.concat(pieces).toString();
      const event = JSON.parse(body) as Received['event'];
      const one = { path: request.url ?? '', headers: request.headers, body, event, began, ended: Infinity };
      receiver.received.push(one);
      response.on('close', () => {
        one.ended = performance.now();
        open -= 1;
      });
      void receiver.answer(response, one);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const receiver: Receiver = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received: [],
    on: (path) => receiver.received.filter((one) => one.path === path),
    answer: (response) => void response.writeHead(204).end(),
    most: 0,
    async stop() {
      server.closeAllConnections();
      await once(server.close(), 'close');
    },
  };
  return receiver;
}
