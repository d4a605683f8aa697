import { EventEmitter } from 'node:events';
import type http from 'node:http';
import type { Agent, IncomingMessage } from 'node:http';
import { Client } from 'minio';
import { httpOf } from '#lib/http.ts';
import { unavailable } from './failures.ts';
import { codeOf } from './s3-failures.ts';
import type { Credentials } from './signature.ts';
import { wasClosed } from './transfer.ts';
import { elementsOf, fieldOf } from './xml.ts';

/** The longest answer that is read: a page of a thousand parts or uploads takes less than half of it. */
const maxAnswerChars = 2 * 1024 * 1024;

/** A part of an upload, by S3's own number and tag. */
export interface S3Part {
  part: number;
  size: number;
  etag: string;
  lastModified: Date;
}

/** minio's client with our own readers for answers about multipart uploads: its own can only read those of MinIO and AWS. */
export class S3Client extends Client {
  async openUpload(bucket: string, key: string): Promise<string> {
    const xml = await this.#ask('POST', bucket, key, { uploads: '' });
    return fieldOf(xml, 'UploadId') ?? unreadable('InitiateMultipartUpload');
  }

  /** All parts of an upload, in the order of their numbers. */
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
      // A marker that does not advance would make us ask for the same page for ever.
      if (!(Number(next) > Number(marker))) return unreadable('ListParts');
      marker = next;
    }
  }

  /** A page of the open uploads under exactly this key, with the markers of the next page. */
  async uploadsOf(bucket: string, key: string, keyMarker: string, uploadIdMarker: string) {
    const markers: Record<string, string> =
      keyMarker === '' ? {} : { 'key-marker': keyMarker, 'upload-id-marker': uploadIdMarker };
    const xml = await this.#ask('GET', bucket, '', { uploads: '', prefix: key, ...markers }).catch((error: unknown) => {
      // gofakes3 answers this where there are none.
      if (codeOf(error) === 'NoSuchUpload') return '<IsTruncated>false</IsTruncated>';
      throw error;
    });
    const page = {
      // S3 lists by prefix, so other keys that begin with this one are listed, too.
      uploadIds: elementsOf(xml, 'Upload').flatMap((upload) =>
        fieldOf(upload, 'Key') === key ? (fieldOf(upload, 'UploadId') ?? unreadable('ListMultipartUploads')) : [],
      ),
      isTruncated: isTruncated(xml, 'ListMultipartUploads'),
      nextKeyMarker: fieldOf(xml, 'NextKeyMarker') ?? '',
      nextUploadIdMarker: fieldOf(xml, 'NextUploadIdMarker') ?? '',
    };
    const isSamePage = page.nextKeyMarker === keyMarker && page.nextUploadIdMarker === uploadIdMarker;
    return page.isTruncated && isSamePage ? unreadable('ListMultipartUploads') : page;
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
      if (length > maxAnswerChars) return unreadable(`${method} in ${bucketName}`);
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
  throw new Error(`The answer to ${what} can't be read`);
}

/** A client whose requests fail after `timeoutMs`, and are never repeated. */
export function openClient(
  { endpoint, region, credentials }: { endpoint: URL; region: string; credentials: Credentials },
  agent: Agent,
  timeoutMs: number,
): S3Client {
  const { request } = httpOf(endpoint.protocol);
  return new S3Client({
    endPoint: endpoint.hostname,
    ...(endpoint.port !== '' && { port: Number(endpoint.port) }),
    useSSL: endpoint.protocol === 'https:',
    region,
    accessKey: credentials.accessKey,
    secretKey: credentials.secretKey,
    transportAgent: agent,
    // minio would repeat requests past our timeout, and log to the console.
    retryOptions: { disableRetry: true },
    transport: { request: withTimeout(timeoutMs, request) },
  });
}

/**
 * `request` with a timeout for the whole exchange. An answer with status 5xx, 408 or 429 becomes an error: minio would leave it unread
 * and the connection open. A kept-alive connection that the store has closed is replaced by a new one, since every request made
 * through this client is idempotent.
 */
function withTimeout(timeoutMs: number, request: typeof http.request): typeof http.request {
  type Callback = (response: IncomingMessage) => void;
  return ((options: http.RequestOptions, callback: Callback) => {
    const signal = AbortSignal.timeout(timeoutMs);
    // The part of ClientRequest that minio uses.
    const minioRequest = Object.assign(new EventEmitter(), {
      end: (body: string | Buffer) => begin(body, options.agent),
    });
    function begin(body: string | Buffer, agent: http.RequestOptions['agent']): void {
      const attempt = request({ ...options, agent, signal }, (response) => {
        const status = response.statusCode!;
        if (status < 500 && status !== 408 && status !== 429) return callback(response);
        attempt.destroy(unavailable(new Error(`HTTP status ${status}`)));
      });
      attempt.on('error', (error) => {
        if (wasClosed(attempt, error)) begin(body, false);
        else minioRequest.emit('error', error);
      });
      attempt.end(body);
    }
    return minioRequest;
  }) as unknown as typeof http.request;
}

/** Whether a request failed before it was connected, on a client that opens a connection for each request. */
export function hadNoConnection(error: unknown): boolean {
  const { code, syscall } = error as NodeJS.ErrnoException;
  // Node names no system call when a host has several addresses.
  return code === 'ECONNREFUSED' || syscall === 'connect' || syscall === 'getaddrinfo';
}
