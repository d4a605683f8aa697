import { chmod, chown, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { generateKeys } from '#lib/identity.ts';

/**
 * A folder of keys: for each service a folder that it alone is given, with `identity-key.json` and `trusted-keys.json`, for
 * IDENTITY_KEY and TRUSTED_KEYS. Each process reads them again when they change.
 */

const identityFile = 'identity-key.json';
const trustedFile = 'trusted-keys.json';

const keySchema = z.looseObject({ kid: z.string(), service: z.string().optional(), exp: z.number().optional() });
const keySetSchema = z.object({ keys: z.array(keySchema) });
type PublicKey = z.output<typeof keySchema>;

/**
 * Makes a folder with a new key for each service.
 *
 * @throws Error if there is one of them already
 */
export async function makeKeyFolder(folder: string, services: readonly string[]): Promise<void> {
  const { privateKeys, trusted } = await generateKeys(services);
  for (const service of services) {
    await mkdir(path.join(folder, service), { recursive: true });
    await writeFile(path.join(folder, service, identityFile), privateKeys[service]!, { mode: 0o600, flag: 'wx' });
    await writeFile(path.join(folder, service, trustedFile), trusted, { mode: 0o644, flag: 'wx' });
  }
}

export interface RotationOptions {
  /** Milliseconds that the old keys are believed after they were replaced: as long as any token lives that they signed. */
  trustFor: number;
  /** Milliseconds until each process has read a file that has changed. */
  settle: number;
}

/**
 * Gives services new keys, so that no call fails: at first everybody gets to know the new ones, then they sign, and the old ones are
 * believed for a while. Whatever it is interrupted at, it may be done again.
 *
 * @param all the services that have folders
 * @param rotated those that get new keys
 * @throws Error if a file is missing, or is none of ours; nothing has changed then
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

/** Replaces a file at once, for readers: with the same owner and mode. */
async function replace(file: string, text: string): Promise<void> {
  const { uid, gid, mode } = await stat(file);
  const next = `${file}.new`;
  await writeFile(next, text, { mode: 0o600 });
  await chmod(next, mode & 0o777);
  // Whoever is not root makes files of their own anyway.
  if (process.getuid?.() === 0) await chown(next, uid, gid);
  await rename(next, file);
}
