import { S3Error } from 'minio';
import { HubError } from '#lib/errors.ts';
import { httpOf, openAgent, receivingMark, sendingMark } from '#lib/http.ts';
import type { Logger } from '#lib/log.ts';
import { checkKey, contentMissing, partMissing, unavailable, unsent, uploadClosed } from './failures.ts';
import { hadNoConnection, openClient, type S3Part } from './s3-client.ts';
import { codeOf, meaning, translated } from './s3-failures.ts';
import { authorize, presign, type Credentials, type SigningScope } from './signature.ts';
import type { OpenUpload, Storage, StoredPart } from './storage.ts';
import { receive, Refusal, send, type SignedRequest } from './transfer.ts';
import { openTemporaryCredentials } from './temporary-credentials.ts';

const callTimeoutMs = 5_000;
/** Some stores copy all parts to complete an upload. */
const assembleTimeoutMs = 60_000;
const pingTimeoutMs = 2_000;

const mebibyte = 1024 * 1024;
const maxUrlLifetimeSeconds = 7 * 24 * 3600;
/** The time in which a gateway has to begin to put a part. */
const gatewayPutLifetimeSeconds = 60;
/** The time in which a gateway may ask for ranges of an object: as long as a download may take. */
const gatewayGetLifetimeSeconds = 6 * 3600;
/** How long a store that gave out no temporary credentials is not asked for any again. */
const credentialsPauseMs = 60_000;
/** How often the parts are listed again because some were replaced while they were assembled. */
const maxAssembleAttempts = 5;

/** The codes that minio gives to a 404, which may have no body to read one from. */
const notFound = new Set(['NotFound', 'NoSuchKey', 'NoSuchUpload']);

export interface S3Options {
  /** http(s)://host:port of the S3 as this process reaches it, and as clients do. */
  endpoint: URL;
  publicEndpoint: URL;
  region: string;
  bucket: string;
  credentials: Credentials;
  /** Sign upload URLs in place of temporary credentials. They should allow nothing but to write. */
  uploadCredentials?: Credentials;
  log: Logger;
}

/**
 * Keeps contents in a bucket of S3: an upload is a multipart upload, part n of ours its part n + 1. The bucket is made at the
 * first use if it is missing.
 *
 * Every method throws UNAVAILABLE `STORE_UNAVAILABLE`, with the reason as its cause, where credentials are wrong or allow too little, or
 * where the server at the endpoint is no S3.
 */
export function openS3Storage(options: S3Options): Storage {
  const { endpoint, publicEndpoint, region, bucket, credentials, log } = options;
  const scope: SigningScope = { region, service: 's3' };
  const agent = openAgent(endpoint.protocol, sendingMark);
  const readingAgent = openAgent(endpoint.protocol, receivingMark);
  const client = openClient(options, agent, callTimeoutMs);
  // A new connection for each request, which the store can't have closed meanwhile: a repeated request would open a second upload.
  const openingClient = openClient(options, new (httpOf(endpoint.protocol).Agent)(), callTimeoutMs);
  const assemblingClient = openClient(options, agent, assembleTimeoutMs);
  const pingClient = openClient(options, agent, pingTimeoutMs);
  const fixedCredentials = options.uploadCredentials;
  const uploadCredentials =
    fixedCredentials === undefined ? openTemporaryCredentials(options, 's3:PutObject') : async () => fixedCredentials;
  const readCredentials = openTemporaryCredentials(options, 's3:GetObject');
  let bucketIsThere = false;
  /** From when on URLs for gateways are tried again, by performance.now(). */
  const gatewayUrlsFrom = { put: 0, get: 0 };
  /** Whether the server at the endpoint has answered as an S3 does. */
  let isRecognized = false;

  async function ensureBucket(s3 = client): Promise<void> {
    if (bucketIsThere) return;
    if (!(await s3.bucketExists(bucket))) {
      try {
        await s3.makeBucket(bucket, region);
        log.info({ bucket }, 'made the bucket for contents');
      } catch (error) {
        // Another process has made it meanwhile.
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

  /** A URL at `base` to which one part of this size may be PUT. */
  async function signedPartUrl(base: URL, upload: OpenUpload, number: number, size: number, lifetime: number) {
    const { key, uploadId } = upload;
    checkKey(key);
    const url = objectUrl(base, bucket, key, { uploadId, partNumber: number + 1 });
    const signer = await uploadCredentials(lifetime);
    return presign('PUT', url, { 'content-length': String(size) }, signer, scope, lifetime);
  }

  /** What `make` signs for a gateway; undefined while the store gives out no credentials that are limited to that. */
  async function gatewayUrl(what: 'put' | 'get', make: () => Promise<string>): Promise<string | undefined> {
    if (performance.now() < gatewayUrlsFrom[what]) return undefined;
    try {
      return await make();
    } catch (error) {
      if (error instanceof TypeError) throw error;
      if (gatewayUrlsFrom[what] === 0) {
        log.warn({ err: error }, `gateways can't ${what} contents at the S3 themselves: this service passes them on`);
      }
      gatewayUrlsFrom[what] = performance.now() + credentialsPauseMs;
      return undefined;
    }
  }

  /** The parts of an upload as S3 numbers them, with their tags. */
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
      // A missing bucket gives the same answer: then it is the wrong store, or the bucket has been deleted.
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

  /** S3 completes no upload without parts, so one without content gets an empty part. */
  async function putEmptyPart(upload: OpenUpload): Promise<void> {
    try {
      await put(upload, 1, 0, nothing(), AbortSignal.timeout(assembleTimeoutMs));
    } catch (error) {
      // Another process is completing it, too: the next look at the upload shows how that ended.
      if (!(error instanceof HubError && error.reason === 'UPLOAD_CLOSED')) throw error;
    }
  }

  /** @returns false if the parts or the upload have changed since they were listed */
  async function complete({ key, uploadId }: OpenUpload, parts: S3Part[]): Promise<boolean> {
    try {
      await assemblingClient.completeMultipartUpload(bucket, key, uploadId, parts);
      return true;
    } catch (error) {
      // S3 may report it in an answer with status 200, for which minio gives no code.
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
    minPartBytes: 5 * mebibyte,

    async open(key) {
      checkKey(key);
      return translated(async () => {
        for (;;) {
          const believedThere = bucketIsThere;
          try {
            await ensureBucket();
          } catch (error) {
            throw unsent(meaning(error));
          }
          try {
            return await openingClient.openUpload(bucket, key);
          } catch (error) {
            if (hadNoConnection(error)) throw unsent(error);
            // The bucket has been deleted since we saw it.
            if (codeOf(error) !== 'NoSuchBucket' || !believedThere) throw error;
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
        for (let attempt = 1; attempt <= maxAssembleAttempts; attempt++) {
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
        throw unavailable(new Error(`the parts changed ${maxAssembleAttempts} times while they were assembled`));
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
      // A store closes the connection of a reader that pauses, MinIO within half a minute: then the rest is asked for, as long as each
      // request brings some bytes.
      for (let [at, lastFailedAt] = [start, -1]; at < end;) {
        const request = signedRequest('GET', key, { range: `bytes=${at}-${end - 1}` });
        try {
          for await (const piece of receive(readingAgent, request, end - at, signal)) {
            at += piece.byteLength;
            yield piece;
          }
        } catch (error) {
          if (error instanceof HubError && at > lastFailedAt && at > start) {
            lastFailedAt = at;
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
        // The uploads first, so that none can become an object after the object is removed.
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
      return gatewayUrl('put', () => signedPartUrl(endpoint, upload, number, size, gatewayPutLifetimeSeconds));
    },

    async innerUrl(key) {
      checkKey(key);
      return gatewayUrl('get', async () => {
        const signer = await readCredentials(gatewayGetLifetimeSeconds);
        return presign('GET', objectUrl(endpoint, bucket, key), {}, signer, scope, gatewayGetLifetimeSeconds);
      });
    },

    async ping() {
      await translated(async () => {
        // Also if the bucket was seen before: it may have been deleted.
        if (bucketIsThere && !(await pingClient.bucketExists(bucket))) bucketIsThere = false;
        await ensureBucket(pingClient);
        // A web server that answers every path with a page would pass for a bucket.
        if (!isRecognized) await pingClient.uploadsOf(bucket, '', '', '');
        isRecognized = true;
      });
    },

    async close() {
      agent.destroy();
      readingAgent.destroy();
    },
  };
}

/** A part of an upload, by S3's own number. */
interface PartOfUpload {
  uploadId: string;
  partNumber: number;
}

/** A path-style URL, with the bucket in the path: every S3 takes it. */
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
