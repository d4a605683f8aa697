import type { IncomingMessage, Server } from 'node:http';
import { Problem } from './problem.ts';

/** The path and the query of a request target, which may be a whole URL (RFC 9112, 3.2.2). */
export function targetOf(url: string): { pathname: string; query: string } {
  const target = url.startsWith('/') ? url : url.replace(/^[a-z][a-z\d+.-]*:\/\/[^/?]*/i, '');
  const mark = target.indexOf('?');
  if (mark === -1) return { pathname: target || '/', query: '' };
  return { pathname: target.slice(0, mark) || '/', query: target.slice(mark + 1) };
}

/**
 * Whether a request has a target that HTTP allows: a path, a whole URL (which proxies are sent, and servers must take), or the
 * asterisk of OPTIONS (RFC 9112, 3.2). Node's parser lets more pass.
 */
export function hasTarget({ method, url = '' }: IncomingMessage): boolean {
  if (url.startsWith('/')) return true;
  if (url === '*') return method === 'OPTIONS';
  return /^[a-z][a-z\d+.-]*:\/\//i.test(url) && URL.canParse(url);
}

/** The answer to a request without such a target. */
export function malformedTarget(options?: ConstructorParameters<typeof Problem>[3]): Problem {
  return new Problem(400, 'MALFORMED_REQUEST', 'The target of the request is neither a path nor a URL', options);
}

/** @throws Error that says where HTTP can't be served */
export function listen(server: Server, listenPort: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(new Error(`Can't serve HTTP on ${host}:${listenPort}: ${error.message}`)));
    server.listen(listenPort, host, resolve);
  });
}
