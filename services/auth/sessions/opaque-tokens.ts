import { createHash, randomBytes } from 'node:crypto';

/**
 * What tokens that say nothing begin with, by what they are for: whoever finds one knows what it is, and logs hide what looks
 * like one (`lib/log.ts`).
 */
const prefixes = { apiKey: 'c4a_', refresh: 'c4r_', reset: 'c4p_' } as const;

export type OpaqueTokenKind = keyof typeof prefixes;

/**
 * Random bytes of each. With 21 the link of a mail fits into a line of 76 characters, which is sent as it is: a longer one would be
 * broken in two (RFC 2045, 6.7), and whoever looks into the file of a mail couldn't copy it.
 */
const lengths: Readonly<Record<OpaqueTokenKind, number>> = { apiKey: 32, refresh: 32, reset: 21 };

/** A new token of 256 random bits, or 168 for a reset. */
export function newToken(kind: OpaqueTokenKind): string {
  return prefixes[kind] + randomBytes(lengths[kind]).toString('base64url');
}

/** What is kept of a token: SHA-256 is enough, since nobody can guess so many random bits. */
export function hashOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/** Characters of an API key that its owner is shown afterwards. */
const shownCharacters = 8;

export function prefixOf(key: string): string {
  return key.slice(0, shownCharacters);
}
