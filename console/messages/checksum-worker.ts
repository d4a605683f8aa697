import { checksumOf } from '#client';
import type { Hashed } from './checksums.ts';

/** A script of its own (dev/console.ts), which the browser runs beside the page: hashing a large file takes seconds. */

function answer(hashed: Hashed): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker answers its page: there is no other target
  postMessage(hashed);
}

addEventListener('message', ({ data }: MessageEvent<Blob>) => {
  checksumOf(data).then(
    (checksum) => answer({ checksum }),
    (error: unknown) => answer({ error }),
  );
});
