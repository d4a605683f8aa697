import { hash } from 'node:crypto';
import type { Request, RequestHandler, Response } from 'express';
import type { Noted } from './headers.ts';
import { Problem } from './problem.ts';

const window = 1_000;

/** How often each key came in the second that runs. */
class Counts {
  #counts = new Map<string, number>();
  #ends = 0;

  /** Counts `more` for a key. Returns how many that makes, and in how many milliseconds the count begins anew. */
  add(key: string, more: number): { count: number; left: number } {
    const now = performance.now();
    if (now >= this.#ends) {
      this.#counts = new Map();
      this.#ends = now + window;
    }
    const count = (this.#counts.get(key) ?? 0) + more;
    if (more > 0) this.#counts.set(key, count);
    return { count, left: this.#ends - now };
  }
}

/** So many tokens are remembered, with the users that they are of. */
const rememberedTokens = 100_000;

/**
 * Lets one user (known by the token, kept as a hash, until a backend has said whose it is) or, without a token, one address do `limit` requests in a second, and says
 * so in each answer (draft-ietf-httpapi-ratelimit-headers-10). Requests that are refused as 401 count for their address, too, so
 * that made-up tokens get nobody past it. 0 is no limit.
 */
export function rateLimit(limit: number): RequestHandler {
  if (limit === 0) return (_request, _response, next) => next();
  const requests = new Counts();
  const strangers = new Counts();
  /** The users of tokens that a backend has taken, by the hashes of those. */
  const users = new Map<string, string>();

  const admit = (response: Response, policy: 'user' | 'address', { count, left }: { count: number; left: number }) => {
    const seconds = Math.ceil(left / 1_000);
    response.setHeader('RateLimit-Policy', `"${policy}";q=${limit};w=1`);
    response.setHeader('RateLimit', `"${policy}";r=${Math.max(0, limit - count)};t=${seconds}`);
    if (count <= limit) return;
    throw new Problem(429, 'RATE_LIMITED', `More than ${limit} requests in a second: slow down`, {
      retryAfter: Math.max(1, seconds),
    });
  };

  const remember = (token: string, user: string) => {
    if (users.size >= rememberedTokens) users.delete(users.keys().next().value as string);
    users.set(token, user);
  };

  return (request, response, next) => {
    const { authorization } = request.headers;
    const address = addressKey(request);
    if (authorization === undefined) {
      admit(response, 'address', requests.add(address, 1));
    } else {
      const refused = strangers.add(address, 0);
      if (refused.count >= limit) admit(response, 'address', { count: limit + 1, left: refused.left });
      const token = hash('sha256', authorization, 'base64');
      const known = users.get(token);
      response.on('close', () => {
        const { user } = response.locals as Noted;
        if (response.statusCode === 401) strangers.add(address, 1);
        else if (user !== undefined && known === undefined) remember(token, user);
      });
      admit(response, 'user', requests.add(known ?? token, 1));
    }
    next();
  };
}

/** An address; of IPv6 the network, since whoever has one address there has the rest of it. */
function addressKey({ ip = 'unknown' }: Request): string {
  if (!ip.includes(':')) return ip;
  const mapped = /^::ffff:([\d.]+)$/i.exec(ip)?.[1];
  return mapped ?? networkOf(ip);
}

/** The first 56 bits of an IPv6 address: what providers give to one customer at the most, but for large ones. */
function networkOf(ip: string): string {
  const [head = '', tail] = (ip.split('%', 1)[0] as string).split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const [first, last] = [groups(head), groups(tail ?? '')];
  const missing = tail === undefined ? 0 : Math.max(0, 8 - first.length - last.length);
  const all = [...first, ...Array.from({ length: missing }, () => '0'), ...last].map((group) => parseInt(group, 16));
  return all
    .slice(0, 4)
    .map((group, index) => (index === 3 ? group & 0xff00 : group).toString(16))
    .join(':');
}
