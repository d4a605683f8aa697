import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hubTime } from '#lib/clock.ts';
import { HubError } from '#lib/errors.ts';
import type { Storage } from './storage.ts';

/** Serves contents over HTTP to gateways on this machine, at a fraction of the cost of gRPC messages. */
export interface InnerServer {
  /** A URL for GET of an object or a range of it, valid for `lifetimeMs`. */
  urlOf(key: string): Promise<string>;
  close(): Promise<void>;
}

/** A gateway uses a URL at once, and again if its connection breaks. */
const lifetimeMs = 3_600_000;
/** A connection without any bytes is closed after this: longer than gateways wait for a client that reads nothing. */
const idleTimeoutMs = 60_000;
const maxConnections = 1_000;
const highWaterMark = 128 * 1024;

export function openInnerServer(storage: Pick<Storage, 'read' | 'size'>): InnerServer {
  const secret = randomBytes(32);
  const sign = (text: string) => createHmac('sha256', secret).update(text).digest('base64url');
  const server = createServer({ highWaterMark, keepAliveTimeout: idleTimeoutMs }, (request, response) => {
    void answer(request, response).catch((error: unknown) => {
      // An answer that was begun must not look complete.
      if (response.headersSent) response.destroy();
      else response.writeHead(error instanceof HubError && error.kind === 'NOT_FOUND' ? 404 : 503).end();
    });
  });
  server.maxConnections = maxConnections;
  server.timeout = idleTimeoutMs;
  // This server alone must not keep the process running.
  server.unref();
  let listening: Promise<string> | undefined;

  async function listen(): Promise<string> {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** The key that the request's URL permits to read; undefined if the URL is invalid. */
  function keyOf({ url = '' }: IncomingMessage): string | undefined {
    const [, key, until, signature] = /^\/([\w-]{1,64})\/(\d{1,16})\/([\w-]{43})$/.exec(url) ?? [];
    if (key === undefined || until === undefined || signature === undefined) return undefined;
    const right = Buffer.from(sign(`${key}/${until}`));
    return timingSafeEqual(right, Buffer.from(signature)) && hubTime() < Number(until) ? key : undefined;
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const key = keyOf(request);
    if (key === undefined) return void response.writeHead(403).end();
    if (request.method !== 'GET') return void response.writeHead(405, { Allow: 'GET' }).end();
    const size = await storage.size(key);
    if (size === undefined) return void response.writeHead(404).end();
    const tag = `"${key}"`;
    if ((request.headers['if-match'] ?? tag) !== tag) return void response.writeHead(412).end();
    const range = /^bytes=(\d{1,15})-(\d{1,15})$/.exec(request.headers.range ?? '');
    const [start, end] = range === null ? [0, size] : [Number(range[1]), Number(range[2]) + 1];
    if (start >= end || end > size) {
      response.writeHead(416, { 'Content-Range': `bytes */${size}` }).end();
      return;
    }
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const headers = { ETag: tag, 'Content-Length': end - start };
    if (range === null) response.writeHead(200, headers);
    else response.writeHead(206, { ...headers, 'Content-Range': `bytes ${start}-${end - 1}/${size}` });
    for await (const piece of storage.read(key, { start, end }, gone.signal)) {
      // Awaited, since the reader reuses the memory of the piece for the next one.
      await written(response, piece);
    }
    response.end();
  }

  return {
    async urlOf(key) {
      const origin = await (listening ??= listen());
      const until = hubTime() + lifetimeMs;
      return `${origin}/${key}/${until}/${sign(`${key}/${until}`)}`;
    },

    async close() {
      if (listening === undefined) return;
      await listening.catch(() => {});
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Fulfilled once the kernel has accepted the piece; rejected if the connection closes. */
function written(response: ServerResponse, piece: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    const onClose = () => reject(new Error('the reader has gone'));
    if (response.destroyed) return onClose();
    response.once('close', onClose);
    response.write(piece, () => {
      response.off('close', onClose);
      resolve();
    });
  });
}
