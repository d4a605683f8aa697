import type { IncomingMessage, Server } from 'node:http';
import { listenFailure } from '#lib/starting.ts';
import { valuesOf } from './headers.ts';
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

/** `uri-host [":" port]` of RFC 3986, 3.2: a name, an address of IPv4, or one in brackets. A name may be empty, too. */
const hostPattern = /^(\[[\da-f:.]+\]|\[v[\da-f]+\.[\w.~!$&'()*+,;=:-]+\]|([\w.~!$&'()*+,;=-]|%[\da-f]{2})*)(:\d*)?$/i;

/** The host in the target of a request that is a whole URL. */
export function hostIn(url: string): string | undefined {
  return url.startsWith('/') || url === '*' ? undefined : URL.parse(url)?.host;
}

/**
 * Refuses a request that doesn't say clearly for which host it is (RFC 9112, 3.2): another one on the way may have read another host.
 *
 * @throws Problem 400
 */
export function requireHost({ rawHeaders, httpVersion }: IncomingMessage): void {
  const hosts = valuesOf('host', rawHeaders);
  const fail = (detail: string) => new Problem(400, 'MALFORMED_REQUEST', detail, { headers: { Connection: 'close' } });
  if (hosts.length > 1) throw fail('There must be one Host header');
  if (hosts.length === 0 && httpVersion !== '1.0') throw fail('The Host header is missing');
  const [host = ''] = hosts;
  if (!hostPattern.test(host)) throw fail('The Host header is no host');
}

/** The answer to a request without such a target. */
export function malformedTarget(): Problem {
  return new Problem(400, 'MALFORMED_REQUEST', 'The target of the request is neither a path nor a URL');
}

/**
 * @param names of the settings of the host and the port
 * @throws StartError or ConfigError that says where HTTP can't be served
 */
export function listen(
  server: Server,
  { host, port }: { host: string; port: number },
  names = { host: 'HOST', port: 'PORT' },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(listenFailure(error, names, { host, port })));
    server.listen(port, host, resolve);
  });
}
