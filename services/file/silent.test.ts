import { createHash, randomBytes } from 'node:crypto';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import test from 'ava';
import { v4 as uuid } from 'uuid';
import {
  FileServiceService,
  UploadChunkRequest,
  UploadChunkResponse,
  UploadSignedChunkRequest,
} from '#gen/chat4all/file/v1/file.ts';
import type { HubError } from '#lib/errors.ts';
import { fromServiceError } from '#lib/rpc/status.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';

const hub = opened(openHarness, (hub) => hub.stop());
const asIs = (bytes: Buffer) => bytes;
/** More than the 500 places that a file service has by default. */
const many = 510;

function metadataWith(values: Record<string, string>): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(values)) metadata.set(key, value);
  return metadata;
}

/** Begins a stream, and says what becomes of it. */
function stream(client: Client, path: string, metadata: Metadata, first?: Uint8Array) {
  const { promise: ended, resolve } = Promise.withResolvers<HubError | Buffer>();
  const call = client.makeClientStreamRequest(path, asIs, asIs, metadata, {}, (error: ServiceError | null, answer) => {
    resolve(error === null ? (answer as Buffer) : fromServiceError(error));
  });
  call.on('error', () => {});
  if (first !== undefined) call.write(Buffer.from(first));
  return { call, ended };
}

test('hundreds of streams that send nothing end nobody else’s upload, keep nobody from reading, and are ended', async (t) => {
  t.timeout(180_000);
  const { address } = await hub.startService('file');
  const openClient = () => {
    // A connection of its own, as another machine has it.
    const client = new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
    t.teardown(() => client.close());
    return client;
  };
  const [greedy, honest] = [uuid(), uuid()];
  const tokens = await Promise.all(
    [greedy, honest].map((userId) => hub.userToken({ userId, username: userId.slice(0, 8) })),
  );
  const [greedyUser, honestUser] = tokens.map((token) => hub.client(FileServiceService, address, { token: token! }));
  const shape = { filename: 'x', contentType: '', checksum: '', chunkSize: undefined };
  const content = randomBytes(1_000);
  const begin = { ...shape, fileSize: BigInt(content.byteLength) };
  const { fileId: greedyFile, uploadUrl } = await greedyUser!.initiateUpload(begin);
  const firstOf = (fileId: string) =>
    UploadChunkRequest.encode(UploadChunkRequest.fromPartial({ fileId, chunkId: 0 })).finish();
  const query = new URL(uploadUrl!, 'http://gateway').searchParams;
  const signed = UploadSignedChunkRequest.encode(
    UploadSignedChunkRequest.fromPartial({
      fileId: query.get('file_id')!,
      chunkId: query.get('chunk_id')!,
      expires: query.get('expires')!,
      signature: query.get('signature')!,
    }),
  ).finish();

  const stranger = (at: number) => metadataWith({ 'x-forwarded-for': `198.51.100.${at}` });
  const withToken = metadataWith({ authorization: `Bearer ${tokens[0]}` });
  const { path: signedPath } = FileServiceService.uploadSignedChunk;
  const { path: uploadPath } = FileServiceService.uploadChunk;
  const kinds = [
    // Without a token and a word.
    [signedPath, stranger(1), undefined],
    // With a token.
    [uploadPath, withToken, undefined],
    // With a first message that is in order.
    [uploadPath, withToken, firstOf(greedyFile)],
    [signedPath, stranger(2), signed],
  ] as const;
  const hostile = kinds.flatMap(([path, metadata, first]) => {
    const client = openClient();
    return Array.from({ length: many }, () => stream(client, path, metadata, first));
  });
  let over = 0;
  for (const { ended } of hostile) void ended.then(() => (over += 1));
  await eventually(
    'those that are over their share are refused',
    () => over,
    (count) => count >= hostile.length / 4,
  );

  const { fileId } = await honestUser!.initiateUpload(begin);
  const withHonest = metadataWith({ authorization: `Bearer ${tokens[1]}` });
  const upload = stream(openClient(), uploadPath, withHonest, firstOf(fileId));
  upload.call.write(Buffer.from(UploadChunkRequest.encode(UploadChunkRequest.fromPartial({ data: content })).finish()));
  upload.call.end();
  t.like(UploadChunkResponse.decode((await upload.ended) as Buffer), { receivedBytes: 1_000n });
  t.deepEqual((await honestUser!.getFile({ fileId })).missingChunks, []);
  const checksum = createHash('sha256').update(content).digest('hex');
  t.is((await honestUser!.completeUpload({ fileId, checksum })).checksum, checksum);
  const message = hub.client(FileServiceService, address, { token: await hub.serviceToken('message', 'file') });
  t.is((await message.shareFile({ fileId, senderId: honest, conversationId: '' })).fileSize, 1_000n);
  t.true(over < hostile.length, 'they were still there meanwhile');

  const reasons = await Promise.all(hostile.map(async ({ ended }) => ((await ended) as HubError).reason));
  t.true(reasons.includes('REQUEST_TIMEOUT') && reasons.includes('TOO_MANY_CALLS'), [...new Set(reasons)].join(' '));
  t.false(reasons.includes('OVERLOADED'), [...new Set(reasons)].join(' '));
});
