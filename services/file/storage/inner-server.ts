import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hubTime } from '#lib/clock.ts';
import { HubError } from '#lib/errors.ts';
import type { Storage } from './storage.ts';

/** Gives contents to gateways on this machine, over HTTP: it costs a fraction of what the same bytes cost as messages of gRPC. */
export interface InnerServer {
  /** A URL that answers GET with an object or a range of it. It is good for `lifetime` and nothing else. */
  urlOf(key: string): Promise<string>;
  close(): Promise<void>;
}

/** Milliseconds that a URL is good for: a gateway uses it at once, and again where a connection has broken. */
const lifetime = 3_600_000;
/** Milliseconds without a byte after which a connection is closed. Longer than gateways wait for a client that takes nothing. */
const silence = 60_000;
const maxConnections = 1_000;
/** Bytes that a connection holds for a reader who takes nothing, beside one piece. */
const highWaterMark = 128 * 1024;

export function openInnerServer(storage: Pick<Storage, 'read' | 'size'>): InnerServer {
  const secret = randomBytes(32);
  const sign = (text: string) => createHmac('sha256', secret).update(text).digest('base64url');
  const server = createServer({ highWaterMark, keepAliveTimeout: silence }, (request, response) => {
    void answer(request, response).catch((error: unknown) => {
      // What was begun must not look whole.
      if (response.headersSent) response.destroy();
      else response.writeHead(error instanceof HubError && error.kind === 'NOT_FOUND' ? 404 : 503).end();
    });
  });
  server.maxConnections = maxConnections;
  server.timeout = silence;
  // The gRPC server is what the process lives for.
  server.unref();
  let listening: Promise<string> | undefined;

  async function listen(): Promise<string> {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** The key that a request may read; undefined if none. */
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
      // Whoever reads may use the piece's memory again for the next one.
      await written(response, piece);
    }
    response.end();
  }

  return {
    async urlOf(key) {
      const origin = await (listening ??= listen());
      const until = hubTime() + lifetime;
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

/** Settled once the system has taken a piece; that of a connection that is closed never comes to it. */
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
