import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { generateKeys } from '#lib/identity.ts';

const run = promisify(execFile);

/** A folder that one hub at a time keeps its data in. */
export interface DataFolder {
  /** Whether the previous hub didn't release the folder: its processes may still be ending. */
  abandoned: boolean;
  release(): Promise<void>;
}

const claim = z.object({ pid: z.number(), identity: z.string() });

/**
 * Takes the folder for this process, making it if it is missing.
 *
 * @throws Error if another process that still runs has it
 */
export async function claimFolder(folder: string): Promise<DataFolder> {
  await mkdir(folder, { recursive: true });
  const file = path.join(folder, 'hub.json');
  const mine = JSON.stringify({ pid: process.pid, identity: await processIdentity(process.pid) });
  let abandoned = false;
  for (;;) {
    try {
      await writeFile(file, mine, { flag: 'wx' });
      return { abandoned, release: () => rm(file, { force: true }) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const holder = claim.safeParse(await readJson(file)).data;
    if (holder !== undefined && (await processIdentity(holder.pid)) === holder.identity) {
      throw new Error(
        `Another hub (process ${holder.pid}) uses the data in ${folder}. Stop it first, or set DATA_DIR to another folder.`,
      );
    }
    abandoned = true;
    await rm(file, { force: true });
  }
}

/** Distinguishes a process from a later one with the same pid; undefined if there is none. */
async function processIdentity(pid: number): Promise<string | undefined> {
  try {
    if (process.platform === 'linux') {
      const [boot, status] = await Promise.all([
        readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
        readFile(`/proc/${pid}/stat`, 'utf8'),
      ]);
      // The name in the second field may contain anything; the start is the 20th field behind it (proc(5)).
      const fields = status.slice(status.lastIndexOf(')') + 2).split(' ');
      return fields[0] === 'Z' ? undefined : `${boot.trim()} ${fields[19]}`;
    }
    if (process.platform === 'win32') {
      process.kill(pid, 0);
      return 'running';
    }
    return (await run('ps', ['-o', 'lstart=', '-p', String(pid)])).stdout.trim();
  } catch {
    return undefined;
  }
}

const secretsSchema = z.object({
  databasePasswords: z.record(z.string(), z.string()),
  privateKeys: z.record(z.string(), z.string()),
  publicKeys: z.array(z.unknown()),
  uploadUrlKey: z.string().optional(),
});

/** The secrets of a hub's processes. */
export interface Secrets {
  /** By the name of the service, and of the bus. */
  databasePasswords: Record<string, string>;
  /** Private JWKs as JSON, by service. */
  privateKeys: Record<string, string>;
  /** The JWK set of the public ones, as JSON. */
  trustedKeys: string;
  /** What URLs to put a chunk to are signed with. */
  uploadUrlKey: string;
}

/** Reads the folder's secrets and makes those that are missing for these names. Only the owner of the file can read it. */
export async function openSecrets(folder: string, names: readonly string[]): Promise<Secrets> {
  const file = path.join(folder, 'secrets.json');
  const found = await readJson(file);
  const secrets: z.output<typeof secretsSchema> =
    found === undefined ? { databasePasswords: {}, privateKeys: {}, publicKeys: [] } : secretsSchema.parse(found);
  const isComplete = secrets.uploadUrlKey !== undefined;
  const uploadUrlKey = (secrets.uploadUrlKey ??= randomBytes(24).toString('base64url'));

  const missing = names.filter((name) => secrets.privateKeys[name] === undefined);
  if (missing.length > 0 || !isComplete) {
    const { privateKeys, trusted } = await generateKeys(missing);
    Object.assign(secrets.privateKeys, privateKeys);
    secrets.publicKeys.push(...(JSON.parse(trusted) as { keys: unknown[] }).keys);
    for (const name of missing) secrets.databasePasswords[name] ??= randomBytes(24).toString('base64url');
    const unfinished = `${file}.new`;
    await rm(unfinished, { force: true });
    await writeFile(unfinished, JSON.stringify(secrets, undefined, 2), { mode: 0o600 });
    await rename(unfinished, file);
  }
  return {
    databasePasswords: secrets.databasePasswords,
    privateKeys: secrets.privateKeys,
    trustedKeys: JSON.stringify({ keys: secrets.publicKeys }),
    uploadUrlKey,
  };
}

/** @returns undefined if there is no such file, or it isn't JSON */
async function readJson(file: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
