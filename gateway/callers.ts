import { hash } from 'node:crypto';
import type { Request } from 'express';
import { clientOf } from '#lib/client-address.ts';

/** So many tokens are remembered, of some 200 bytes each. The oldest is forgotten first: it counts for its address until it comes again. */
const rememberedTokens = 100_000;

/** For whom a request counts. */
export interface Caller {
  /** A user that a backend has found in this very token before; otherwise the address that the request came from. */
  client: string;
  isUser: boolean;
  /** The hash of its Authorization header, if it has one. */
  token: string | undefined;
}

/**
 * Knows for whom limits count a request. Whoever shows a token that nobody has verified yet may have made it up, so it counts for
 * its address. Which tokens are good only backends know, and whose they are: they say so in the trailers of their answers.
 */
export class Callers {
  /** The users of tokens that a backend has taken, by the hashes of those. */
  readonly #users = new Map<string, string>();

  of({ headers: { authorization }, ip = 'unknown' }: Request): Caller {
    if (authorization === undefined) return { client: clientOf(ip), isUser: false, token: undefined };
    const token = hash('sha256', authorization, 'base64');
    const user = this.#users.get(token);
    // No address looks like that.
    return user === undefined
      ? { client: clientOf(ip), isUser: false, token }
      : { client: `user ${user}`, isUser: true, token };
  }

  /**
   * Learns from how a request of this caller was answered.
   *
   * @param user whom the backend found to be calling; undefined if it said nothing of that
   */
  answered({ token, isUser }: Caller, status: number, user: string | undefined): void {
    if (token === undefined) return;
    if (status === 401) {
      this.#users.delete(token);
    } else if (user !== undefined && !isUser) {
      if (this.#users.size >= rememberedTokens) this.#users.delete(this.#users.keys().next().value as string);
      this.#users.set(token, user);
    }
  }
}
