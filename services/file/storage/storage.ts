/**
 * The port to the store of contents. Two adapters: a folder on disk (`disk.ts`), on a laptop, and S3 (`s3.ts`); both pass
 * `contract.ts`.
 *
 * Nothing is ever held whole: bytes come and go as streams, and the pace is that of the slower side.
 */

/** An upload that takes parts. */
export interface OpenUpload {
  /** What the content is kept under. Letters, digits and hyphens, at most 64; never used again for anything else. */
  key: string;
  /** What `open` returned. */
  uploadId: string;
}

/** A part of an upload, stored durably. */
export interface StoredPart {
  /** Counted from 0. */
  number: number;
  /** Bytes. */
  size: number;
  storedAt: Date;
}

/** Bytes as they come. A piece may be overwritten once the next one is requested. */
export type Bytes = AsyncIterable<Uint8Array>;

/**
 * Every method throws HubError UNAVAILABLE `STORE_UNAVAILABLE`, with a delay, if the store is away, full, doesn't answer in time,
 * refuses, or answers what nobody understands; what else it throws is said beside it. A store that is away is never taken for one that has nothing.
 */
export interface Storage {
  /** The least bytes that a part but the last may have. */
  readonly smallestPart: number;

  /**
   * Opens an upload under a new key. One that fails may open it all the same, and later than it fails, unless what it throws is
   * NotTried.
   */
  open(key: string): Promise<string>;

  /**
   * Stores a part, and replaces the one that was there. Returns once the bytes are durable.
   *
   * If `bytes` throws, that is thrown, and nothing has changed; likewise, with the signal's reason, if `signal` aborts it.
   *
   * @param size how many bytes there will be; `bytes` yields exactly as many, or throws
   * @throws HubError ABORTED `UPLOAD_CLOSED` if the upload was assembled or removed
   */
  writePart(upload: OpenUpload, number: number, size: number, bytes: Bytes, signal: AbortSignal): Promise<void>;

  /** The parts that are there, by number; undefined if there is no such upload, or not any more. */
  parts(upload: OpenUpload): Promise<StoredPart[] | undefined>;

  /**
   * Makes one object of the parts 0 to `count` - 1, all of which are there, and closes the upload. None make an empty object.
   * Repeated, also by another process, it changes nothing.
   *
   * @throws HubError ABORTED `UPLOAD_CLOSED` if there is neither such an upload nor the object
   */
  assemble(upload: OpenUpload, count: number): Promise<void>;

  /** The size of an object in bytes; undefined if there is none. */
  size(key: string): Promise<number | undefined>;

  /**
   * Reads an object from byte `start` up to byte `end`, exclusive. To stop before the end, leave the loop.
   *
   * @throws HubError NOT_FOUND `CONTENT_MISSING` if there is no such object, or it is shorter
   */
  read(key: string, range: { start: number; end: number }, signal: AbortSignal): Bytes;

  /** Removes whatever is under a key: the object, and uploads with all their parts. Repeated, it changes nothing. */
  remove(key: string): Promise<void>;

  /**
   * A URL that takes one part by PUT, without a token, straight from the client; the store itself sees to it that it is this
   * part, of this size, in this time, and that the URL is good for nothing else. Missing where a store can't do that.
   *
   * @param lifetime seconds
   */
  partUrl?(upload: OpenUpload, number: number, size: number, lifetime: number): Promise<string>;

  /**
   * Such a URL for a gateway of ours, not for clients: it leads to where this process reaches the store. Missing where a store
   * can't do that, and undefined where it isn't allowed to.
   */
  innerPartUrl?(upload: OpenUpload, number: number, size: number): Promise<string | undefined>;

  /**
   * A URL for a gateway of ours, not for clients, that answers GET with an object or ranges of it, where this process reaches the
   * store. Missing where a store can't do that, and undefined where it isn't allowed to.
   */
  innerUrl?(key: string): Promise<string | undefined>;

  /** Whether the store answers, within 2 s. */
  ping(): Promise<void>;

  close(): Promise<void>;
}
