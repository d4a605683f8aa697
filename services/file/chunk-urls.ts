import { hkdfSync } from 'node:crypto';
import { hubTime } from '#lib/clock.ts';
import { signatureOf, sizeOfChunk, type File } from './file.ts';
import type { Storage } from './storage/storage.ts';

/** Derives the signing key from a secret of UPLOAD_URL_KEYS. */
export function urlKeyOf(secret: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', 'chat4all upload URLs', 32));
}

/** Makes URLs to which clients can PUT a chunk without a token. */
export interface ChunkUrls {
  /** @param origin the gateway's, for stores that can't accept chunks from clients directly */
  of(file: File, chunkId: number, origin: string): Promise<string>;
}

/** @param lifetime of a URL, in milliseconds */
export function openChunkUrls({
  storage,
  key,
  lifetime,
}: {
  storage: Storage;
  key: Buffer;
  lifetime: number;
}): ChunkUrls {
  const seconds = Math.ceil(lifetime / 1_000);
  return {
    async of(file, chunkId, origin) {
      const { fileId, uploadId } = file;
      if (storage.partUrl !== undefined && uploadId !== null) {
        return storage.partUrl({ key: fileId, uploadId }, chunkId, sizeOfChunk(file, chunkId), seconds);
      }
      const claims = {
        fileId,
        chunkId: String(chunkId),
        expires: String(Math.ceil(hubTime() / 1_000) + seconds),
      };
      const query = new URLSearchParams({
        file_id: claims.fileId,
        chunk_id: claims.chunkId,
        expires: claims.expires,
        signature: signatureOf(claims, key).toString('base64url'),
      });
      return `${origin}/v1/files/upload?${query.toString()}`;
    },
  };
}
