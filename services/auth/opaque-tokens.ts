import { createHash, randomBytes } from 'node:crypto';

/**
 * What tokens that say nothing begin with, by what they are for: whoever finds one knows what it is, and logs hide what looks
 * like one (`lib/log.ts`).
 */
const prefixes = { apiKey: 'c4a_', refresh: 'c4r_', reset: 'c4p_' } as const;

export type OpaqueTokenKind = keyof typeof prefixes;

/** A new token of 256 random bits. */
export function newToken(kind: OpaqueTokenKind): string {
  return prefixes[kind] + randomBytes(32).toString('base64url');
}

/** What is kept of a token: SHA-256 is enough, since nobody can guess what has 256 random bits. */
export function hashOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/** Characters of an API key that its owner is shown afterwards. */
const shownCharacters = 8;

export function prefixOf(key: string): string {
  return key.slice(0, shownCharacters);
}
