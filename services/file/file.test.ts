import { createHash } from 'node:crypto';
import test from 'ava';
import { HubError } from '#lib/errors.ts';
import {
  checked,
  chunksMissing,
  progressOf,
  requireOpen,
  rangeOf,
  requireSignature,
  shapeOf,
  signatureOf,
  sizeOfChunk,
  type Limits,
} from './file.ts';

const limits: Limits = {
  maxFileBytes: 100,
  minChunkBytes: 10,
  maxChunkBytes: 40,
  defaultChunkBytes: 20,
  openUploads: 10,
};

test('shapeOf: a file is cut into chunks of one size, the last one is what is left', (t) => {
  t.deepEqual(shapeOf(100, undefined, limits), { fileSize: 100, chunkSize: 20, chunkCount: 5 });
  t.deepEqual(shapeOf(41, undefined, limits), { fileSize: 41, chunkSize: 20, chunkCount: 3 });
  t.deepEqual(shapeOf(1, 40, limits), { fileSize: 1, chunkSize: 40, chunkCount: 1 });
  t.deepEqual(shapeOf(0, undefined, limits), { fileSize: 0, chunkSize: 20, chunkCount: 0 });
});

test('shapeOf: what is too large, and a chunk size out of bounds, are refused by name', (t) => {
  t.like(
    t.throws(() => shapeOf(101, undefined, limits)),
    { kind: 'OUT_OF_RANGE', reason: 'FILE_TOO_LARGE' },
  );
  for (const wrong of [9, 41, 0, -1]) {
    const error = t.throws(() => shapeOf(50, wrong, limits), { instanceOf: HubError }) as HubError;
    t.deepEqual(error.fields, [{ field: 'chunk_size', description: 'must be from 10 to 40 bytes' }]);
  }
});

test('sizeOfChunk: what each chunk has, and that there is none behind the last', (t) => {
  const shape = shapeOf(41, undefined, limits);
  t.deepEqual(
    [0, 1, 2].map((chunkId) => sizeOfChunk(shape, chunkId)),
    [20, 20, 1],
  );
  const error = t.throws(() => sizeOfChunk(shape, 3), { instanceOf: HubError }) as HubError;
  t.deepEqual(error.fields, [{ field: 'chunk_id', description: 'must be from 0 to 2' }]);
  t.throws(() => sizeOfChunk(shapeOf(0, undefined, limits), 0), { instanceOf: HubError });
});

test('progressOf: chunks of a wrong size, or that there should not be, do not count', (t) => {
  const shape = shapeOf(41, undefined, limits);
  const chunks = [
    { chunkId: 2, size: 1 },
    { chunkId: 0, size: 19 },
    { chunkId: 1, size: 20 },
    { chunkId: 7, size: 20 },
  ];
  t.deepEqual(progressOf(shape, chunks), { receivedBytes: 21, missing: [0] });
  t.deepEqual(progressOf(shape, []), { receivedBytes: 0, missing: [0, 1, 2] });
});

test('chunksMissing: names the first of them, and how many more there are', (t) => {
  t.regex(chunksMissing([3, 7]).message, /: 3, 7$/);
  t.regex(chunksMissing(Array.from({ length: 30 }, (_, id) => id)).message, /, 19 and 10 more$/);
});

test('requireOpen: says why a file takes no chunks', (t) => {
  const now = new Date();
  const refusal = (status: 'initiated' | 'in_progress' | 'completed' | 'failed', until: Date | null = null) => {
    try {
      requireOpen({ status, completingUntil: until }, now);
      return undefined;
    } catch (error) {
      return (error as HubError).reason;
    }
  };
  t.is(refusal('initiated'), undefined);
  t.is(refusal('in_progress', now), undefined);
  t.is(refusal('in_progress', new Date(now.getTime() + 1)), 'UPLOAD_COMPLETING');
  t.is(refusal('completed'), 'FILE_COMPLETED');
  t.is(refusal('failed'), 'UPLOAD_FAILED');
});

async function* pieces(...texts: string[]) {
  for (const text of texts) yield Buffer.from(text);
}

async function handedOn(bytes: AsyncIterable<Uint8Array>): Promise<{ text: string; error: string | undefined }> {
  let text = '';
  try {
    for await (const piece of bytes) text += Buffer.from(piece).toString();
    return { text, error: undefined };
  } catch (error) {
    return { text, error: (error as HubError).reason };
  }
}

test('checked: hands on exactly what was announced, and never the end of what is wrong', async (t) => {
  const digest = { algorithm: 'sha256' as const, digest: createHash('sha256').update('abcdef').digest() };
  const sizeError = 'CHUNK_SIZE_MISMATCH';
  t.deepEqual(await handedOn(checked(pieces('abc', '', 'def', ''), 6, digest)), { text: 'abcdef', error: undefined });
  t.deepEqual(await handedOn(checked(pieces('abcdef'), 6, undefined)), { text: 'abcdef', error: undefined });
  t.deepEqual(await handedOn(checked(pieces('abc', 'deg'), 6, digest)), {
    text: 'abc',
    error: 'CHUNK_DIGEST_MISMATCH',
  });
  t.deepEqual(await handedOn(checked(pieces('abc', 'de'), 6, undefined)), { text: 'abcde', error: sizeError });
  t.deepEqual(await handedOn(checked(pieces('abc', 'def', 'g'), 6, digest)), { text: 'abc', error: sizeError });
  t.deepEqual(await handedOn(checked(pieces('abc', 'defg'), 6, digest)), { text: 'abc', error: sizeError });
  t.deepEqual(await handedOn(checked(pieces(), 6, undefined)), { text: '', error: sizeError });
});

test('checked: the last piece is kept although its buffer is used again', async (t) => {
  async function* reusing() {
    const buffer = Buffer.alloc(3);
    for (const text of ['abc', 'def']) {
      buffer.write(text);
      yield buffer;
    }
    buffer.fill(0);
  }
  t.is((await handedOn(checked(reusing(), 6, undefined))).text, 'abcdef');
});

test('requireSignature: every part of a URL counts, and so does the time', (t) => {
  const key = Buffer.alloc(32, 1);
  const now = new Date('2026-11-23T12:00:00Z');
  const claims = { fileId: 'f', chunkId: '1', expires: String(now.getTime() / 1_000 + 60) };
  const signature = signatureOf(claims, key).toString('base64url');
  t.notThrows(() => requireSignature(claims, signature, [Buffer.alloc(32, 2), key], now));
  const refused = (changed: object, given = signature, at = now, by = key) =>
    t.like(
      t.throws(() => requireSignature({ ...claims, ...changed }, given, [by], at)),
      { kind: 'PERMISSION_DENIED', reason: 'SIGNATURE_INVALID' },
    );
  refused({ fileId: 'g' });
  refused({ chunkId: '2' });
  refused({ chunkId: '01' });
  refused({ chunkId: '' });
  refused({ expires: String(Number(claims.expires) + 1) });
  refused({ expires: '' });
  refused({}, '');
  refused({}, `${signature}=`);
  refused({}, signature.slice(1));
  refused({}, signature, new Date(now.getTime() + 60_000));
  refused({}, signature, now, Buffer.alloc(32, 2));
});

test('rangeOf: one range of bytes, its end exclusive; what is none means all; what lies outside is refused', (t) => {
  t.deepEqual(rangeOf('bytes=0-9', 100), { start: 0, end: 10, isPart: true });
  t.deepEqual(rangeOf('bytes=90-', 100), { start: 90, end: 100, isPart: true });
  t.deepEqual(rangeOf('bytes=-5', 100), { start: 95, end: 100, isPart: true });
  t.deepEqual(rangeOf('bytes=-500', 100), { start: 0, end: 100, isPart: true });
  t.deepEqual(rangeOf('bytes=50-500', 100), { start: 50, end: 100, isPart: true });
  const all = { start: 0, end: 100, isPart: false };
  for (const none of ['', 'bytes=', 'bytes=a-b', 'lines=1-2', 'bytes=0-1,5-6', 'nonsense']) {
    t.deepEqual(rangeOf(none, 100), all, none);
  }
  for (const outside of ['bytes=100-', 'bytes=200-300', 'bytes=-0']) {
    t.like(
      t.throws(() => rangeOf(outside, 100), undefined, outside),
      { kind: 'OUT_OF_RANGE', reason: 'RANGE_NOT_SATISFIABLE' },
    );
  }
  t.throws(() => rangeOf('bytes=0-0', 0));
  t.deepEqual(rangeOf('', 0), { start: 0, end: 0, isPart: false });
});
