import { EventEmitter } from 'node:events';
import type http from 'node:http';
import type { Agent, IncomingMessage } from 'node:http';
import { Client, S3Error } from 'minio';
import { HubError } from '#lib/errors.ts';
import { httpOf, openAgent, receivingMark, sendingMark } from '#lib/http.ts';
import type { Logger } from '#lib/log.ts';
import { checkKey, contentMissing, partMissing, refused, unavailable, unsent, uploadClosed } from './failures.ts';
import { authorize, presign, type Credentials, type SigningScope } from './signature.ts';
import type { OpenUpload, Storage, StoredPart } from './storage.ts';
import { receive, Refusal, send, wasClosed, type SignedRequest } from './transfer.ts';
import { elementsOf, fieldOf } from './xml.ts';
import { openTemporaryCredentials } from './temporary-credentials.ts';

/** Milliseconds that a request without a body of its own may take. */
const callLimit = 5_000;
/** To assemble an object, a store may have to do some work. */
const assembleLimit = 60_000;
const pingLimit = 2_000;

const mebibyte = 1024 * 1024;
const maxUrlLifetimeSeconds = 7 * 24 * 3600;
/** Seconds in which a gateway has to begin to put a part. */
const innerLifetime = 60;
/** Seconds in which a gateway may ask for a range of an object, also anew in the middle: as long as a download may take. */
const readLifetime = 6 * 3600;
/** Milliseconds until a store that gave out no keys for gateways is asked for some again. */
const innerPause = 60_000;
/** How often parts are listed anew because others replace them while they are assembled. */
const assembleAttempts = 5;

/** Characters of an answer that is read whole: a thousand parts or uploads take less than half of it. */
const largestAnswer = 2 * mebibyte;

/** Error codes that will pass. MinIO's own begin with XMinio: full, not ready, too few disks. */
const passing =
  /^(XMinio.*|SlowDown.*|ServiceUnavailable|InternalError|RequestTimeout|TooManyRequests|OperationAborted|NoSuchBucket)$/;
/** Answers without a body have no code but these of minio's. */
const notFound = new Set(['NotFound', 'NoSuchKey', 'NoSuchUpload']);

export interface S3Options {
  /** http(s)://host:port of the S3, and the same as clients reach it. */
  endpoint: URL;
  publicEndpoint: URL;
  region: string;
  bucket: string;
  credentials: Credentials;
  /** Sign upload URLs; without them temporary ones do. They should be allowed nothing but to write. */
  uploadCredentials?: Credentials;
  log: Logger;
}

/**
 * Keeps contents in a bucket of S3: an upload is a multipart upload, part n of ours its part n + 1. The bucket is made at the
 * first use if it is missing.
 *
 * Credentials that are wrong, or allow too little, and answers that are none of an S3's make every method throw UNAVAILABLE
 * `STORE_UNAVAILABLE`; the cause says what it was.
 */
export function openS3Storage(options: S3Options): Storage {
  const { endpoint, publicEndpoint, region, bucket, credentials, log } = options;
  const scope: SigningScope = { region, service: 's3' };
  const agent = openAgent(endpoint.protocol, sendingMark);
  const readingAgent = openAgent(endpoint.protocol, receivingMark);
  const client = openClient(options, agent, callLimit);
  // Each on a connection of its own, which can't turn out to be closed: so nothing is ever opened twice, and one of the two
  // left open.
  const openingClient = openClient(options, new (httpOf(endpoint.protocol).Agent)(), callLimit);
  const patientClient = openClient(options, agent, assembleLimit);
  const impatientClient = openClient(options, agent, pingLimit);
  const given = options.uploadCredentials;
  const uploadCredentials = given === undefined ? openTemporaryCredentials(options, 's3:PutObject') : async () => given;
  const readCredentials = openTemporaryCredentials(options, 's3:GetObject');
  let bucketIsThere = false;
  /** When a store that gave out no keys for such URLs is asked again, by performance.now(). */
  const innerUrlsFrom = { put: 0, get: 0 };
  /** Whether it has answered as an S3 does. */
  let isRecognized = false;

  async function ensureBucket(through = client): Promise<void> {
    if (bucketIsThere) return;
    if (!(await through.bucketExists(bucket))) {
      try {
        await through.makeBucket(bucket, region);
        log.info({ bucket }, 'made the bucket for contents');
      } catch (error) {
        // Another process was faster.
        if (!codeOf(error).startsWith('BucketAlready')) throw error;
      }
    }
    bucketIsThere = true;
  }

  function signedRequest(
    method: string,
    key: string,
    headers: Record<string, string>,
    upload?: PartOfUpload,
  ): SignedRequest {
    const url = objectUrl(endpoint, bucket, key, upload);
    return { method, url, headers: authorize(method, url, headers, credentials, scope) };
  }

  /** A URL at `base` that takes one part of this size. */
  async function signedPartUrl(base: URL, upload: OpenUpload, number: number, size: number, lifetime: number) {
    const { key, uploadId } = upload;
    checkKey(key);
    const url = objectUrl(base, bucket, key, { uploadId, partNumber: number + 1 });
    const signer = await uploadCredentials(lifetime);
    return presign('PUT', url, { 'content-length': String(size) }, signer, scope, lifetime);
  }

  /** A URL for gateways, unless there are no keys for such that may do nothing else. */
  async function innerUrlOr(what: 'put' | 'get', make: () => Promise<string>): Promise<string | undefined> {
    if (performance.now() < innerUrlsFrom[what]) return undefined;
    try {
      return await make();
    } catch (error) {
      if (error instanceof TypeError) throw error;
      if (innerUrlsFrom[what] === 0) {
        const without = `gateways can not ${what} contents by themselves at the S3: they come through this service`;
        log.warn({ err: error }, without);
      }
      innerUrlsFrom[what] = performance.now() + innerPause;
      return undefined;
    }
  }

  /** The parts of an upload as S3 numbers them, with the tags by which they are told apart. */
  async function listParts({ key, uploadId }: OpenUpload): Promise<S3Part[] | undefined> {
    try {
      return await client.partsOf(bucket, key, uploadId);
    } catch (error) {
      if (codeOf(error) === 'NoSuchUpload') return undefined;
      throw error;
    }
  }

  async function sizeOf(key: string): Promise<number | undefined> {
    try {
      return (await client.statObject(bucket, key)).size;
    } catch (error) {
      if (!notFound.has(codeOf(error))) throw error;
      // The answer is the same if the bucket is missing: then the store isn't ours, or it has been lost.
      if (await client.bucketExists(bucket)) return undefined;
      throw unavailable(error);
    }
  }

  async function put(
    upload: OpenUpload,
    part: number,
    size: number,
    bytes: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ) {
    const place = { uploadId: upload.uploadId, partNumber: part };
    const request = signedRequest('PUT', upload.key, { 'content-length': String(size) }, place);
    try {
      await send(agent, request, size, bytes, signal);
    } catch (error) {
      if (error instanceof Refusal) throw error.code === 'NoSuchUpload' ? uploadClosed() : meaning(error);
      throw error;
    }
  }

  /** An upload can't end without a part, but with an empty one. */
  async function putEmptyPart(upload: OpenUpload): Promise<void> {
    try {
      await put(upload, 1, 0, nothing(), AbortSignal.timeout(assembleLimit));
    } catch (error) {
      // Closed by another process that does the same: whoever asks next will see.
      if (!(error instanceof HubError && error.reason === 'UPLOAD_CLOSED')) throw error;
    }
  }

  /** @returns whether it is done, and not that the parts, or the upload, are not what they were when they were listed */
  async function complete({ key, uploadId }: OpenUpload, parts: S3Part[]): Promise<boolean> {
    try {
      await patientClient.completeMultipartUpload(bucket, key, uploadId, parts);
      return true;
    } catch (error) {
      // S3 may say so in an answer of status 200, of which minio gives no code.
      if (error instanceof S3Error && ['', 'InvalidPart', 'NoSuchUpload'].includes(codeOf(error))) return false;
      throw error;
    }
  }

  async function abortUploads(key: string): Promise<void> {
    let [keyMarker, uploadIdMarker] = ['', ''];
    for (let more = true; more;) {
      const page = await client.uploadsOf(bucket, key, keyMarker, uploadIdMarker);
      for (const uploadId of page.uploadIds) {
        await client.abortMultipartUpload(bucket, key, uploadId).catch((error: unknown) => {
          if (codeOf(error) !== 'NoSuchUpload') throw error;
        });
      }
      more = page.isTruncated;
      [keyMarker, uploadIdMarker] = [page.nextKeyMarker, page.nextUploadIdMarker];
    }
  }

  return {
    smallestPart: 5 * mebibyte,

    async open(key) {
      checkKey(key);
      return translated(async () => {
        for (;;) {
          const trusted = bucketIsThere;
          try {
            await ensureBucket();
          } catch (error) {
            throw unsent(meaning(error));
          }
          try {
            return await openingClient.openUpload(bucket, key);
          } catch (error) {
            if (hadNoConnection(error)) throw unsent(error);
            // It has been deleted since we saw it.
            if (codeOf(error) !== 'NoSuchBucket' || !trusted) throw error;
            bucketIsThere = false;
          }
        }
      });
    },

    async writePart(upload, number, size, bytes, signal) {
      checkKey(upload.key);
      await put(upload, number + 1, size, bytes, signal);
    },

    async parts(upload) {
      checkKey(upload.key);
      const parts = await translated(() => listParts(upload));
      return parts?.map(({ part, size, lastModified }): StoredPart => ({
        number: part - 1,
        size,
        storedAt: lastModified,
      }));
    },

    async assemble(upload, count) {
      checkKey(upload.key);
      await translated(async () => {
        for (let attempt = 1; attempt <= assembleAttempts; attempt++) {
          const parts = await listParts(upload);
          if (parts === undefined) {
            if ((await sizeOf(upload.key)) === undefined) throw uploadClosed();
            return;
          }
          if (count === 0 && !(parts[0]?.part === 1 && parts[0].size === 0)) {
            await putEmptyPart(upload);
          } else if (await complete(upload, chosenParts(upload, parts, count))) {
            return;
          }
        }
        throw unavailable(new Error(`the parts changed ${assembleAttempts} times while they were assembled`));
      });
    },

    async size(key) {
      checkKey(key);
      return translated(() => sizeOf(key));
    },

    async *read(key, { start, end }, signal) {
      checkKey(key);
      signal.throwIfAborted();
      if (start >= end) {
        const size = await translated(() => sizeOf(key));
        if (size === undefined || size < end) throw contentMissing();
        return;
      }
      // A store doesn't keep a connection for a reader who rests, MinIO not for half a minute: then we go on where we were,
      // as long as that brings us further.
      for (let [at, begun] = [start, -1]; at < end;) {
        const request = signedRequest('GET', key, { range: `bytes=${at}-${end - 1}` });
        try {
          for await (const piece of receive(readingAgent, request, end - at, signal)) {
            at += piece.byteLength;
            yield piece;
          }
        } catch (error) {
          if (error instanceof HubError && at > begun && at > start) {
            begun = at;
            continue;
          }
          if (!(error instanceof Refusal)) throw error;
          throw error.code === 'NoSuchKey' || error.code === 'InvalidRange' ? contentMissing() : meaning(error);
        }
      }
    },

    async remove(key) {
      checkKey(key);
      await translated(async () => {
        await ensureBucket();
        // The uploads first: after that, nobody makes an object of them any more.
        await abortUploads(key);
        await client.removeObject(bucket, key);
      });
    },

    async partUrl(upload, number, size, lifetime) {
      if (!(lifetime >= 1 && lifetime <= maxUrlLifetimeSeconds))
        throw new RangeError(`${lifetime} s is no lifetime of a URL`);
      return signedPartUrl(publicEndpoint, upload, number, size, lifetime);
    },

    async innerPartUrl(upload, number, size) {
      return innerUrlOr('put', () => signedPartUrl(endpoint, upload, number, size, innerLifetime));
    },

    async innerUrl(key) {
      checkKey(key);
      return innerUrlOr('get', async () => {
        const signer = await readCredentials(readLifetime);
        return presign('GET', objectUrl(endpoint, bucket, key), {}, signer, scope, readLifetime);
      });
    },

    async ping() {
      await translated(async () => {
        // Asks even if the bucket was seen before.
        if (bucketIsThere && !(await impatientClient.bucketExists(bucket))) bucketIsThere = false;
        await ensureBucket(impatientClient);
        // A web server that has a page at every path has one for the bucket, too.
        if (!isRecognized) await impatientClient.uploadsOf(bucket, '', '', '');
        isRecognized = true;
      });
    },

    async close() {
      agent.destroy();
      readingAgent.destroy();
    },
  };
}

/** Which part of which upload, as S3 counts them. */
interface PartOfUpload {
  uploadId: string;
  partNumber: number;
}

interface S3Part {
  part: number;
  size: number;
  etag: string;
  lastModified: Date;
}

/** Where something is, in the style that every S3 knows: with the bucket in the path. */
function objectUrl(endpoint: URL, bucket: string, key: string, part?: PartOfUpload): URL {
  const url = new URL(`/${bucket}/${key}`, endpoint);
  if (part !== undefined) {
    url.searchParams.set('partNumber', String(part.partNumber));
    url.searchParams.set('uploadId', part.uploadId);
  }
  return url;
}

/** The first `count` parts, or an empty one. @throws Error if one of them isn't there */
function chosenParts({ key }: OpenUpload, parts: readonly S3Part[], count: number): S3Part[] {
  const chosen = parts.slice(0, Math.max(count, 1));
  for (let number = 0; number < count; number++) {
    if (chosen[number]?.part !== number + 1) throw partMissing(key, number);
  }
  return chosen;
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

/** minio's client, but with readers of our own for what multipart uploads are answered: its own take only what MinIO and AWS say. */
class S3Client extends Client {
  async openUpload(bucket: string, key: string): Promise<string> {
    const xml = await this.#ask('POST', bucket, key, { uploads: '' });
    return fieldOf(xml, 'UploadId') ?? unreadable('InitiateMultipartUpload');
  }

  /** By number. */
  async partsOf(bucket: string, key: string, uploadId: string): Promise<S3Part[]> {
    const parts: S3Part[] = [];
    for (let marker = '0'; ;) {
      const xml = await this.#ask('GET', bucket, key, { uploadId, 'part-number-marker': marker });
      for (const element of elementsOf(xml, 'Part')) {
        const [part, size] = ['PartNumber', 'Size'].map((name) => Number(fieldOf(element, name)));
        const etag = fieldOf(element, 'ETag')?.replaceAll('"', '');
        const lastModified = new Date(fieldOf(element, 'LastModified') ?? 0);
        if (!Number.isInteger(part) || !Number.isInteger(size) || etag === undefined || Number.isNaN(+lastModified)) {
          return unreadable('ListParts');
        }
        parts.push({ part: part!, size: size!, etag, lastModified });
      }
      if (!isTruncated(xml, 'ListParts')) return parts.toSorted((one, other) => one.part - other.part);
      const next = fieldOf(xml, 'NextPartNumberMarker') ?? '';
      // A marker that does not move on would have us ask for the same page for ever.
      if (!(Number(next) > Number(marker))) return unreadable('ListParts');
      marker = next;
    }
  }

  /** Some of the uploads under exactly this key, and where to go on. */
  async uploadsOf(bucket: string, key: string, keyMarker: string, uploadIdMarker: string) {
    const markers: Record<string, string> =
      keyMarker === '' ? {} : { 'key-marker': keyMarker, 'upload-id-marker': uploadIdMarker };
    const xml = await this.#ask('GET', bucket, '', { uploads: '', prefix: key, ...markers }).catch((error: unknown) => {
      // So gofakes3 says that there are none.
      if (codeOf(error) === 'NoSuchUpload') return '<IsTruncated>false</IsTruncated>';
      throw error;
    });
    const page = {
      // S3 lists by prefix.
      uploadIds: elementsOf(xml, 'Upload').flatMap((upload) =>
        fieldOf(upload, 'Key') === key ? (fieldOf(upload, 'UploadId') ?? unreadable('ListMultipartUploads')) : [],
      ),
      isTruncated: isTruncated(xml, 'ListMultipartUploads'),
      nextKeyMarker: fieldOf(xml, 'NextKeyMarker') ?? '',
      nextUploadIdMarker: fieldOf(xml, 'NextUploadIdMarker') ?? '',
    };
    const stays = page.nextKeyMarker === keyMarker && page.nextUploadIdMarker === uploadIdMarker;
    return page.isTruncated && stays ? unreadable('ListMultipartUploads') : page;
  }

  async #ask(method: string, bucketName: string, objectName: string, query: Record<string, string>): Promise<string> {
    const response = await this.makeRequestAsync({
      method,
      bucketName,
      objectName,
      query: new URLSearchParams(query).toString(),
    });
    const pieces: string[] = [];
    let length = 0;
    for await (const piece of response.setEncoding('utf8') as AsyncIterable<string>) {
      length += piece.length;
      if (length > largestAnswer) return unreadable(`${method} in ${bucketName}`);
      pieces.push(piece);
    }
    return pieces.join('');
  }
}

function isTruncated(xml: string, what: string): boolean {
  const text = fieldOf(xml, 'IsTruncated');
  return text === 'true' || (text !== 'false' && unreadable(what));
}

function unreadable(what: string): never {
  throw new Error(`What it answers to ${what} can't be read`);
}

/** A client whose requests take at most `limit` milliseconds each, and are made once. */
function openClient({ endpoint, region, credentials }: S3Options, agent: Agent, limit: number): S3Client {
  const { request } = httpOf(endpoint.protocol);
  return new S3Client({
    endPoint: endpoint.hostname,
    ...(endpoint.port !== '' && { port: Number(endpoint.port) }),
    useSSL: endpoint.protocol === 'https:',
    region,
    accessKey: credentials.accessKey,
    secretKey: credentials.secretKey,
    transportAgent: agent,
    // It would repeat requests within a time that isn't ours, and tell the console.
    retryOptions: { disableRetry: true },
    transport: { request: within(limit, request) },
  });
}

/**
 * `request`, with a limit of time for all of it. Answers that say that the store can't do it now end in an error: minio
 * would leave them unread, and with them the connection open. A connection that turns out to be closed is replaced: whatever
 * we ask for may be asked twice.
 */
function within(limit: number, request: typeof http.request): typeof http.request {
  type Callback = (response: IncomingMessage) => void;
  return ((options: http.RequestOptions, callback: Callback) => {
    const signal = AbortSignal.timeout(limit);
    // What minio uses of a request.
    const made = Object.assign(new EventEmitter(), { end: (body: string | Buffer) => begin(body, options.agent) });
    function begin(body: string | Buffer, agent: http.RequestOptions['agent']): void {
      const attempt = request({ ...options, agent, signal }, (response) => {
        const status = response.statusCode!;
        if (status < 500 && status !== 408 && status !== 429) return callback(response);
        attempt.destroy(unavailable(new Error(`HTTP status ${status}`)));
      });
      attempt.on('error', (error) => {
        if (wasClosed(attempt, error)) begin(body, false);
        else made.emit('error', error);
      });
      attempt.end(body);
    }
    return made;
  }) as unknown as typeof http.request;
}

/** Whether a request failed before it had a connection, on a client that makes one for each. */
function hadNoConnection(error: unknown): boolean {
  const { code, syscall } = error as NodeJS.ErrnoException;
  // Of a name with several addresses there is no system call to name.
  return code === 'ECONNREFUSED' || syscall === 'connect' || syscall === 'getaddrinfo';
}

function codeOf(error: unknown): string {
  return error instanceof S3Error || error instanceof Refusal ? (error.code ?? '') : '';
}

/** Does something with the store, and says what its failure means for the caller. */
async function translated<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw meaning(error);
  }
}

function meaning(error: unknown): HubError {
  if (error instanceof HubError) return error;
  if (error instanceof S3Error || error instanceof Refusal) {
    const code = codeOf(error);
    if (passing.test(code) || (error instanceof Refusal && error.status >= 500)) return unavailable(error);
    // Only its text: the rest of what S3 answers repeats what was signed.
    return refused(new Error(`The S3 store refused a request: ${code} ${error.message}`.trimEnd()));
  }
  // From the network, or an abort of ours when the time was up.
  if (error instanceof Error && ('code' in error || error.name === 'TimeoutError')) return unavailable(error);
  // The answer is not one that an S3 gives: minio's client, or our own reader, could not make sense of it.
  return refused(
    new Error(`The S3 store gives odd answers: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    }),
  );
}
