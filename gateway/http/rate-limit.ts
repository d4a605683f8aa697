import type { RequestHandler } from 'express';
import type { RequestDetails } from './request-details.ts';
import { Problem } from './problem.ts';

const windowMs = 1_000;

/** How often each client came in the second that runs. */
class Counts {
  #counts = new Map<string, number>();
  #ends = 0;

  /** Counts one more. Returns how many that makes, and in how many milliseconds the count begins anew. */
  add(client: string): { count: number; left: number } {
    const now = performance.now();
    if (now >= this.#ends) {
      this.#counts = new Map();
      this.#ends = now + windowMs;
    }
    const count = (this.#counts.get(client) ?? 0) + 1;
    this.#counts.set(client, count);
    // A sum of floating-point numbers less one of them may be more than the other.
    return { count, left: Math.min(windowMs, this.#ends - now) };
  }
}

/**
 * Lets one user, or the address of one whom no backend has verified (`Callers`), do `limit` requests in a second, and says so in
 * each answer (draft-ietf-httpapi-ratelimit-headers-10). 0 is no limit.
 */
export function rateLimit(limit: number): RequestHandler {
  if (limit === 0) return (_request, _response, next) => next();
  const requests = new Counts();

  return (_request, response, next) => {
    const { client, isUser } = (response.locals as RequestDetails).caller!;
    const { count, left } = requests.add(client);
    const seconds = Math.ceil(left / 1_000);
    const policy = isUser ? 'user' : 'address';
    response.setHeader('RateLimit-Policy', `"${policy}";q=${limit};w=1`);
    response.setHeader('RateLimit', `"${policy}";r=${Math.max(0, limit - count)};t=${seconds}`);
    if (count > limit) {
      throw new Problem(429, 'RATE_LIMITED', `More than ${limit} requests in a second: slow down`, {
        retryAfter: Math.max(1, seconds),
      });
    }
    next();
  };
}
