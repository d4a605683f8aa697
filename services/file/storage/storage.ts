/**
 * The port to the store of contents. Two adapters: a folder on disk (`disk.ts`), on a laptop, and S3 (`s3.ts`); both pass `contract.ts`.
 *
 * Contents are streamed with backpressure, and never held in memory as a whole.
 */

/** An open upload. */
export interface OpenUpload {
  /** The key of the content: up to 64 letters, digits and hyphens, never reused for another content. */
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

/** A stream of bytes. A piece may be overwritten once the next one is requested. */
export type Bytes = AsyncIterable<Uint8Array>;

/**
 * Every method throws HubError UNAVAILABLE `STORE_UNAVAILABLE`, with a delay, if the store is unavailable or full, times out, refuses, or
 * gives an unreadable answer; further errors are documented with each method. An unavailable store is never taken for an empty one.
 */
export interface Storage {
  /** The minimum size of all parts but the last, in bytes. */
  readonly minPartBytes: number;

  /** Opens an upload under a new key. If this fails, the upload may still be opened, even later, unless the error is NotTried. */
  open(key: string): Promise<string>;

  /**
   * Stores a part, replacing an earlier one with its number. Returns once the bytes are durable.
   *
   * If `bytes` throws, that error is thrown and nothing changes; the same goes for the signal's reason if it aborts.
   *
   * @param size the number of bytes; `bytes` yields exactly that many, or throws
   * @throws HubError ABORTED `UPLOAD_CLOSED` if the upload was assembled or removed
   */
  writePart(upload: OpenUpload, number: number, size: number, bytes: Bytes, signal: AbortSignal): Promise<void>;

  /** The stored parts, in order; undefined if the upload doesn't exist any more. */
  parts(upload: OpenUpload): Promise<StoredPart[] | undefined>;

  /**
   * Makes one object of the parts 0 to `count` - 1, which must all be stored, and closes the upload. Without parts the object is empty. May
   * be repeated, also by another process.
   *
   * @throws HubError ABORTED `UPLOAD_CLOSED` if neither the upload nor the object exists
   */
  assemble(upload: OpenUpload, count: number): Promise<void>;

  /** The size of an object in bytes; undefined if there is none. */
  size(key: string): Promise<number | undefined>;

  /**
   * Reads an object from byte `start` to byte `end`, exclusive. The loop may be left early.
   *
   * @throws HubError NOT_FOUND `CONTENT_MISSING` if there is no such object, or it is shorter
   */
  read(key: string, range: { start: number; end: number }, signal: AbortSignal): Bytes;

  /** Removes everything under a key: the object, and uploads with all their parts. May be repeated. */
  remove(key: string): Promise<void>;

  /**
   * A URL to which the client can PUT one part directly, without a token. The store itself enforces the part, its size and the lifetime.
   * Missing where a store can't do that.
   *
   * @param lifetime seconds
   */
  partUrl?(upload: OpenUpload, number: number, size: number, lifetime: number): Promise<string>;

  /**
   * Such a URL for our own gateways, at the endpoint at which this process reaches the store. Missing where a store can't do that, and
   * undefined where it lacks the credentials.
   */
  innerPartUrl?(upload: OpenUpload, number: number, size: number): Promise<string | undefined>;

  /**
   * A URL for our own gateways to GET an object or ranges of it, at the endpoint at which this process reaches the store. Missing where a
   * store can't do that, and undefined where it lacks the credentials.
   */
  innerUrl?(key: string): Promise<string | undefined>;

  /** Fulfilled if the store answers within 2 s. */
  ping(): Promise<void>;

  close(): Promise<void>;
}
