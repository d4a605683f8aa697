import { randomUUID } from 'node:crypto';
import { HubError } from '#lib/errors.ts';
import { begin, never, open, readAll, someParts, stored, type Check, type Engine } from './fixtures.ts';

/** What `read` does in every store. */
export function readingContract(check: Check, engine: Engine): void {
  check('read: any range, within a part and across their borders', async (t) => {
    const storage = await open(t, engine);
    const contents = someParts(storage, 3);
    const key = await stored(t, storage, contents);
    const whole = Buffer.concat(contents);
    const [first, second] = [contents[0]!.byteLength, contents[0]!.byteLength + contents[1]!.byteLength];
    const ranges = [
      [0, 1],
      [0, first],
      [first - 1, first],
      [first, first + 1],
      [first - 1, first + 1],
      [first, second],
      [first - 3, second + 5],
      [second, whole.byteLength],
      [whole.byteLength - 1, whole.byteLength],
      [first + 7, first + 7],
      [whole.byteLength, whole.byteLength],
    ] as const;
    for (const [start, end] of ranges) {
      t.true((await readAll(storage, key, start, end)).equals(whole.subarray(start, end)), `${start} to ${end}`);
    }
  });

  check('read: what is not there, or shorter, is missing', async (t) => {
    const storage = await open(t, engine);
    const contents = someParts(storage, 2);
    const key = await stored(t, storage, contents);
    const size = contents[0]!.byteLength + contents[1]!.byteLength;
    const isMissing = { instanceOf: HubError, message: /not there/ };
    const ranges = [
      [randomUUID(), 0, 1],
      [randomUUID(), 0, 0],
      [key, 0, size + 1],
      [key, size - 1, size + 1],
      [key, size, size + 1],
      [key, size + 1, size + 2],
      [key, size + 1, size + 1],
      [(await begin(t, storage)).key, 0, 1],
    ] as const;
    for (const [key, start, end] of ranges) {
      const error = await t.throwsAsync<HubError>(readAll(storage, key, start, end), isMissing, `${start} to ${end}`);
      t.like(error, { kind: 'NOT_FOUND', reason: 'CONTENT_MISSING' });
    }
  });

  check('read: may be left early, and aborted', async (t) => {
    const storage = await open(t, engine);
    const contents = someParts(storage, 3);
    const key = await stored(t, storage, contents);
    const whole = Buffer.concat(contents);
    const range = { start: 0, end: whole.byteLength };
    // More often than there could be connections.
    for (let round = 0; round < 20; round++) {
      for await (const piece of storage.read(key, range, never)) {
        t.true(whole.subarray(0, piece.byteLength).equals(piece));
        break;
      }
    }
    const stop = new AbortController();
    const reason = new Error('enough');
    const reading = async () => {
      for await (const _ of storage.read(key, range, stop.signal)) stop.abort(reason);
    };
    t.is(await t.throwsAsync(reading), reason);
    t.is(await t.throwsAsync(readAll(storage, key, 0, 1, stop.signal)), reason);
    t.true((await readAll(storage, key, 0, whole.byteLength)).equals(whole));
  });
}
