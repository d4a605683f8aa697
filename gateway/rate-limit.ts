import { hash } from 'node:crypto';
import type { Request, RequestHandler, Response } from 'express';
import { ipKeyGenerator, MemoryStore, rateLimit } from 'express-rate-limit';
import { Problem } from './problem.ts';

export interface RateLimits {
  /** In the order in which they are asked. */
  middleware: RequestHandler[];
  stop(): void;
}

const second = 1_000;

/**
 * Lets one user (known by the token, kept as a hash) or, without a token, one address do `limit` requests in a second; 0
 * is no limit. Requests that are refused as 401 count for their address, so that made-up tokens get nobody past it.
 */
export function rateLimits(limit: number): RateLimits {
  if (limit === 0) return { middleware: [], stop() {} };
  const stores = [new MemoryStore(), new MemoryStore()] as const;
  const common = {
    windowMs: second,
    limit,
    standardHeaders: false,
    legacyHeaders: false,
    // They look at a request's headers for mistakes of the set-up, on the hot path.
    validate: false,
    handler: () => {
      throw new Problem(429, 'RATE_LIMITED', `More than ${limit} requests in a second: slow down`, { retryAfter: 1 });
    },
  } as const;
  return {
    middleware: [
      rateLimit({ ...common, store: stores[0], keyGenerator: (request) => tokenHash(request) ?? addressKey(request) }),
      rateLimit({
        ...common,
        store: stores[1],
        keyGenerator: addressKey,
        skip: (request) => request.headers.authorization === undefined,
        skipSuccessfulRequests: true,
        requestWasSuccessful: (_request: Request, response: Response) => response.statusCode !== 401,
      }),
    ],
    stop() {
      for (const store of stores) store.shutdown();
    },
  };
}

function tokenHash({ headers }: Request): string | undefined {
  return headers.authorization === undefined ? undefined : hash('sha256', headers.authorization, 'base64');
}

function addressKey({ ip }: Request): string {
  return ip === undefined ? 'unknown' : ipKeyGenerator(ip);
}
