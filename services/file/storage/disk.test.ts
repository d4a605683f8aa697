import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import path from 'node:path';
import type { Readable } from 'node:stream';
import test, { type ExecutionContext } from 'ava';
import { HubError } from '#lib/errors.ts';
import { loadConfig } from '#lib/config.ts';
import { openLog } from '#lib/log.ts';
import { openedFolder } from '../../../test/opened.ts';
import { storageContract } from './contract.ts';
import { openDiskStorage } from './disk.ts';
import { openStorage, storageSettings } from './open.ts';
import type { Bytes } from './storage.ts';

const root = openedFolder('chat4all-files-');
const log = openLog({ name: 'test', format: 'json', level: 'silent' });
const never = new AbortController().signal;

/** Every file and folder of a key, by its path, in all of a store's folders. */
async function remains(folder: string, key: string): Promise<string[]> {
  const found: string[] = [];
  for (const place of await readdir(folder)) {
    for (const name of await readdir(path.join(folder, place))) {
      if (!name.startsWith(key)) continue;
      const within = await readdir(path.join(folder, place, name), { recursive: true });
      found.push(...['', ...within].map((each) => path.join(place, name, each)));
    }
  }
  return found.toSorted();
}

storageContract(test, {
  open: () => openStorage(loadConfig(storageSettings, { FILES_DIR: path.join(root, 'shared') }), { log }),
  remains: (key) => remains(path.join(root, 'shared'), key),
});

async function* of(...texts: string[]): Bytes {
  for (const text of texts) yield Buffer.from(text);
}

async function isAway(t: ExecutionContext, work: () => Promise<unknown>, what = ''): Promise<void> {
  const error = await t.throwsAsync<HubError>(work, { instanceOf: HubError }, what);
  t.like(error, { kind: 'UNAVAILABLE', reason: 'STORE_UNAVAILABLE', retryAfter: 2 });
}

async function readAll(work: Bytes): Promise<string> {
  let text = '';
  for await (const piece of work) text += Buffer.from(piece).toString();
  return text;
}

test('innerUrl: gives an object of several parts and ranges of it, and is good for nothing else', async (t) => {
  const storage = openDiskStorage({ folder: path.join(root, 'inner') });
  t.teardown(() => storage.close());
  const key = randomUUID();
  const upload = { key, uploadId: await storage.open(key) };
  for (const [number, text] of ['Hello, ', 'inner ', 'world'].entries()) {
    await storage.writePart(upload, number, text.length, of(text), never);
  }
  await storage.assemble(upload, 3);
  const other = randomUUID();
  const secret = { key: other, uploadId: await storage.open(other) };
  await storage.writePart(secret, 0, 6, of('secret'), never);
  await storage.assemble(secret, 1);

  const url = (await storage.innerUrl!(key))!;
  const whole = await fetch(url);
  t.is(whole.status, 200);
  t.is(await whole.text(), 'Hello, inner world');
  const part = await fetch(url, { headers: { range: 'bytes=5-8', 'if-match': whole.headers.get('etag')! } });
  t.is(part.status, 206);
  t.is(part.headers.get('content-range'), 'bytes 5-8/18');
  t.is(await part.text(), ', in');

  const [, , until] = new URL(url).pathname.split('/');
  const cases: [what: string, status: number, url: string, init?: RequestInit][] = [
    ['another object', 403, url.replace(key, other)],
    ['a longer life', 403, url.replace(until!, String(Number(until) + 1))],
    ['another signature', 403, `${url.slice(0, -1)}${url.endsWith('A') ? 'B' : 'A'}`],
    ['no signature', 403, new URL(`/${key}`, url).href],
    ['a way out of the folder', 403, new URL('/..%2F..%2Fsecret/1/2', url).href],
    ['a DELETE', 405, url, { method: 'DELETE' }],
    ['a range beyond the end', 416, url, { headers: { range: 'bytes=5-18' } }],
    ['a range that ends before it begins', 416, url, { headers: { range: 'bytes=5-4' } }],
    ['another content', 412, url, { headers: { 'if-match': '"other"' } }],
  ];
  for (const [what, status, target, init] of cases) {
    const response = await fetch(target, init);
    t.is(response.status, status, what);
    t.notRegex(await response.text(), /secret/, what);
  }
  await storage.remove(key);
  t.is((await fetch(url)).status, 404);
});

test('innerUrl: readers who take nothing hold little, and close lets go of them', async (t) => {
  const storage = openDiskStorage({ folder: path.join(root, 'stalled') });
  const key = randomUUID();
  const upload = { key, uploadId: await storage.open(key) };
  const size = 64 * 1024 * 1024;
  const piece = Buffer.alloc(1024 * 1024);
  async function* pieces(): Bytes {
    for (let sent = 0; sent < size; sent += piece.length) yield piece;
  }
  await storage.writePart(upload, 0, size, pieces(), never);
  await storage.assemble(upload, 1);
  const url = (await storage.innerUrl!(key))!;
  const before = process.memoryUsage().arrayBuffers;
  const requests = Array.from({ length: 20 }, () => get(url));
  const answers = await Promise.all(requests.map(async (request) => (await once(request, 'response')) as [Readable]));
  const ended = Promise.all(
    answers.map(([answer]) => new Promise((resolve) => answer.on('error', () => {}).on('close', resolve))),
  );
  t.true(process.memoryUsage().arrayBuffers - before < 20 * 2 * 1024 * 1024);
  await storage.close();
  for (const [answer] of answers) answer.resume();
  await ended;
  t.true(
    answers.every(([answer]) => answer.errored !== null),
    'none of them looks whole',
  );
});

/** A process of its own that runs `code`, with the store open in `folder`. */
function child(folder: string, code: string) {
  const script = `
    import { openDiskStorage } from ${JSON.stringify(new URL('disk.ts', import.meta.url).href)};
    const storage = openDiskStorage({ folder: ${JSON.stringify(folder)} });
    const signal = new AbortController().signal;
    ${code}`;
  return [process.execPath, '--input-type=module', '--eval', script] as const;
}

test('a process that is killed while it writes leaves no part, and nothing of what it wrote stays', async (t) => {
  const folder = path.join(root, 'killed');
  const storage = openDiskStorage({ folder });
  for (const end of ['assembled', 'removed'] as const) {
    const upload = { key: end, uploadId: await storage.open(end) };
    await storage.writePart(upload, 0, 5, of('whole'), never);
    const [command, ...args] = child(
      folder,
      `async function* half() { yield Buffer.from('ha'); process.kill(process.pid, 'SIGKILL'); await new Promise(() => {}); }
       await storage.writePart(${JSON.stringify(upload)}, 0, 4, half(), signal);`,
    );
    const [, signal] = (await once(spawn(command, args, { stdio: 'inherit' }), 'exit')) as [null, string];
    t.is(signal, 'SIGKILL');
    t.is((await remains(folder, end)).length, 4, 'the left-over is there');
    t.deepEqual(
      (await storage.parts(upload))?.map(({ number, size }) => [number, size]),
      [[0, 5]],
    );
    if (end === 'assembled') {
      await storage.assemble(upload, 1);
      t.deepEqual(await remains(folder, end), [`objects/${end}`, `objects/${end}/0`]);
      t.is(await readAll(storage.read(end, { start: 0, end: 5 }, never)), 'whole');
    } else {
      await storage.remove(end);
      t.deepEqual(await remains(folder, end), []);
    }
  }
});

test('a process that is killed while it assembles or removes: repeated, it ends well', async (t) => {
  const folder = path.join(root, 'half-done');
  const storage = openDiskStorage({ folder });
  const upload = { key: 'a', uploadId: await storage.open('a') };
  await storage.writePart(upload, 0, 5, of('whole'), never);
  await rename(path.join(folder, 'uploads/a/parts'), path.join(folder, 'objects/a'));
  await writeFile(path.join(folder, 'uploads/a/left-over'), 'x');
  t.is(await storage.parts(upload), undefined);
  await storage.assemble(upload, 1);
  t.deepEqual(await remains(folder, 'a'), ['objects/a', 'objects/a/0']);

  await rename(path.join(folder, 'objects/a'), path.join(folder, 'removed/a.1'));
  t.is(await storage.size('a'), undefined);
  await storage.remove('a');
  t.deepEqual(await remains(folder, 'a'), []);
});

test('a store whose folder is gone is away, not empty, and works again when it is back', async (t) => {
  const folder = path.join(root, 'gone');
  const storage = openDiskStorage({ folder });
  const upload = { key: 'open', uploadId: await storage.open('open') };
  const done = { key: 'done', uploadId: await storage.open('done') };
  await storage.writePart(done, 0, 4, of('text'), never);
  await storage.assemble(done, 1);
  const works = {
    open: () => storage.open('new'),
    writePart: () => storage.writePart(upload, 0, 4, of('text'), never),
    parts: () => storage.parts(upload),
    assemble: () => storage.assemble(upload, 0),
    size: () => storage.size('done'),
    read: () => readAll(storage.read('done', { start: 0, end: 4 }, never)),
    remove: () => storage.remove('other'),
    ping: () => storage.ping(),
  };
  await rename(folder, `${folder}.away`);
  for (const [name, work] of Object.entries(works)) await isAway(t, work, name);
  // As a place where nothing is mounted.
  await mkdir(folder);
  for (const [name, work] of Object.entries(works)) await isAway(t, work, name);
  t.deepEqual(await readdir(folder), []);
  await rm(folder, { recursive: true });
  await rename(`${folder}.away`, folder);
  for (const work of Object.values(works)) await t.notThrowsAsync(work);
});

test('a store whose folder cannot be made is away until it can', async (t) => {
  const place = path.join(root, 'a-file');
  await writeFile(place, '');
  const storage = openDiskStorage({ folder: path.join(place, 'files') });
  await isAway(t, () => storage.ping());
  await isAway(t, () => storage.open('key'));
  await rm(place);
  await t.notThrowsAsync(storage.ping());
  await t.notThrowsAsync(storage.open('key'));
});

// Alone: it changes who this process is.
test.serial('a store that may not be written to is away, and nothing is left half done', async (t) => {
  const wasRoot = process.getuid?.() === 0;
  // Whom root becomes may not be let through to the folder for temporary files: on Linux a working folder is reached anyway.
  const before = process.cwd();
  process.chdir(root);
  t.teardown(() => process.chdir(before));
  const folder = path.join(wasRoot && process.platform === 'linux' ? '/proc/self/cwd' : root, 'forbidden');
  const storage = openDiskStorage({ folder });
  const upload = { key: 'open', uploadId: await storage.open('open') };
  await storage.writePart(upload, 0, 4, of('text'), never);
  const whole = await remains(folder, 'open');
  const places = ['uploads', 'uploads/open', 'uploads/open/parts', 'objects', 'removed'].map((each) =>
    path.join(folder, each),
  );
  await chmod(root, 0o755);
  for (const place of places) await chmod(place, 0o555);
  // What root does is not forbidden.
  if (wasRoot) process.seteuid!(65_534);
  try {
    await isAway(t, () => storage.writePart(upload, 0, 5, of('other'), never));
    await isAway(t, () => storage.open('new'));
    await isAway(t, () => storage.assemble(upload, 1));
    await isAway(t, () => storage.remove('open'));
    // access(2) goes by the real user, who is still root.
    if (!wasRoot) await isAway(t, () => storage.ping());
    t.is((await storage.parts(upload))?.length, 1);
  } finally {
    if (wasRoot) process.seteuid!(0);
    for (const place of places) await chmod(place, 0o755);
  }
  t.deepEqual(await remains(folder, 'open'), whole);
  await storage.assemble(upload, 1);
  t.is(await readAll(storage.read('open', { start: 0, end: 4 }, never)), 'text');
});

// A small file system, which only this child sees.
const mount = ['-rm', 'sh', '-c', 'mount -t tmpfs -o size=1m tmpfs "$1" && shift && exec "$@"', 'sh'];
const canMount = spawnSync('unshare', [...mount, import.meta.dirname, 'true']).status === 0;
(canMount ? test : test.skip)('a store that is full is away, and nothing is left half done', async (t) => {
  const folder = await mkdtemp(path.join(root, 'full-'));
  const script = child(
    folder,
    `import { readdirSync } from 'node:fs';
     const upload = { key: 'open', uploadId: await storage.open('open') };
     async function* zeros(count) { while (count-- > 0) yield Buffer.alloc(64 * 1024); }
     const write = (number, count) => storage.writePart(upload, number, count * 64 * 1024, zeros(count), signal);
     await write(0, 8);
     const error = await write(0, 12).catch((error) => error);
     const left = readdirSync(${JSON.stringify(folder)}, { recursive: true }).filter((name) => name.includes('open/'));
     await write(1, 2);
     await storage.assemble(upload, 2);
     console.log(JSON.stringify({ kind: error.kind, reason: error.reason, code: error.cause.code, left, size: await storage.size('open') }));`,
  );
  const process = spawn('unshare', [...mount, folder, ...script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const output = (await process.stdout.toArray()).join('');
  t.deepEqual(JSON.parse(output), {
    kind: 'UNAVAILABLE',
    reason: 'STORE_UNAVAILABLE',
    code: 'ENOSPC',
    left: ['uploads/open/parts', 'uploads/open/parts/0'],
    size: 10 * 64 * 1024,
  });
});
