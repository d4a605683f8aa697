import http, { type IncomingHttpHeaders } from 'node:http';
import https from 'node:https';
import type { Readable } from 'node:stream';

export interface Request {
  method: string;
  url: URL;
  headers: Record<string, string | number>;
  /** What is read from a stream needs a Content-Length among the headers. The stream is destroyed in the end. */
  body?: Buffer | Readable | undefined;
  /** Milliseconds without a byte in either direction after which the connection is given up. */
  idle: number;
  signal: AbortSignal;
}

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

/** There was no answer, or only a part of one. The text says why, for people. */
export class ConnectionError extends Error {
  override name = 'ConnectionError';
}

const agents = {
  'http:': new http.Agent({ keepAlive: true }),
  'https:': new https.Agent({ keepAlive: true }),
};

/**
 * Does one request, and returns whatever the answer is.
 *
 * @throws ConnectionError if there is none; what `signal` was aborted with; what the stream failed with
 */
export function send({ method, url, headers, body, idle, signal }: Request): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const isStream = body !== undefined && !Buffer.isBuffer(body);
    let bodyFailure: Error | undefined;
    let isAnswered = false;
    const { request: start } = url.protocol === 'https:' ? https : http;
    const agent = agents[url.protocol as keyof typeof agents];
    const request = start(url, { method, headers, agent, signal });
    const end = (settle: () => void) => {
      if (isStream) body.destroy();
      settle();
    };
    const fail = (error: Error) => {
      if (signal.aborted) reject(signal.reason as Error);
      else reject(bodyFailure ?? new ConnectionError(textOf(error, url), { cause: error }));
    };

    request.on('response', (response) => {
      isAnswered = true;
      let received = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => (received += text));
      response.on('error', (error) => end(() => fail(error)));
      response.on('end', () => {
        // An answer that came before the end of the body: the connection is of no more use.
        if (!request.writableFinished) request.destroy();
        end(() => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: received }));
      });
      // What is left of the body nobody wants any more.
      if (isStream) body.unpipe(request);
    });
    // A server that answers early may close its side, upon which writing fails: the answer counts.
    request.on('error', (error) => isAnswered || end(() => fail(error)));
    request.setTimeout(idle, () => request.destroy(new Error(`nothing came or went for ${idle / 1_000} s`)));
    if (isStream) {
      let left = Number(headers['Content-Length']);
      const give = (error: Error) => {
        bodyFailure = error;
        request.destroy(error);
      };
      body.on('error', give);
      body.on('data', (piece: Buffer) => (left -= piece.length));
      // Before pipe ends the request as if that were all of it.
      body.on('end', () => left > 0 && give(new Error('There is less to send than was announced')));
      body.pipe(request);
    } else {
      request.end(body);
    }
  });
}

const texts: Record<string, (host: string) => string> = {
  ECONNREFUSED: (host) => `nothing listens at ${host}`,
  ECONNRESET: (host) => `the connection to ${host} was cut`,
  EPIPE: (host) => `the connection to ${host} was cut`,
  ENOTFOUND: (host) => `there is no host ${host}`,
  EAI_AGAIN: (host) => `the address of ${host} can't be looked up now`,
};

function textOf(error: Error, { host }: URL): string {
  const { code = '' } = error as NodeJS.ErrnoException;
  return texts[code]?.(host) ?? `${host}: ${error.message || code || 'the connection failed'}`;
}
