// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as codes from '../../../codes.ts';

/** The status of a file. */
export const FileStatus = {
  /** No chunk has been uploaded yet. */
  FILE_STATUS_INITIATED: 'initiated',
  /** Some chunks have been uploaded. */
  FILE_STATUS_IN_PROGRESS: 'in_progress',
  /** The file is complete and verified. */
  FILE_STATUS_COMPLETED: 'completed',
  /** The upload was aborted, or its checksum was wrong. Nothing of it is kept. */
  FILE_STATUS_FAILED: 'failed',
} as const;
export type FileStatus = (typeof FileStatus)[keyof typeof FileStatus];

/** The status of a chunk. */
export const ChunkStatus = {
  /** Its bytes can be PUT to the URL in the same message. */
  CHUNK_STATUS_PENDING: 'pending',
  /** It is stored. */
  CHUNK_STATUS_UPLOADED: 'uploaded',
} as const;
export type ChunkStatus = (typeof ChunkStatus)[keyof typeof ChunkStatus];

/** The file to upload. */
export type InitiateUploadRequest = {
  /** The file's name: 1 to 255 bytes of UTF-8 without control characters. A label that is kept unchanged, not a path. */
  filename: string;
  /** The file's size in bytes: 0 to 2 GiB. An empty file has no chunks, and can be completed at once. */
  file_size: number;
  /** The file's media type; `application/octet-stream` by default. */
  content_type?: string;
  /** SHA-256 of the whole file in hex, if known already: CompleteUpload must then have the same. */
  checksum?: string;
  /** Size of the chunks in bytes, 5 to 64 MiB; by default chosen by the service. The last chunk may be smaller. */
  chunk_size?: number | null;
};

/** The upload that was begun. */
export type InitiateUploadResponse = {
  /** UUID of the file. */
  file_id: string;
  /** A URL to PUT chunk 0 to, without a token; null if there are no chunks. */
  upload_url: string | null;
  /** Bytes in each chunk but the last. */
  chunk_size: number;
  /** How many chunks there are: their ids are 0 to chunk_count - 1. */
  chunk_count: number;
  /** When the upload is aborted if there is no activity until then. Each chunk extends it. */
  expires_at: string;
  /** Always `initiated`. */
  status: FileStatus;
};

/** The chunk is stored. */
export type UploadChunkResponse = {
  /** UUID of the file. */
  file_id: string;
  /** Which chunk. */
  chunk_id: number;
  /** Always `uploaded`. */
  status: ChunkStatus;
  /** Bytes of the file that are stored so far, in all its chunks. */
  received_bytes: number;
  /** A URL to PUT the missing chunk with the lowest id to, without a token; null if none is missing. */
  next_upload_url: string | null;
};

/** The chunk is stored. */
export type UploadSignedChunkResponse = Record<string, never>;

/** Which chunk to get a URL for. */
export type GetChunkUploadUrlRequest = {
  /** UUID of the file. */
  file_id: string;
  /** Which chunk, counted from 0. */
  chunk_id: number;
  /** There are no options yet: over REST, the body is `{}`. */
  options?: ChunkUploadUrlOptions | null;
};

/** Options of a URL for a chunk. */
export type ChunkUploadUrlOptions = Record<string, never>;

/** Where the chunk can be put. */
export type GetChunkUploadUrlResponse = {
  /** UUID of the file. */
  file_id: string;
  /** Which chunk. */
  chunk_id: number;
  /** Always `pending`. */
  status: ChunkStatus;
  /** A URL to PUT this chunk to, without a token. */
  upload_url: string;
  /** Bytes of the file that are stored so far, in all its chunks. */
  received_bytes: number;
  /** A URL to PUT the missing chunk with the lowest id to, without a token; null if none is missing. */
  next_upload_url: string | null;
};

/** Which upload to end. */
export type CompleteUploadRequest = {
  /** UUID of the file. */
  file_id: string;
  /** SHA-256 of the whole, in hex. */
  checksum: string;
};

/** The file is whole and verified. */
export type CompleteUploadResponse = {
  /** UUID of the file. */
  file_id: string;
  /** Always `completed`. */
  status: FileStatus;
  /** Its name. */
  filename: string;
  /** Its size in bytes. */
  file_size: number;
  /** SHA-256 of the whole, in lower-case hex. */
  checksum: string;
  /** URL of its content, for users who may read it. */
  download_url: string;
};

/** Which file. */
export type GetFileRequest = {
  /** UUID of the file. */
  file_id: string;
};

/** A file's metadata. */
export type GetFileResponse = {
  /** UUID of the file. */
  file_id: string;
  /** User id of its owner. */
  owner_id: string;
  /** The file's name: a label, not a path. */
  filename: string;
  /** Its size in bytes. */
  file_size: number;
  /** Its media type. */
  content_type: string;
  /** SHA-256 of the whole, in lower-case hex; empty until it is completed. */
  checksum: string;
  /** Its status. */
  status: FileStatus;
  /** Why it failed, if it did. */
  error: string;
  /** Bytes in each chunk but the last. */
  chunk_size: number;
  /** How many chunks there are. */
  chunk_count: number;
  /** The ids of the chunks that are still to be uploaded: resume with these. */
  missing_chunks: number[];
  /** Bytes that are stored so far, in all chunks. */
  received_bytes: number;
  /** When the upload was begun. */
  created_at: string;
  /** The time of its last activity. */
  updated_at: string;
  /** When the upload is aborted if there is no activity until then; null once it has ended. */
  expires_at: string | null;
  /** URL of its content, for users who may read it; null until it is completed. */
  download_url: string | null;
};

/** Which file. */
export type DeleteFileRequest = {
  /** UUID of the file. */
  file_id: string;
};

/** The file was deleted. */
export type DeleteFileResponse = Record<string, never>;

/** The error codes of `initiateUpload`. */
export type InitiateUploadCode = 'DATABASE_UNAVAILABLE' | 'FILE_NOT_FOUND' | 'FILE_TOO_LARGE' | 'STORE_UNAVAILABLE' | 'TOO_MANY_UPLOADS' | 'UPLOAD_FAILED' | codes.CommonCode;

/** The error codes of `uploadChunk`. */
export type UploadChunkCode = 'CHUNK_DIGEST_MISMATCH' | 'CHUNK_SIZE_MISMATCH' | 'DATABASE_UNAVAILABLE' | 'FILE_COMPLETED' | 'FILE_NOT_FOUND' | 'MALFORMED_REQUEST' | 'NOT_THE_OWNER' | 'REQUEST_TIMEOUT' | 'STORE_UNAVAILABLE' | 'UPLOAD_COMPLETING' | 'UPLOAD_FAILED' | codes.CommonCode;

/** The error codes of `uploadSignedChunk`. */
export type UploadSignedChunkCode = 'CHUNK_DIGEST_MISMATCH' | 'CHUNK_SIZE_MISMATCH' | 'DATABASE_UNAVAILABLE' | 'FILE_COMPLETED' | 'FILE_NOT_FOUND' | 'MALFORMED_REQUEST' | 'REQUEST_TIMEOUT' | 'SIGNATURE_INVALID' | 'STORE_UNAVAILABLE' | 'UPLOAD_COMPLETING' | 'UPLOAD_FAILED' | codes.CommonCode;

/** The error codes of `getChunkUploadUrl`. */
export type GetChunkUploadUrlCode = 'DATABASE_UNAVAILABLE' | 'FILE_COMPLETED' | 'FILE_NOT_FOUND' | 'NOT_THE_OWNER' | 'STORE_UNAVAILABLE' | 'UPLOAD_COMPLETING' | 'UPLOAD_FAILED' | codes.CommonCode;

/** The error codes of `completeUpload`. */
export type CompleteUploadCode = 'CHECKSUM_MISMATCH' | 'CHUNKS_MISSING' | 'CONTENT_MISSING' | 'DATABASE_UNAVAILABLE' | 'FILE_COMPLETED' | 'FILE_NOT_FOUND' | 'NOT_THE_OWNER' | 'STOPPING' | 'STORE_UNAVAILABLE' | 'UPLOAD_COMPLETING' | 'UPLOAD_FAILED' | codes.CommonCode;

/** The error codes of `getFile`. */
export type GetFileCode = 'DATABASE_UNAVAILABLE' | 'FILE_NOT_FOUND' | 'NOT_A_READER' | 'SERVICE_UNAVAILABLE' | 'STORE_UNAVAILABLE' | 'UPLOAD_FAILED' | codes.CommonCode;

/** The error codes of `downloadFile`. */
export type DownloadFileCode = 'CONTENT_MISSING' | 'DATABASE_UNAVAILABLE' | 'FILE_NOT_COMPLETED' | 'FILE_NOT_FOUND' | 'NOT_A_READER' | 'RANGE_NOT_SATISFIABLE' | 'SERVICE_UNAVAILABLE' | 'STORE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `deleteFile`. */
export type DeleteFileCode = 'DATABASE_UNAVAILABLE' | 'FILE_NOT_FOUND' | 'FILE_SENT' | 'NOT_THE_OWNER' | 'UPLOAD_COMPLETING' | codes.CommonCode;

/**
 * Uploads, stores and serves files.
 *
 * An upload is: InitiateUpload; UploadChunk for each chunk, in any order and in parallel, each repeated as often as needed; CompleteUpload
 * with the SHA-256 of the whole file. After an interruption, GetFile tells which chunks are missing.
 */
export class FileService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** Begins an upload. */
  initiateUpload(request: InitiateUploadRequest, options?: CallOptions): Reply<InitiateUploadResponse, InitiateUploadCode> {
    return this.#caller.reply<InitiateUploadResponse>({ verb: 'POST', path: '/v1/files/initiate', body: '*' }, request, options);
  }

  /** Makes a URL to which one chunk of the caller's own upload can be PUT without a token. This alone uploads nothing. */
  getChunkUploadUrl(request: GetChunkUploadUrlRequest, options?: CallOptions): Reply<GetChunkUploadUrlResponse, GetChunkUploadUrlCode> {
    return this.#caller.reply<GetChunkUploadUrlResponse>({ verb: 'PATCH', path: '/v1/files/upload', body: 'options', empty: {}, isRepeatable: true }, request, options);
  }

  /**
   * Completes an upload: verifies the checksum of the file, and only then shows it as completed. May be repeated, with the same answer.
   * Takes some seconds for a large file, which is read once more.
   */
  completeUpload(request: CompleteUploadRequest, options?: CallOptions): Reply<CompleteUploadResponse, CompleteUploadCode> {
    return this.#caller.reply<CompleteUploadResponse>({ verb: 'POST', path: '/v1/files/complete', body: '*', isRepeatable: true, timeout: 305000 }, request, options);
  }

  /** Returns a file's metadata, to its owner and to the members of a conversation that it was sent to. */
  getFile(request: GetFileRequest, options?: CallOptions): Reply<GetFileResponse, GetFileCode> {
    return this.#caller.reply<GetFileResponse>({ verb: 'GET', path: '/v1/files/{file_id}', isRepeatable: true }, request, options);
  }

  /** Aborts an upload, which then is `failed`, or deletes the caller's own file if it failed or was never sent. */
  deleteFile(request: DeleteFileRequest, options?: CallOptions): Reply<DeleteFileResponse, DeleteFileCode> {
    return this.#caller.reply<DeleteFileResponse>({ verb: 'DELETE', path: '/v1/files/{file_id}' }, request, options);
  }
}
