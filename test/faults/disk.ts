import { execFile, spawnSync } from 'node:child_process';
import { mkdir, statfs } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A file system of its own, in memory, that can be made full. */
export interface Disk {
  /** From now on nothing more fits, until `free`. */
  fill(): Promise<void>;
  free(): Promise<void>;
  unmount(): Promise<void>;
}

/** Milliseconds. */
const commandLimit = 10_000;
const fillLimit = 5_000;

/** Whether this process may mount a file system. */
export function mayMount(): boolean {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false;
  return (
    spawnSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { timeout: commandLimit }).status === 0
  );
}

/** Mounts a disk of so many MiB on a folder, which is made if it is missing. */
export async function mountDisk(folder: string, mebibytes: number): Promise<Disk> {
  await mkdir(folder, { recursive: true });
  const size = mebibytes * 2 ** 20;
  await command('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=755`, 'tmpfs', folder]);
  const resize = (bytes: number) => command('mount', ['-o', `remount,size=${bytes}`, folder]);
  return {
    async fill() {
      // What is written meanwhile makes the size that was just read too small, and the kernel refuses it.
      for (const giveUp = Date.now() + fillLimit; ;) {
        const { blocks, bfree, bsize } = await statfs(folder);
        try {
          return await resize((blocks - bfree) * bsize);
        } catch (error) {
          if (Date.now() > giveUp) throw error;
        }
      }
    },
    free: () => resize(size),
    // Lazily: somebody may still have a file open that is about to end.
    unmount: () => command('umount', ['--lazy', folder]),
  };
}

async function command(program: string, args: string[]): Promise<void> {
  await run(program, args, { timeout: commandLimit });
}
