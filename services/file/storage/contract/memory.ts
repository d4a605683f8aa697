import { createHash } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import v8 from 'node:v8';
import vm from 'node:vm';
import type { TestFn } from 'ava';
import type { Bytes } from '../storage.ts';

import { begin, never, open, stored, mebibyte, type Engine } from './fixtures.ts';

v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc') as () => void;

/** That no content is held in memory, whatever the store. They measure memory, so they run alone, before the others. */
export function memoryContract(test: TestFn, engine: Engine, prefix: string): void {
  test.serial(`${prefix}a part of 64 MiB is never held whole, neither written nor read`, async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const [size, most] = [64 * mebibyte, 12 * mebibyte];
    const watch = memoryWatch();
    const written = createHash('sha256');
    async function* source(): Bytes {
      const piece = Buffer.alloc(mebibyte);
      for (let sent = 0; sent < size; sent += mebibyte) {
        piece.fill(sent / mebibyte + 1);
        written.update(piece);
        watch.look();
        yield piece;
      }
    }
    await storage.writePart(upload, 0, size, source(), never);
    t.true(watch.peak() < most, `${watch.peak()} bytes were held while it was written`);
    await storage.assemble(upload, 1);

    const read = createHash('sha256');
    const reading = memoryWatch();
    let unseen = 0;
    for await (const piece of storage.read(upload.key, { start: 0, end: size }, never)) {
      read.update(piece);
      unseen += piece.byteLength;
      if (unseen < mebibyte) continue;
      unseen = 0;
      reading.look();
    }
    t.true(reading.peak() < most, `${reading.peak()} bytes were held while it was read`);
    t.is(read.digest('hex'), written.digest('hex'));
  });

  test.serial(`${prefix}read: little is held for a reader that takes its time`, async (t) => {
    const storage = await open(t, engine);
    const size = 48 * mebibyte;
    const key = await stored(t, storage, [Buffer.alloc(size, 'x')]);
    const watch = memoryWatch();
    let pieces = 0;
    for await (const _ of storage.read(key, { start: 0, end: size }, never)) {
      if (++pieces === 3) {
        await wait(500);
        watch.look();
        break;
      }
    }
    t.true(watch.peak() < 8 * mebibyte, `${watch.peak()} bytes were held`);
  });
}

/** How much more memory buffers take than now, at most, whenever one has looked. */
function memoryWatch(): { look(): void; peak(): number } {
  const held = () => {
    collectGarbage();
    const { arrayBuffers, external } = process.memoryUsage();
    return Math.max(arrayBuffers, external);
  };
  const before = held();
  let peak = 0;
  return {
    look() {
      peak = Math.max(peak, held() - before);
    },
    peak: () => peak,
  };
}
