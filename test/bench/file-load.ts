import { createHash, randomBytes, type Hash } from 'node:crypto';
import { Agent, request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http';
import { Client } from 'minio';
import { percentiles, type Percentiles } from './percentiles.ts';
import { answer } from './remote.ts';

/**
 * Uploads and downloads files, through the hub and, to compare, straight to an S3 without it. A process of its own, which
 * does as little as it can while it is timed: bytes, checksums and URLs are there before.
 */

/** Through the gateway, by URLs that the hub signs, or by URLs that the S3's own administrator signs. */
export type Way = 'gateway' | 'presigned' | 'raw';

export interface PrepareArgument {
  /** Of the gateway. */
  url: string;
  /** An S3 to compare with. */
  s3: { endpoint: string; accessKey: string; secretKey: string } | undefined;
  /** Bytes. */
  chunkSize: number;
}

export interface DownloadArgument {
  number: number;
  verify: boolean;
  /** How many ranges at once. */
  parallel: number;
}

export interface Transferred {
  bytes: number;
  seconds: number;
}

interface Target {
  method: string;
  url: URL;
  headers: Record<string, string>;
}

interface OpenFile {
  way: Way;
  size: number;
  /** Where its pieces are in the buffer of bytes. */
  number: number;
  /** Of the hub's file; of the object for `raw`. */
  key: string;
  /** In the S3, for `raw`. */
  uploadId: string;
  checksum: string;
  targets: Target[];
  /** By chunk, as the answers gave them. */
  etags: string[];
}

const username = 'user1';
const password = 'password123';
const bucket = 'bench-raw';
/** Chunks are pieces of one buffer, each from a place of its own: nothing can take one for another. */
const places = 16 * 2 ** 20;
const step = 65_537;
const callLimit = 120_000;
const completeLimit = 330_000;
const urlLifetime = 3_600;

let base: string;
let token: string;
let chunkSize: number;
let bytes: Buffer;
let s3: Client | undefined;
let opened = 0;
const agent = new Agent({ keepAlive: true });
const files = new Map<number, OpenFile>();

async function prepare({ url, s3: reference, chunkSize: size }: PrepareArgument): Promise<void> {
  base = url;
  chunkSize = size;
  bytes = randomBytes(size + places);
  const credentials = Buffer.from(JSON.stringify({ username, password }));
  const answered = await call('POST', '/auth/token', {}, credentials);
  ({ token } = JSON.parse(answered) as { token: string });
  if (reference === undefined) return;
  const { hostname: endPoint, port } = new URL(reference.endpoint);
  const { accessKey, secretKey } = reference;
  s3 = new Client({ endPoint, port: Number(port), useSSL: false, accessKey, secretKey, region: 'us-east-1' });
  await s3.makeBucket(bucket, 'us-east-1');
}

/** Sends a request with a body that is whole, and waits for the answer's head. */
function ask({ method, url, headers }: Target, body: Buffer | undefined, limit = callLimit): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'Content-Length': body.length };
    const options = { agent, method, headers: { ...headers, ...length }, timeout: limit };
    const sent = httpRequest(url, options, resolve);
    sent.on('timeout', () => sent.destroy(new Error(`${method} ${url.pathname}: nothing for ${limit / 1000} s`)));
    sent.on('error', reject);
    sent.end(body);
  });
}

/** @throws Error unless the answer is a success */
async function textOf(response: IncomingMessage, what: string): Promise<string> {
  let text = '';
  response.setEncoding('utf8');
  for await (const piece of response as AsyncIterable<string>) text += piece;
  const { statusCode = 0 } = response;
  if (statusCode < 200 || statusCode >= 300) throw new Error(`${what}: ${statusCode} ${text.slice(0, 1_000)}`);
  return text;
}

async function call(
  method: string,
  path: string,
  headers: Record<string, string>,
  body?: Buffer,
  limit?: number,
): Promise<string> {
  const type: Record<string, string> = body === undefined ? {} : { 'Content-Type': 'application/json' };
  const target = { method, url: new URL(base + path), headers: { ...type, ...headers } };
  return textOf(await ask(target, body, limit), `${method} ${path}`);
}

async function callHub<Body>(method: string, path: string, json?: object, limit?: number): Promise<Body> {
  const body = json === undefined ? undefined : Buffer.from(JSON.stringify(json));
  const text = await call(method, path, authorization(), body, limit);
  return (text === '' ? undefined : JSON.parse(text)) as Body;
}

const authorization = () => ({ Authorization: `Bearer ${token}` });

function chunk({ size, number }: Pick<OpenFile, 'size' | 'number'>, chunkId: number): Buffer {
  const place = (number * 1_000_003 + chunkId * step) % places;
  return bytes.subarray(place, place + Math.min(chunkSize, size - chunkId * chunkSize));
}

/** Begins an upload of pseudo-random bytes, up to where the first of them could be sent. @returns its number */
async function open({ way, size }: { way: Way; size: number }): Promise<number> {
  opened += 1;
  const number = opened;
  const count = Math.ceil(size / chunkSize);
  const hash = createHash('sha256');
  for (let chunkId = 0; chunkId < count; chunkId++) hash.update(chunk({ size, number }, chunkId));
  const file: OpenFile = {
    way,
    size,
    number,
    key: `file-${number}`,
    uploadId: '',
    checksum: hash.digest('hex'),
    targets: [],
    etags: [],
  };
  if (way === 'raw') {
    file.uploadId = await theS3().initiateNewMultipartUpload(bucket, file.key, {});
  } else {
    const begun = { filename: `${file.key}.bin`, file_size: size, chunk_size: chunkSize };
    file.key = (await callHub<{ file_id: string }>('POST', '/v1/files/initiate', begun)).file_id;
  }
  for (let chunkId = 0; chunkId < count; chunkId++) file.targets.push(await targetOf(file, chunkId));
  files.set(number, file);
  return number;
}

/** Milliseconds that each URL took. */
let urlTimes: number[] = [];

async function targetOf({ way, key, uploadId }: OpenFile, chunkId: number): Promise<Target> {
  const path = `/v1/files/upload?file_id=${key}&chunk_id=${chunkId}`;
  if (way === 'gateway') {
    const headers = { ...authorization(), 'Content-Type': 'application/octet-stream' };
    return { method: 'PATCH', url: new URL(base + path), headers };
  }
  if (way === 'raw') {
    const part = { uploadId, partNumber: String(chunkId + 1) };
    const url = await theS3().presignedUrl('PUT', bucket, key, urlLifetime, part);
    return { method: 'PUT', url: new URL(url), headers: {} };
  }
  const began = performance.now();
  const { upload_url: url } = await callHub<{ upload_url: string }>('PATCH', path, {});
  urlTimes.push(performance.now() - began);
  return { method: 'PUT', url: new URL(url), headers: { 'Content-Type': 'application/octet-stream' } };
}

/** Uploads all chunks of a file, so many at once. */
async function transfer({ number, parallel }: { number: number; parallel: number }): Promise<Transferred> {
  const file = files.get(number)!;
  const queue = file.targets.entries();
  const work = async () => {
    for (const [chunkId, target] of queue) {
      const response = await ask(target, chunk(file, chunkId));
      await textOf(response, `${target.method} ${target.url.pathname} of chunk ${chunkId}`);
      file.etags[chunkId] = response.headers.etag ?? '';
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: parallel }, work));
  return { bytes: file.size, seconds: (performance.now() - began) / 1000 };
}

/** Completes an upload. @returns milliseconds */
async function complete({ number }: { number: number }): Promise<number> {
  const { way, key, uploadId, checksum, etags } = files.get(number)!;
  const began = performance.now();
  if (way === 'raw') {
    const parts = etags.map((etag, chunkId) => ({ part: chunkId + 1, etag: etag.replaceAll('"', '') }));
    await theS3().completeMultipartUpload(bucket, key, uploadId, parts);
  } else {
    await callHub('POST', '/v1/files/complete', { file_id: key, checksum }, completeLimit);
  }
  return performance.now() - began;
}

/**
 * Downloads a completed file, in so many ranges at once.
 *
 * @param verify reads its SHA-256, too, which takes time; for a file in one piece
 * @throws Error if it is not the file
 */
async function download({ number, verify, parallel }: DownloadArgument): Promise<Transferred> {
  const { size, checksum } = files.get(number)!;
  const target = await contentOf(number);
  const hash = verify ? createHash('sha256') : undefined;
  const began = performance.now();
  const share = Math.ceil(size / parallel);
  const ranges = Array.from({ length: parallel }, (_, index) => [index * share, Math.min((index + 1) * share, size)]);
  await Promise.all(ranges.map(([start, end]) => receive(target, start!, end!, parallel > 1, hash)));
  const seconds = (performance.now() - began) / 1000;
  if (hash !== undefined && hash.digest('hex') !== checksum) {
    throw new Error(`GET ${target.url.pathname}: the content is not what was uploaded`);
  }
  return { bytes: size, seconds };
}

async function receive(target: Target, start: number, end: number, isPart: boolean, hash?: Hash): Promise<void> {
  const range: Record<string, string> = isPart ? { Range: `bytes=${start}-${end - 1}` } : {};
  const response = await ask({ ...target, headers: { ...target.headers, ...range } }, undefined);
  const what = `GET ${target.url.pathname}`;
  if (response.statusCode !== (isPart ? 206 : 200)) throw new Error(`${what}: ${await textOf(response, what)}`);
  let received = 0;
  response.on('data', (piece: Buffer) => {
    received += piece.length;
    hash?.update(piece);
  });
  await new Promise((resolve, reject) => response.on('end', resolve).on('error', reject));
  if (received !== end - start) throw new Error(`${what}: ${received} bytes instead of ${end - start}`);
}

/** Where a completed file is had from. */
async function contentOf(number: number): Promise<Target> {
  const { way, key } = files.get(number)!;
  return way === 'raw'
    ? { method: 'GET', url: new URL(await theS3().presignedGetObject(bucket, key, urlLifetime)), headers: {} }
    : { method: 'GET', url: new URL(`${base}/v1/files/${key}/content`), headers: authorization() };
}

/** Connections whose answers nobody reads. */
const stalled: ClientRequest[] = [];

/** Begins so many downloads of a file, and reads none of them. */
async function stall({ number, count }: { number: number; count: number }): Promise<void> {
  const { method, url, headers } = await contentOf(number);
  const begin = () =>
    new Promise<void>((resolve, reject) => {
      const sent = httpRequest(url, { method, headers, agent: false }, (response) => {
        response.on('error', () => {});
        if (response.statusCode === 200) resolve();
        else reject(new Error(`GET ${url.pathname}: ${response.statusCode}`));
      });
      sent.on('error', reject);
      sent.end();
      stalled.push(sent);
    });
  await Promise.all(Array.from({ length: count }, begin));
}

/** Lets go of the downloads that nobody reads. */
async function unstall(): Promise<void> {
  for (const each of stalled.splice(0)) each.destroy();
}

/** Removes an upload or a file. */
async function remove({ number }: { number: number }): Promise<void> {
  const { way, key, uploadId } = files.get(number)!;
  files.delete(number);
  if (way !== 'raw') await callHub('DELETE', `/v1/files/${key}`);
  else if (await isComplete(key)) await theS3().removeObject(bucket, key);
  else await theS3().abortMultipartUpload(bucket, key, uploadId);
}

async function isComplete(key: string): Promise<boolean> {
  return theS3()
    .statObject(bucket, key)
    .then(
      () => true,
      () => false,
    );
}

/** Begins so many uploads, one after the other, and removes them. @returns milliseconds that it takes to begin one */
async function initiate({ count }: { count: number }): Promise<Percentiles> {
  const times: number[] = [];
  for (let index = 0; index < count; index++) {
    const began = performance.now();
    const begun = { filename: `empty-${index}.bin`, file_size: chunkSize };
    const { file_id: id } = await callHub<{ file_id: string }>('POST', '/v1/files/initiate', begun);
    times.push(performance.now() - began);
    await callHub('DELETE', `/v1/files/${id}`);
  }
  return percentiles(times);
}

/** Milliseconds that the hub has taken for each URL so far, and begins anew. */
async function urls(): Promise<Percentiles> {
  const times = urlTimes;
  urlTimes = [];
  return percentiles(times);
}

function theS3(): Client {
  if (s3 === undefined) throw new Error('There is no S3 to compare with');
  return s3;
}

export const commands = { prepare, open, transfer, complete, download, stall, unstall, remove, initiate, urls };

answer(commands, async () => {});
