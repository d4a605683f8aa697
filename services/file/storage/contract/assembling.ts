import { randomBytes, randomUUID } from 'node:crypto';
import {
  begin,
  isClosed,
  open,
  readAll,
  someParts,
  someSize,
  stored,
  write,
  writeAround,
  type Check,
  type Engine,
} from './fixtures.ts';

/** How an upload ends in every store: `assemble` and `remove`. */
export function assemblingContract(check: Check, engine: Engine): void {
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
    const [content, other] = [someParts(storage, 1)[0]!, randomBytes(storage.minPartBytes + 4_000_000)];
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
      const [content, other] = [someParts(storage, 1)[0]!, randomBytes(storage.minPartBytes + 4_000_000)];
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
}
