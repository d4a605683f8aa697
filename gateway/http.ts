import type { Server } from 'node:http';

/** The path and the query of a request target, which may be a whole URL (RFC 9112, 3.2.2). */
export function targetOf(url: string): { pathname: string; query: string } {
  const target = url.startsWith('/') ? url : url.replace(/^[a-z][a-z\d+.-]*:\/\/[^/?]*/i, '');
  const mark = target.indexOf('?');
  if (mark === -1) return { pathname: target || '/', query: '' };
  return { pathname: target.slice(0, mark) || '/', query: target.slice(mark + 1) };
}

/** @throws Error that says where HTTP can't be served */
export function listen(server: Server, listenPort: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(new Error(`Can't serve HTTP on ${host}:${listenPort}: ${error.message}`)));
    server.listen(listenPort, host, resolve);
  });
}
