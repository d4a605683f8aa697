import { execFile, spawnSync } from 'node:child_process';
import { mkdir, open, rm, statfs } from 'node:fs/promises';
import path from 'node:path';
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
const blockSize = 4_096;
const smallestRoom = 64 * 1024;
const largestRoom = 256 * 2 ** 20;

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
  const ballast = path.join(folder, 'ballast');
  const resize = (bytes: number) => command('mount', ['-o', `remount,size=${bytes}`, folder]);
  return {
    async fill() {
      // What is written meanwhile makes the size that was just read too small, and the kernel refuses it: a little more
      // each time, and what is left then is filled up.
      for (let room = smallestRoom; ; room *= 2) {
        const { blocks, bfree, bsize } = await statfs(folder);
        try {
          await resize((blocks - bfree) * bsize + room);
          break;
        } catch (error) {
          if (room > largestRoom) throw error;
        }
      }
      await fillUp(ballast);
    },
    async free() {
      await resize(size);
      await rm(ballast, { force: true });
    },
    // Lazily: somebody may still have a file open that is about to end.
    unmount: () => command('umount', ['--lazy', folder]),
  };
}

/** Writes zeros until no more fit. */
async function fillUp(file: string): Promise<void> {
  await using handle = await open(file, 'a');
  const zeros = Buffer.alloc(blockSize);
  for (;;) {
    try {
      if ((await handle.write(zeros)).bytesWritten === 0) return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return;
      throw error;
    }
  }
}

async function command(program: string, args: string[]): Promise<void> {
  await run(program, args, { timeout: commandLimit });
}
