import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';

/** What `npm run upload` remembers, in a file: short texts by their keys, as `localStorage` has them. There are no secrets in it. */
export interface Memory {
  getItem(key: string): Promise<string | null>;
  setItem(key: string, value: string): Promise<void>;
  removeItem(key: string): Promise<void>;
}

interface Item {
  value: string;
  /** Milliseconds since 1970. */
  at: number;
}

/** Nothing is remembered after so many milliseconds. */
const lifetime = 30 * 24 * 3_600_000;

/** @param folder made if it is missing; $XDG_STATE_HOME/chat4all by default */
export function openMemory(folder = defaultFolder()): Memory {
  const file = path.join(folder, 'uploads.json');

  async function all(): Promise<Map<string, Item>> {
    try {
      const { items } = JSON.parse(await readFile(file, 'utf8')) as { items: Record<string, Item> };
      return new Map(Object.entries(items).filter(([, { at }]) => at > Date.now() - lifetime));
    } catch (error) {
      // Whatever is wrong with it: at worst an upload begins anew.
      if (error instanceof SyntaxError || error instanceof TypeError) return new Map();
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Map();
      throw error;
    }
  }

  /** Written whole under another name first: a crash leaves the old one or the new one. */
  async function write(items: Map<string, Item>): Promise<void> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const unfinished = `${file}.${process.pid}`;
    try {
      const text = `${JSON.stringify({ items: Object.fromEntries(items) }, undefined, 2)}\n`;
      await writeFile(unfinished, text, { mode: 0o600, flush: true });
      await rename(unfinished, file);
    } finally {
      await rm(unfinished, { force: true });
    }
  }

  return {
    getItem: async (key) => (await all()).get(key)?.value ?? null,
    setItem: async (key, value) => write((await all()).set(key, { value, at: Date.now() })),
    async removeItem(key) {
      const items = await all();
      if (items.delete(key)) await write(items);
    },
  };
}

function defaultFolder(): string {
  return path.join(process.env.XDG_STATE_HOME || path.join(homedir(), '.local/state'), 'chat4all');
}
