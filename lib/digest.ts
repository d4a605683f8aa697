import { invalidFields } from './errors.ts';

/** The digest that bytes should have. */
export interface ExpectedDigest {
  algorithm: 'sha256' | 'sha512';
  digest: Buffer;
}

const digestAlgorithms = { 'sha-256': 'sha256', 'sha-512': 'sha512' } as const;
const digestLengths = { sha256: 32, sha512: 64 } as const;

/**
 * Parses a Content-Digest (RFC 9530): a dictionary of digests by algorithm, of which the strongest known algorithm is used.
 *
 * @returns undefined if there is none
 * @throws HubError INVALID_ARGUMENT that names `content_digest`
 */
export function parseDigest(text: string): ExpectedDigest | undefined {
  if (text.trim() === '') return undefined;
  const wrong = (description: string) => invalidFields([{ field: 'content_digest', description }]);
  const found = new Map<ExpectedDigest['algorithm'], Buffer>();
  for (const member of text.split(',')) {
    const [, name, value] = /^\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):\s*$/.exec(member) ?? [];
    if (name === undefined || value === undefined) throw wrong('must be as in `sha-256=:<base64>:` (RFC 9530)');
    const algorithm = digestAlgorithms[name as keyof typeof digestAlgorithms];
    if (algorithm === undefined) continue;
    const digest = Buffer.from(value, 'base64');
    if (digest.length !== digestLengths[algorithm]) throw wrong(`has no ${name} of ${digestLengths[algorithm]} bytes`);
    found.set(algorithm, digest);
  }
  const algorithm = found.has('sha512') ? 'sha512' : found.has('sha256') ? 'sha256' : undefined;
  if (algorithm === undefined) throw wrong('must hold a sha-256 or a sha-512');
  return { algorithm, digest: found.get(algorithm) as Buffer };
}
