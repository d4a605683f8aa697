import { chmod, chown, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { generateKeys } from '#lib/identity.ts';

/**
 * A folder of keys: it has a folder for each service, mounted into that service only, with `identity-key.json` and `trusted-keys.json` for
 * IDENTITY_KEY and TRUSTED_KEYS. Processes reload them when they change.
 */

const identityFile = 'identity-key.json';
const trustedFile = 'trusted-keys.json';

const keySchema = z.looseObject({ kid: z.string(), service: z.string().optional(), exp: z.number().optional() });
const keySetSchema = z.object({ keys: z.array(keySchema) });
type PublicKey = z.output<typeof keySchema>;

/** Creates a folder with a key for each service, or adds the missing ones. */
export async function makeKeyFolder(folder: string, services: readonly string[]): Promise<void> {
  const fileOf = (service: string, name: string) => path.join(folder, service, name);
  const isThere = await Promise.all(services.map((service) => exists(fileOf(service, identityFile))));
  const there = services.filter((_, index) => isThere[index]);
  const missing = services.filter((_, index) => !isThere[index]);
  if (missing.length === 0) return;
  const { privateKeys, trusted } = await generateKeys(missing);
  const known = there.length === 0 ? '{"keys":[]}' : await readFile(fileOf(there[0]!, trustedFile), 'utf8');
  const all = withKeys(known, trusted);
  for (const service of there) await replace(fileOf(service, trustedFile), all);
  for (const service of missing) {
    await mkdir(path.join(folder, service), { recursive: true });
    await writeFile(fileOf(service, trustedFile), all, { mode: 0o644 });
    await writeFile(fileOf(service, identityFile), privateKeys[service]!, { mode: 0o600, flag: 'wx' });
  }
}

/** The JWK sets `known` and `added` together, as JSON. */
export function withKeys(known: string, added: string): string {
  const keysIn = (text: string) => keySetSchema.parse(JSON.parse(text)).keys;
  return JSON.stringify({ keys: [...keysIn(known), ...keysIn(added)] });
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

export interface RotationOptions {
  /** How long the old keys are trusted after their replacement, in milliseconds: as long as the tokens that they signed are valid. */
  trustFor: number;
  /** How long to wait until every process has read a changed file, in milliseconds. */
  settle: number;
}

/**
 * Replaces the keys of services without a failing call: first all services trust the new keys, then these are used to sign, and the old
 * ones stay trusted for a while. May be repeated after an interruption at any point.
 *
 * @param all the services that have folders
 * @param rotated those that get new keys
 * @throws Error if a file is missing or invalid; then nothing has changed
 */
export async function rotateKeys(
  folder: string,
  all: readonly string[],
  rotated: readonly string[],
  { trustFor, settle }: RotationOptions,
): Promise<void> {
  const trustedFiles = all.map((service) => path.join(folder, service, trustedFile));
  const sets = await Promise.all(trustedFiles.map(async (file) => keySetSchema.parse(await readJson(file)).keys));
  for (const service of rotated) keySchema.parse(await readJson(path.join(folder, service, identityFile)));
  const isOver = ({ exp = Infinity }: PublicKey) => exp * 1_000 <= Date.now();
  const known = new Map(sets.flat().map((key) => [key.kid, key]));
  const kept = [...known.values()].filter((key) => !isOver(key));

  const { privateKeys, trusted } = await generateKeys(rotated);
  const added = keySetSchema.parse(JSON.parse(trusted)).keys;
  const trust = async (keys: readonly PublicKey[]) => {
    for (const file of trustedFiles) await replace(file, JSON.stringify({ keys }));
  };

  await trust([...kept, ...added]);
  await sleep(settle);
  for (const service of rotated) await replace(path.join(folder, service, identityFile), privateKeys[service]!);
  await sleep(settle);
  const exp = Math.ceil((Date.now() + trustFor) / 1_000);
  const old = (key: PublicKey) =>
    rotated.includes(key.service ?? key.kid) ? { ...key, exp: Math.min(exp, key.exp ?? Infinity) } : key;
  await trust([...kept.map(old), ...added]);
}

async function readJson(file: string): Promise<unknown> {
  return JSON.parse(await readFile(file, 'utf8'));
}

/** Replaces a file atomically, with the same owner and mode. */
async function replace(file: string, text: string): Promise<void> {
  const { uid, gid, mode } = await stat(file);
  const next = `${file}.new`;
  await writeFile(next, text, { mode: 0o600 });
  await chmod(next, mode & 0o777);
  // Only root can change the owner; for others it is the same.
  if (process.getuid?.() === 0) await chown(next, uid, gid);
  await rename(next, file);
}
