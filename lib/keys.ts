import { readFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { within } from './deadline.ts';
import type { Logger } from './log.ts';

/** The private key of a service: a JWK (RFC 8037). */
export interface PrivateKey {
  kty: 'OKP';
  crv: 'Ed25519';
  /** Key id. */
  kid: string;
  /** The service that the key belongs to. */
  service: string;
  /** The public part. */
  x: string;
  /** The private part. */
  d: string;
}

/** A public key that is trusted, as a JWK. */
export interface PublicKey extends Omit<PrivateKey, 'd'> {
  /** When trust in the key ends, in seconds since the epoch. */
  exp?: number | undefined;
}

/** The value of a setting, or of the file that it names, which is read again when it changes. */
export interface KeySource<T> {
  value: T;
  /** Path of the file, if the setting names one. */
  file: string | undefined;
}

/** The public part of a key. The example of RFC 8037, appendix A.2, is refused: its private part is published. */
const publicPart = z.string().refine((x) => x !== '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo');
const members = {
  kty: z.literal('OKP'),
  crv: z.literal('Ed25519'),
  kid: z.string().min(1),
  service: z.string().min(1).optional(),
  x: publicPart,
};
/** `service` defaults to the key id. */
const withService = <T extends { kid: string; service?: string | undefined }>(key: T) => ({
  ...key,
  service: key.service ?? key.kid,
});
const privateKeySchema = z.object({ ...members, d: z.string() }).transform(withService);
const publicKeySchema = z.object({ ...members, exp: z.number().optional() }).transform(withService);
const keySetSchema = z
  .object({ keys: z.array(publicKeySchema).min(1) })
  .refine(({ keys }) => new Set(keys.map(({ kid }) => kid)).size === keys.length)
  .transform(({ keys }) => keys);

const parsePrivateKey = (text: string) => parsed(privateKeySchema, text);
const parsePublicKeys = (text: string) => parsed(keySetSchema, text);

/** A setting: a private key, or the path of a file with one. */
export function privateKey() {
  return keySource<PrivateKey>(
    parsePrivateKey,
    'must be a private Ed25519 key as a JWK with a kid, and none that is printed somewhere, or the path of a file with one',
  );
}

/** A setting: the public keys of all services, or the path of a file with them. */
export function publicKeys() {
  return keySource<PublicKey[]>(
    parsePublicKeys,
    'must be a JWK set of public Ed25519 keys, each with a kid of its own, and none that is printed somewhere, or the path of a file with one',
  );
}

function keySource<T>(parse: (text: string) => T | undefined, problem: string) {
  return z.string().transform((text, context): KeySource<T> => {
    const file = path.isAbsolute(text) || /^\.\.?[/\\]/.test(text) ? path.resolve(text) : undefined;
    const value = parse(file === undefined ? text : (readText(file) ?? ''));
    if (value !== undefined) return { value, file };
    context.addIssue(problem);
    return z.NEVER;
  });
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function parsed<T>(schema: z.ZodType<T>, text: string): T | undefined {
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** The keys in use now. */
export interface KeyRing {
  readonly signing: PrivateKey;
  /** The keys that signatures are verified with. */
  readonly trusted: readonly PublicKey[];
  /**
   * Makes sure that the files were checked for changes at most 2 s ago, or with `now` after this call. Undefined if there is nothing to
   * wait for. Never fails: while a file can't be used, its last usable content counts.
   */
  freshen(now?: 'now'): Promise<void> | undefined;
}

/**
 * A file is checked again after `recheckMs`; callers wait for the check if the last one is older than `staleMs`, for `maxWaitMs` at most.
 */
const ages = { recheckMs: 1_000, staleMs: 2_000, maxWaitMs: 1_000 };

/** @param onChange is called when the keys in use change */
export function openKeyRing(
  sources: { signing: KeySource<PrivateKey>; trusted: KeySource<PublicKey[]> },
  { log, onChange }: { log: Logger | undefined; onChange: () => void },
): KeyRing {
  let signing = sources.signing.value;
  let trusted = sources.trusted.value;
  const { service } = signing;
  const followed = [
    follow('IDENTITY_KEY', sources.signing.file, log, (text) => {
      const found = parsePrivateKey(text);
      return found?.service === service ? found : undefined;
    }),
    follow('TRUSTED_KEYS', sources.trusted.file, log, parsePublicKeys),
  ] as const;
  const isWatched = sources.signing.file !== undefined || sources.trusted.file !== undefined;
  let lookedAt = Date.now();
  let looking: Promise<void> | undefined;
  /** A new private key that TRUSTED_KEYS does not have yet. */
  let waiting: PrivateKey | undefined;
  let warnedKid: string | undefined;

  async function look(): Promise<void> {
    const [newSigning, newTrusted] = await Promise.all([followed[0](), followed[1]()]);
    lookedAt = Date.now();
    if (newSigning !== undefined) waiting = isDeepStrictEqual(newSigning, signing) ? undefined : newSigning;
    const next = waiting;
    let isChanged = false;
    if (newTrusted !== undefined && !isDeepStrictEqual(newTrusted, trusted)) {
      trusted = newTrusted;
      isChanged = true;
    }
    // Other services would refuse signatures by a key that is not among the trusted ones.
    if (next !== undefined && trusted.some(({ kid, x }) => kid === next.kid && x === next.x)) {
      signing = next;
      waiting = undefined;
      isChanged = true;
      log?.info({ kid: signing.kid }, 'signs with a new key');
    } else if (next !== undefined) {
      if (warnedKid !== next.kid)
        log?.warn({ kid: next.kid }, 'The new private key is not in TRUSTED_KEYS: the old one is still used');
      warnedKid = next.kid;
    }
    if (isChanged) onChange();
  }

  return {
    get signing() {
      return signing;
    },
    get trusted() {
      return trusted;
    },
    freshen(now) {
      if (!isWatched) return undefined;
      const age = Date.now() - lookedAt;
      if (now === undefined && age < ages.recheckMs) return undefined;
      // A check that is under way may have read the file before the change.
      if (now === 'now') return settled(looking?.then(start) ?? start());
      const started = start();
      return age >= ages.staleMs ? settled(started) : undefined;
    },
  };

  function start(): Promise<void> {
    return (looking ??= look().finally(() => (looking = undefined)));
  }
}

async function settled(looking: Promise<void>): Promise<void> {
  await within(ages.maxWaitMs, looking, () => new Error('too late')).catch(() => {});
}

/**
 * Makes a function that reads a file if it has changed since it was last read. It returns undefined if the file hasn't changed or can't be
 * used, which is logged once.
 */
function follow<T>(
  setting: string,
  file: string | undefined,
  log: Logger | undefined,
  parse: (text: string) => T | undefined,
): () => Promise<T | undefined> {
  let seen: string | undefined;
  let isBroken = false;
  const broken = (error?: unknown) => {
    if (!isBroken) log?.error({ file, err: error }, `the file of ${setting} can't be used: the old keys stay`);
    isBroken = true;
    return undefined;
  };
  return async () => {
    if (file === undefined) return undefined;
    try {
      const { ino, size, mtimeNs } = await stat(file, { bigint: true });
      const stamp = `${ino} ${size} ${mtimeNs}`;
      if (stamp === seen) return undefined;
      const value = parse(await readFile(file, 'utf8'));
      // The stamp was taken before the text was read: if the file changes in between, it is read again.
      seen = stamp;
      if (value === undefined) return broken();
      if (isBroken) log?.info({ file }, `the file of ${setting} can be used again`);
      isBroken = false;
      return value;
    } catch (error) {
      seen = undefined;
      return broken(error);
    }
  };
}
