import { v4 as uuid } from 'uuid';
import type { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { ChunkStatus, type FileServiceService } from '#gen/chat4all/file/v1/file.ts';
import { hubDate } from '#lib/clock.ts';
import { HubError } from '#lib/errors.ts';
import type { Call, UserCall } from '#lib/rpc/call.ts';
import type { Connection } from '#lib/rpc/client.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { ChunkUrls } from './chunk-urls.ts';
import {
  fileNotFound,
  notAReader,
  rangeOf,
  requireCompleted,
  requireOpen,
  requireOwner,
  requireSignature,
  shapeOf,
  sizeOfChunk,
  type File,
  type Limits,
  type Progress,
} from './file.ts';
import type { Storage } from './storage/storage.ts';
import type { Store } from './store.ts';
import type { Uploads } from './uploads.ts';
import { completed, described, initiated, isOpen, type ShownFile } from './wire.ts';

export interface HandlerOptions {
  store: Store;
  storage: Storage;
  uploads: Uploads;
  urls: ChunkUrls;
  conversations: Pick<Connection<typeof ConversationServiceService>, 'filterMemberships'>;
  limits: Limits;
  /** The keys that signatures of URLs are checked with. */
  urlKeys: readonly Buffer[];
  /** Milliseconds without activity after which an upload is aborted. */
  lifetime: number;
  /** URL of the gateway; undefined for the one that the client used. */
  publicUrl: string | undefined;
  /** Called when something has to be removed from the store. */
  onRemoval: () => void;
}

const sharesAtOnce = 1_000;
const noId = '00000000-0000-0000-0000-000000000000';
const nothing: Progress = { receivedBytes: 0, missing: [] };

export function openHandlers(options: HandlerOptions): Handlers<typeof FileServiceService> {
  const { store, storage, uploads, urls, conversations, limits, urlKeys, lifetime, publicUrl, onRemoval } = options;

  async function fileOf(fileId: string): Promise<File> {
    const file = await store.find(fileId);
    if (file === undefined) throw fileNotFound();
    return file;
  }

  async function ownFile(fileId: string, userId: string): Promise<File> {
    const file = await fileOf(fileId);
    requireOwner(file, userId);
    return file;
  }

  /** The file, if the user owns it or is a member of a conversation that it was sent to. */
  async function readableFile(fileId: string, userId: string): Promise<File> {
    const file = await fileOf(fileId);
    if (file.ownerId === userId) return file;
    for (let after = noId; ;) {
      const conversationIds = await store.sharedWith(fileId, after, sharesAtOnce);
      const last = conversationIds.at(-1);
      if (last === undefined) throw notAReader();
      const memberships = await conversations.filterMemberships({ userId, conversationIds });
      if (memberships.conversationIds.length > 0) return file;
      after = last;
    }
  }

  const originFor = (call: Call) => publicUrl ?? call.origin ?? '';
  const shown = (file: File, call: Call): ShownFile => ({ file, lifetime, origin: originFor(call) });

  async function nextUrl(file: File, [next]: readonly number[], call: Call): Promise<string | undefined> {
    return next === undefined ? undefined : urls.of(file, next, originFor(call));
  }

  return {
    async initiateUpload(request, call: UserCall) {
      const shape = shapeOf(Number(request.fileSize ?? 0n), request.chunkSize, limits);
      const file = {
        ...shape,
        fileId: uuid(),
        ownerId: call.caller.userId,
        filename: request.filename,
        contentType: request.contentType || 'application/octet-stream',
        expectedChecksum: request.checksum.toLowerCase() || null,
        createdAt: hubDate(),
      };
      return uploads.begin(file, async (begun) => {
        const first = begun.chunkCount === 0 ? [] : [0];
        return initiated(shown(begun, call), await nextUrl(begun, first, call));
      });
    },

    async uploadChunk({ fileId, chunkId = 0, contentDigest, contentLength }, call: UserCall, bytes) {
      const file = await ownFile(fileId, call.caller.userId);
      const announced = contentLength === undefined ? undefined : Number(contentLength);
      const { receivedBytes, missing } = await uploads.put(
        file,
        { chunkId, contentDigest, announced, bytes },
        call.signal,
      );
      return {
        fileId,
        chunkId,
        status: ChunkStatus.CHUNK_STATUS_UPLOADED,
        receivedBytes: BigInt(receivedBytes),
        nextUploadUrl: await nextUrl(file, missing, call),
      };
    },

    async uploadSignedChunk({ signature, contentDigest, contentLength, ...claims }, call, bytes) {
      requireSignature(claims, signature, urlKeys, hubDate());
      const announced = contentLength === undefined ? undefined : Number(contentLength);
      const chunk = { chunkId: Number(claims.chunkId), contentDigest, announced, bytes };
      await uploads.put(await fileOf(claims.fileId), chunk, call.signal);
      return {};
    },

    async getChunkUploadUrl({ fileId, chunkId = 0 }, call: UserCall) {
      const file = await ownFile(fileId, call.caller.userId);
      requireOpen(file, hubDate());
      sizeOfChunk(file, chunkId);
      const { receivedBytes, missing } = await uploads.progress(file);
      return {
        fileId,
        chunkId,
        status: ChunkStatus.CHUNK_STATUS_PENDING,
        uploadUrl: await urls.of(file, chunkId, originFor(call)),
        receivedBytes: BigInt(receivedBytes),
        nextUploadUrl: await nextUrl(file, missing, call),
      };
    },

    async completeUpload({ fileId, checksum }, call: UserCall) {
      const file = await uploads.complete(fileId, call.caller.userId, checksum.toLowerCase(), call.signal);
      return completed(shown(file, call));
    },

    async getFile({ fileId }, call: UserCall) {
      const file = await readableFile(fileId, call.caller.userId);
      const whole = { receivedBytes: file.fileSize, missing: [] };
      if (!isOpen(file)) return described(shown(file, call), file.status === 'completed' ? whole : nothing);
      const progress = await uploads.progress(file);
      // The store may have chunks that were uploaded by signed URLs.
      return described(shown(await fileOf(fileId), call), progress);
    },

    async downloadFile({ fileId, range, ifRange }, call: UserCall) {
      const file = await readableFile(fileId, call.caller.userId);
      requireCompleted(file);
      const content = await store.findContent(file.checksum);
      if (content === undefined) throw new Error(`The completed file ${fileId} has no content`);
      const wanted = ifRange === '' || ifRange === `"${file.checksum}"` ? range : '';
      const { start, end, isPart } = rangeOf(wanted, file.fileSize);
      return {
        head: {
          data: Buffer.alloc(0),
          filename: file.filename,
          contentType: file.contentType,
          checksum: file.checksum,
          contentLength: BigInt(end - start),
          contentRange: isPart ? `bytes ${start}-${end - 1}/${file.fileSize}` : '',
          acceptRanges: 'bytes',
        },
        body: storage.read(content.storageKey, { start, end }, call.signal),
        // An empty range can't be requested.
        place: async () => (end > start ? storage.innerUrl?.(content.storageKey) : undefined),
      };
    },

    async deleteFile({ fileId }, call: UserCall) {
      const file = await ownFile(fileId, call.caller.userId);
      if (isOpen(file) && (await uploads.abort(fileId, 'It was aborted by its owner'))) return {};
      const outcome = await store.delete(fileId);
      if (outcome === 'open') {
        throw new HubError('ABORTED', 'UPLOAD_COMPLETING', 'The upload is just being completed: try again');
      }
      if (outcome === 'sent') throw new HubError('ABORTED', 'FILE_SENT', 'The file was sent in a message, and is kept');
      onRemoval();
      return {};
    },

    async shareFile({ fileId, senderId, conversationId }) {
      const file = await readableFile(fileId, senderId);
      requireCompleted(file);
      if (conversationId !== '' && !(await store.share(fileId, conversationId))) throw fileNotFound();
      const { filename, fileSize, contentType } = file;
      return { filename, fileSize: BigInt(fileSize), contentType };
    },

    async verifyFile({ fileId }) {
      const file = await fileOf(fileId);
      requireCompleted(file);
      const content = await store.findContent(file.checksum);
      const size = content && (await storage.size(content.storageKey));
      if (size !== file.fileSize) {
        throw new HubError('NOT_FOUND', 'CONTENT_MISSING', 'The content of the file is not in the store');
      }
      return {};
    },
  };
}
