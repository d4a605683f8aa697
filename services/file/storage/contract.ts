import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import v8 from 'node:v8';
import vm from 'node:vm';
import type { ExecutionContext, TestFn } from 'ava';
import { HubError } from '#lib/errors.ts';
import type { Bytes, OpenUpload, Storage } from './storage.ts';

/** A store that storages are opened on. */
export interface Engine {
  /** Another one each time, as another process would have. */
  open(): Promise<Storage>;
  /** Names of whatever the store really has under a key: objects, uploads, parts, and what it should have cleared away. */
  remains(key: string): Promise<string[]>;
}

const mebibyte = 1024 * 1024;
const never = new AbortController().signal;

v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc') as () => void;

export interface ContractOptions {
  /** Stands before each title. */
  prefix?: string;
  /** Titles of what this store is known not to do: they are left out. */
  without?: readonly string[];
}

/** What every store must do. Each test has keys of its own, so that they may run at once. */
export function storageContract(test: TestFn, engine: Engine, options: ContractOptions = {}): void {
  const { prefix = '', without = [] } = options;
  const check = (title: string, run: (t: ExecutionContext) => Promise<void>) => {
    if (!without.includes(title)) test(`${prefix}${title}`, run);
  };

  // Alone, before the others: they measure memory.
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

  check('ping: a store that is there answers', async (t) => {
    await t.notThrowsAsync((await open(t, engine)).ping());
  });

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

  check('writePart: a part that is written again is replaced', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const [first, last, other] = [...someParts(storage, 2), randomBytes(storage.smallestPart + 1)];
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
    const contents = [1, 2].map((byte) => Buffer.alloc(one.smallestPart + 4_000_000, byte));
    await Promise.all([write(one, upload, 0, contents[0]!), write(two, upload, 0, contents[1]!)]);
    await one.assemble(upload, 1);
    const whole = await readAll(two, upload.key, 0, contents[0]!.byteLength);
    t.true(contents.some((content) => content.equals(whole)));
  });

  check('writePart: if the bytes throw, early or at the very end, nothing has changed', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const [kept, other] = [someParts(storage, 1)[0]!, randomBytes(storage.smallestPart + 500_000)];
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
    const content = randomBytes(storage.smallestPart + 100);
    for (const size of [content.byteLength - 1, content.byteLength + 1, 0]) {
      await t.throwsAsync(storage.writePart(upload, 0, size, inPieces(content), never), { instanceOf: RangeError });
    }
    t.deepEqual(await storage.parts(upload), []);
  });

  check('writePart: the signal ends it, also while it waits for bytes, and nothing has changed', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const [kept, other] = [someParts(storage, 1)[0]!, randomBytes(storage.smallestPart + 500_000)];
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
    const content = randomBytes(storage.smallestPart + 10);
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

  check('assemble: repeated, at once and by another process, it changes nothing', async (t) => {
    const [one, two] = [await open(t, engine), await open(t, engine)];
    const upload = await begin(t, one);
    const contents = someParts(one, 2);
    for (const [number, content] of contents.entries()) await write(one, upload, number, content);
    await Promise.all([one.assemble(upload, 2), two.assemble(upload, 2)]);
    await one.assemble(upload, 2);
    await two.assemble(upload, 2);
    const whole = Buffer.concat(contents);
    t.true((await readAll(one, upload.key, 0, whole.byteLength)).equals(whole));
  });

  check('assemble: takes the parts that it is told to and no others', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const contents = someParts(storage, 3);
    for (const [number, content] of contents.entries()) await write(storage, upload, number, content);
    await storage.assemble(upload, 2);
    t.is(await storage.size(upload.key), contents[0]!.byteLength + contents[1]!.byteLength);
  });

  check('assemble: a part that is not there is a mistake that changes nothing', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const contents = someParts(storage, 2);
    await write(storage, upload, 1, contents[1]!);
    await t.throwsAsync(storage.assemble(upload, 2), { message: /Part 0 .* not there/ });
    await write(storage, upload, 0, contents[0]!);
    await t.throwsAsync(storage.assemble(upload, 3), { message: /Part 2 .* not there/ });
    await storage.assemble(upload, 2);
    t.is(await storage.size(upload.key), contents[0]!.byteLength + contents[1]!.byteLength);
  });

  check('assemble: no parts make an empty object', async (t) => {
    const [one, two] = [await open(t, engine), await open(t, engine)];
    const upload = await begin(t, one);
    await one.assemble(upload, 0);
    await two.assemble(upload, 0);
    t.is(await two.size(upload.key), 0);
    t.is((await readAll(two, upload.key, 0, 0)).byteLength, 0);
    t.is(await one.parts(upload), undefined);
    await t.throwsAsync(readAll(two, upload.key, 0, 1), { message: /not there/ });
    const again = await begin(t, one);
    await Promise.all([one.assemble(again, 0), two.assemble(again, 0)]);
    t.is(await two.size(again.key), 0);
    await isClosed(t, write(one, again, 0, Buffer.from('x')));
  });

  check('an upload that was assembled takes no parts any more, also those on their way', async (t) => {
    const storage = await open(t, engine);
    const upload = await begin(t, storage);
    const [content, other] = [someParts(storage, 1)[0]!, randomBytes(storage.smallestPart + 4_000_000)];
    await write(storage, upload, 0, content);
    await isClosed(
      t,
      writeAround(storage, upload, other, () => storage.assemble(upload, 1)),
    );
    await isClosed(t, write(storage, upload, 0, other));
    await isClosed(t, write(storage, upload, 1, other));
    t.is(await storage.size(upload.key), content.byteLength);
    t.true((await readAll(storage, upload.key, 0, content.byteLength)).equals(content));
  });

  check(
    'an upload that was removed takes no parts any more, also those on their way, and leaves nothing',
    async (t) => {
      const storage = await open(t, engine);
      const upload = await begin(t, storage);
      const [content, other] = [someParts(storage, 1)[0]!, randomBytes(storage.smallestPart + 4_000_000)];
      await write(storage, upload, 0, content);
      await isClosed(
        t,
        writeAround(storage, upload, other, () => storage.remove(upload.key)),
      );
      await isClosed(t, write(storage, upload, 0, other));
      await isClosed(t, storage.assemble(upload, 1));
      await isClosed(t, storage.assemble(upload, 0));
      t.is(await storage.parts(upload), undefined);
      t.is(await storage.size(upload.key), undefined);
      t.deepEqual(await engine.remains(upload.key), []);
    },
  );

  check('remove: an object goes with all that there is of it; repeated, it changes nothing', async (t) => {
    const [one, two] = [await open(t, engine), await open(t, engine)];
    const other = await stored(t, one, someParts(one, 1));
    const key = await stored(t, one, someParts(one, 2));
    t.not((await engine.remains(key)).length, 0);
    await Promise.all([one.remove(key), two.remove(key)]);
    await one.remove(key);
    await one.remove(randomUUID());
    t.is(await two.size(key), undefined);
    t.deepEqual(await engine.remains(key), []);
    t.is(await two.size(other), someSize(one, 0));
  });

  check('remove: takes only what has exactly this key', async (t) => {
    const storage = await open(t, engine);
    const key = randomUUID();
    const longer = { key: `${key}-1`, uploadId: await storage.open(`${key}-1`) };
    t.teardown(() => storage.remove(longer.key));
    const upload = { key, uploadId: await storage.open(key) };
    await storage.remove(key);
    t.is(await storage.parts(upload), undefined);
    t.deepEqual(await storage.parts(longer), []);
  });

  check('a key that is no name is refused everywhere', async (t) => {
    const storage = await open(t, engine);
    for (const key of ['', '.', '..', 'a/b', '../a', 'a\0', 'a.b', 'ä', 'a b', 'a%2Fb', 'a\n', 'x'.repeat(65)]) {
      const upload = { key, uploadId: 'x' };
      const works = [
        () => storage.open(key),
        () => write(storage, upload, 0, Buffer.from('x')),
        () => storage.parts(upload),
        () => storage.assemble(upload, 0),
        () => storage.size(key),
        () => readAll(storage, key, 0, 1),
        () => storage.remove(key),
        ...(storage.partUrl === undefined ? [] : [() => storage.partUrl!(upload, 0, 1, 60)]),
      ];
      for (const work of works) await t.throwsAsync<Error>(work, { instanceOf: TypeError, message: /is no key/ });
    }
  });
}

async function open(t: ExecutionContext, engine: Engine): Promise<Storage> {
  const storage = await engine.open();
  t.teardown(() => storage.close());
  return storage;
}

async function begin(t: ExecutionContext, storage: Storage): Promise<OpenUpload> {
  const key = randomUUID();
  t.teardown(() => storage.remove(key));
  return { key, uploadId: await storage.open(key) };
}

/** Stores an object of these parts. @returns its key */
async function stored(t: ExecutionContext, storage: Storage, contents: readonly Buffer[]): Promise<string> {
  const upload = await begin(t, storage);
  for (const [number, content] of contents.entries()) await write(storage, upload, number, content);
  await storage.assemble(upload, contents.length);
  return upload.key;
}

/** No two are alike, and the last is the smallest. */
function someSize(storage: Storage, index: number): number {
  return storage.smallestPart + 700_001 - index * 100_003;
}

function someParts(storage: Storage, count: number): Buffer[] {
  return Array.from({ length: count }, (_, index) => randomBytes(someSize(storage, index)));
}

async function write(storage: Storage, upload: OpenUpload, number: number, content: Buffer): Promise<void> {
  await storage.writePart(upload, number, content.byteLength, inPieces(content), never);
}

/** Writes part 0, and does something else when it is half written. */
async function writeAround(storage: Storage, upload: OpenUpload, content: Buffer, work: () => Promise<void>) {
  const half = Math.floor(content.byteLength / 2);
  async function* source(): Bytes {
    yield* inPieces(content.subarray(0, half));
    await work();
    yield* inPieces(content.subarray(half));
  }
  await storage.writePart(upload, 0, content.byteLength, source(), never);
}

/** The content in pieces of many sizes, each of which is overwritten once the next one is asked for, as a source may. */
async function* inPieces(content: Buffer): Bytes {
  const buffer = Buffer.alloc(256 * 1024);
  for (let start = 0, turn = 0; start < content.byteLength; turn++) {
    const size = content.copy(buffer, 0, start, start + Math.min(buffer.byteLength, 1 + turn * 50_000));
    yield buffer.subarray(0, size);
    buffer.fill(0);
    start += size;
  }
}

async function readAll(storage: Storage, key: string, start: number, end: number, signal = never): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of storage.read(key, { start, end }, signal)) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

async function isClosed(t: ExecutionContext, work: Promise<void>): Promise<void> {
  const error = await t.throwsAsync<HubError>(work, { instanceOf: HubError });
  t.like(error, { kind: 'ABORTED', reason: 'UPLOAD_CLOSED' });
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
