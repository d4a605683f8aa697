import { hash } from 'node:crypto';
import type { Request } from 'express';
import { BoundedMap } from '#lib/bounded-map.ts';
import { clientOf } from '#lib/client-address.ts';
import { credentialsOf } from './credentials.ts';

/** So many tokens and API keys are remembered, of some 200 bytes each. One that was forgotten counts for its address until it is used again. */
const maxCredentials = 100_000;

/** For whom a request counts. */
export interface Caller {
  /** A user that a backend has found in this very token or API key before; otherwise the address that the request came from. */
  client: string;
  isUser: boolean;
  /** The hash of its credential, if it has one. */
  credential: string | undefined;
}

/**
 * Knows for whom limits count a request. Whoever shows a token or an API key that nobody has verified yet may have made it up, so
 * it counts for its address. Which are good only backends know, and whose they are: they say so in the trailers of their answers.
 */
export class Callers {
  /** The users of tokens and API keys that a backend has taken, by the hashes of those. */
  readonly #users = new BoundedMap<string, string>(maxCredentials);

  of({ headers, ip = 'unknown' }: Request): Caller {
    const { authorization, apiKey } = credentialsOf(headers);
    if (authorization === undefined && apiKey === undefined) {
      return { client: clientOf(ip), isUser: false, credential: undefined };
    }
    // No header has a line break in it, so that nobody's token is somebody's key.
    const credential = hash('sha256', authorization ?? `key\n${apiKey}`, 'base64');
    const user = this.#users.get(credential);
    // No address looks like that.
    return user === undefined
      ? { client: clientOf(ip), isUser: false, credential }
      : { client: `user ${user}`, isUser: true, credential };
  }

  /**
   * Learns from how a request of this caller was answered.
   *
   * @param user whom the backend found to be calling; undefined if it said nothing of that
   */
  answered({ credential, isUser }: Caller, status: number, user: string | undefined): void {
    if (credential === undefined) return;
    if (status === 401) this.#users.delete(credential);
    else if (user !== undefined && !isUser) this.#users.set(credential, user);
  }
}
