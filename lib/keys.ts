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
  /** Names the key. */
  kid: string;
  /** Whose key it is. */
  service: string;
  /** The public part. */
  x: string;
  /** The private part. */
  d: string;
}

/** A public key that is trusted, as a JWK. */
export interface PublicKey extends Omit<PrivateKey, 'd'> {
  /** From then on it is trusted no more, in seconds since the epoch. */
  exp?: number | undefined;
}

/** What a setting holds, or the file that it names: that is read again when it changes. */
export interface KeySource<T> {
  value: T;
  /** Path of the file, where there is one. */
  file: string | undefined;
}

/** Of a key pair. The one that RFC 8037 prints (appendix A.2) is everybody's. */
const publicPart = z.string().refine((x) => x !== '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo');
const members = {
  kty: z.literal('OKP'),
  crv: z.literal('Ed25519'),
  kid: z.string().min(1),
  service: z.string().min(1).optional(),
  x: publicPart,
};
/** Where there is no `service`, the key is called as its service is. */
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

/** A setting that holds a private key, or names a file with one. */
export function privateKey() {
  return keySource<PrivateKey>(
    parsePrivateKey,
    'must be a private Ed25519 key as a JWK with a kid, and none that is printed somewhere, or the path of a file with one',
  );
}

/** A setting that holds the public keys of all services, or names a file with them. */
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

/** The keys that count at present. */
export interface KeyRing {
  /** What this service signs with. */
  readonly signing: PrivateKey;
  /** What signatures are checked with. */
  readonly trusted: readonly PublicKey[];
  /**
   * Sees to it that the files were looked at lately: at most 2 s ago, or after this was called. Undefined if there is nothing to wait
   * for. Doesn't fail: while a file can't be used, what was in it before counts.
   */
  freshen(now?: 'now'): Promise<void> | undefined;
}

/** Milliseconds after which a file is looked at again, those after which that is waited for, and the longest wait. */
const ages = { old: 1_000, tooOld: 2_000, wait: 1_000 };

/** @param onChange is called when other keys count than before */
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
  /** A new key of our own that is not trusted yet. */
  let waiting: PrivateKey | undefined;
  let told: string | undefined;

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
    // Nobody would believe what another key signs.
    if (next !== undefined && trusted.some(({ kid, x }) => kid === next.kid && x === next.x)) {
      signing = next;
      waiting = undefined;
      isChanged = true;
      log?.info({ kid: signing.kid }, 'signs with a new key');
    } else if (next !== undefined) {
      if (told !== next.kid) log?.warn({ kid: next.kid }, 'TRUSTED_KEYS has no new key of ours: the old one signs on');
      told = next.kid;
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
      if (now === undefined && age < ages.old) return undefined;
      // One that is under way may have looked already.
      if (now === 'now') return settled(looking?.then(start) ?? start());
      const started = start();
      return age >= ages.tooOld ? settled(started) : undefined;
    },
  };

  function start(): Promise<void> {
    return (looking ??= look().finally(() => (looking = undefined)));
  }
}

async function settled(looking: Promise<void>): Promise<void> {
  await within(ages.wait, looking, () => new Error('too late')).catch(() => {});
}

/** Makes what reads a file that has changed since it was read last: undefined if it hasn't, or can't be used. That is logged once. */
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
      // Of what changes while it is read, the stamp is older than the text: it is read once more then.
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
