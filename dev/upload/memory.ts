import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';

/** Which file of which user on which hub. */
export interface UploadKey {
  hub: string;
  username: string;
  /** Absolute. */
  path: string;
}

/** An upload that was begun. */
export interface Upload extends UploadKey {
  /** What the file was like then: its size in bytes, and when it was changed. */
  size: number;
  mtime: string;
  /** SHA-256 in hex. */
  checksum: string;
  fileId: string;
  /** The ids of its messages, by conversation and channels. */
  messages: Record<string, string>;
  /** Milliseconds since 1970. */
  begunAt: number;
}

/** What was begun is remembered in a file, so that it can go on after a crash. There are no secrets in it. */
export interface Memory {
  find(key: UploadKey): Promise<Upload | undefined>;
  /** Keeps one, in place of that with the same key. */
  keep(upload: Upload): Promise<void>;
  forget(key: UploadKey): Promise<void>;
}

/** Nothing is resumed after so many milliseconds. */
const lifetime = 30 * 24 * 3_600_000;

/** @param folder made if it is missing; $XDG_STATE_HOME/chat4all by default */
export function openMemory(folder = defaultFolder()): Memory {
  const file = path.join(folder, 'uploads.json');

  async function all(): Promise<Upload[]> {
    try {
      const { uploads } = JSON.parse(await readFile(file, 'utf8')) as { uploads: Upload[] };
      return uploads.filter(({ begunAt }) => begunAt > Date.now() - lifetime);
    } catch (error) {
      // Whatever is wrong with it: at worst an upload begins anew.
      if (error instanceof SyntaxError || error instanceof TypeError) return [];
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  }

  async function write(uploads: Upload[]): Promise<void> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const unfinished = `${file}.${process.pid}`;
    try {
      await writeFile(unfinished, `${JSON.stringify({ uploads }, undefined, 2)}\n`, { mode: 0o600, flush: true });
      await rename(unfinished, file);
    } finally {
      await rm(unfinished, { force: true });
    }
  }

  const others = async (key: UploadKey) => (await all()).filter((upload) => !isOf(upload, key));
  return {
    find: async (key) => (await all()).find((upload) => isOf(upload, key)),
    keep: async (upload) => write([...(await others(upload)), upload]),
    forget: async (key) => write(await others(key)),
  };
}

function defaultFolder(): string {
  return path.join(process.env.XDG_STATE_HOME || path.join(homedir(), '.local/state'), 'chat4all');
}

function isOf(upload: Upload, key: UploadKey): boolean {
  return upload.hub === key.hub && upload.username === key.username && upload.path === key.path;
}
