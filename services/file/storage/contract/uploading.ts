import { randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { Bytes } from '../storage.ts';
import {
  begin,
  inPieces,
  never,
  open,
  readAll,
  someParts,
  write,
  mebibyte,
  type Check,
  type Engine,
} from './fixtures.ts';

/** What `open`, `writePart` and `parts` do in every store. */
export function uploadingContract(check: Check, engine: Engine): void {
  check('an upload without parts has none; one that was never opened is not there', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    t.deepEqual(await storage.parts(upload), []);
    t.is(await storage.size(upload.key), undefined);
    t.is(await storage.parts({ ...upload, key: randomUUID() }), undefined);
  });

  check('parts that were written in any order and at once make one object, for every process', async (t) => {
    const [one, two] = [await open(t, engine), await open(t, engine)];
    const upload = await begin(t, one);
    const contents = someParts(one, 4);
    await Promise.all([2, 0, 3, 1].map((number) => write(number % 2 ? one : two, upload, number, contents[number]!)));
    await one.assemble(upload, 4);
    const whole = Buffer.concat(contents);
    t.is(await two.size(upload.key), whole.byteLength);
    t.true((await readAll(two, upload.key, 0, whole.byteLength)).equals(whole));
    t.is(await two.parts(upload), undefined);
  });

  check('parts: number, size and time of each, in order', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const begun = Date.now();
    // More than nine, so that an order by text would be wrong.
    const numbers = [10, 2, 0];
    const contents = someParts(storage, 3);
    for (const [index, number] of numbers.entries()) await write(storage, upload, number, contents[index]!);
    const parts = (await storage.parts(upload))!;
    t.deepEqual(
      parts.map(({ number, size }) => [number, size]),
      [
        [0, contents[2]!.byteLength],
        [2, contents[1]!.byteLength],
        [10, contents[0]!.byteLength],
      ],
    );
    // Some stores give times in seconds.
    t.true(parts.every(({ storedAt }) => +storedAt > begun - 2_000 && +storedAt < Date.now() + 2_000));
  });

  check('writePart: a part that is written again is replaced', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const [first, last, other] = [...someParts(storage, 2), randomBytes(storage.minPartBytes + 1)];
    await write(storage, upload, 0, first!);
    await write(storage, upload, 1, last!);
    await write(storage, upload, 0, other!);
    t.deepEqual(
      (await storage.parts(upload))!.map(({ size }) => size),
      [other!.byteLength, last!.byteLength],
    );
    await storage.assemble(upload, 2);
    const whole = Buffer.concat([other!, last!]);
    t.true((await readAll(storage, upload.key, 0, whole.byteLength)).equals(whole));
  });

  check('writePart: of one part written twice at once, one is there, whole', async (t) => {
    const [one, two] = [await open(t, engine), await open(t, engine)];
    const upload = await begin(t, one);
    const contents = [1, 2].map((byte) => Buffer.alloc(one.minPartBytes + 4_000_000, byte));
    await Promise.all([write(one, upload, 0, contents[0]!), write(two, upload, 0, contents[1]!)]);
    await one.assemble(upload, 1);
    const whole = await readAll(two, upload.key, 0, contents[0]!.byteLength);
    t.true(contents.some((content) => content.equals(whole)));
  });

  check('writePart: if the bytes throw, early or at the very end, nothing has changed', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const [kept, other] = [someParts(storage, 1)[0]!, randomBytes(storage.minPartBytes + 500_000)];
    const reason = new Error('the client is gone');
    async function* failing(after: number): Bytes {
      yield* inPieces(other.subarray(0, after));
      throw reason;
    }
    const before = await engine.remains(upload.key);
    const cases = [0, 1, 300_000, other.byteLength - 1, other.byteLength];
    for (const after of cases) {
      t.is(await t.throwsAsync(storage.writePart(upload, 0, other.byteLength, failing(after), never)), reason);
      t.deepEqual(await storage.parts(upload), []);
      t.deepEqual(await engine.remains(upload.key), before);
    }
    await write(storage, upload, 0, kept);
    for (const after of cases) {
      t.is(await t.throwsAsync(storage.writePart(upload, 0, other.byteLength, failing(after), never)), reason);
    }
    await storage.assemble(upload, 1);
    t.true((await readAll(storage, upload.key, 0, kept.byteLength)).equals(kept));
  });

  check('writePart: more or fewer bytes than were announced are not stored', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const content = randomBytes(storage.minPartBytes + 100);
    for (const size of [content.byteLength - 1, content.byteLength + 1, 0]) {
      await t.throwsAsync(storage.writePart(upload, 0, size, inPieces(content), never), { instanceOf: RangeError });
    }
    t.deepEqual(await storage.parts(upload), []);
  });

  check('writePart: the signal ends it, also while it waits for bytes, and nothing has changed', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const [kept, other] = [someParts(storage, 1)[0]!, randomBytes(storage.minPartBytes + 500_000)];
    await write(storage, upload, 0, kept);
    const before = await engine.remains(upload.key);
    for (const after of [0, 300_000, other.byteLength]) {
      const stop = new AbortController();
      const reason = new Error(`stopped after ${after}`);
      async function* hanging(): Bytes {
        yield* inPieces(other.subarray(0, after));
        setTimeout(() => stop.abort(reason), 50);
        await new Promise(() => {});
      }
      t.is(await t.throwsAsync(storage.writePart(upload, 0, other.byteLength, hanging(), stop.signal)), reason);
      t.is(await t.throwsAsync(storage.writePart(upload, 0, other.byteLength, inPieces(other), stop.signal)), reason);
    }
    t.deepEqual(await engine.remains(upload.key), before);
    await storage.assemble(upload, 1);
    t.true((await readAll(storage, upload.key, 0, kept.byteLength)).equals(kept));
  });

  check('writePart: a source that is slow is waited for', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const content = randomBytes(storage.minPartBytes + 10);
    async function* slow(): Bytes {
      for (let start = 0; start < content.byteLength; start += mebibyte) {
        await wait(100);
        yield content.subarray(start, start + mebibyte);
      }
      await wait(100);
    }
    await storage.writePart(upload, 0, content.byteLength, slow(), never);
    await storage.assemble(upload, 1);
    t.true((await readAll(storage, upload.key, 0, content.byteLength)).equals(content));
  });
}
