import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { freePorts } from './ports.ts';

/** The demo tools of `npm start`. */
const demoTools: Readonly<Record<string, (input: Record<string, unknown>) => object>> = {
  '/echo': (input) => ({ echo: input }),
  '/text-stats': ({ text }) => {
    const given = typeof text === 'string' ? text : '';
    return {
      characters: [...new Intl.Segmenter().segment(given)].length,
      words: [...new Intl.Segmenter(undefined, { granularity: 'word' }).segment(given)].filter(
        (each) => each.isWordLike,
      ).length,
      lines: given === '' ? 0 : given.split(/\r\n|\r|\n/).length,
    };
  },
};

const mostBytes = 1024 * 1024;

export interface DemoTools {
  /** Without a slash at the end. */
  url: string;
  stop(): Promise<void>;
}

/** Serves demo tools on loopback, on a free port. */
export async function startDemoTools(): Promise<DemoTools> {
  const server: Server = createServer({ requestTimeout: 10_000, headersTimeout: 5_000 }, (request, response) => {
    const answer = (status: number, body: object) =>
      void response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
    const work = demoTools[URL.parse(request.url ?? '', 'http://tools')?.pathname ?? ''];
    if (work === undefined) return answer(404, { error: 'There is no such tool' });
    if (request.method !== 'POST') return answer(405, { error: 'Tools are POSTed to' });
    readJson(request).then(
      (input) => answer(200, work(input)),
      (error: Error) => answer(400, { error: error.message }),
    );
  });
  for (let tries = 1; ; tries += 1) {
    try {
      const [port] = await freePorts(1);
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
      return {
        url: `http://127.0.0.1:${port}`,
        async stop() {
          server.closeAllConnections();
          await once(server.close(), 'close');
        },
      };
    } catch (error) {
      // Another process may have taken the port meanwhile.
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || tries === 5) throw error;
    }
  }
}

async function readJson(request: IncomingMessage): Promise<Record<string, unknown>> {
  const pieces: Buffer[] = [];
  let size = 0;
  // The rest of a body that is too large is read and discarded, so that the client can read the refusal.
  for await (const piece of request as AsyncIterable<Buffer>) {
    size += piece.length;
    if (size <= mostBytes) pieces.push(piece);
  }
  if (size > mostBytes) throw new Error('That is too much');
  const input: unknown = JSON.parse(Buffer.concat(pieces).toString());
  if (typeof input !== 'object' || input === null || Array.isArray(input))
    throw new Error('The input must be an object');
  return input as Record<string, unknown>;
}
