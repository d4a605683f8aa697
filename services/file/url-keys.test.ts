import { randomBytes } from 'node:crypto';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { FileServiceService, UploadSignedChunkRequest } from '#gen/chat4all/file/v1/file.ts';
import { fromServiceError } from '#lib/rpc/status.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';

const hub = opened(openHarness, (hub) => hub.stop());
const [older, newer] = ['Zk3-of-the-last-year', 'Qw7-of-this-year-yet'];
const content = randomBytes(1_000);

/** Puts the content to an upload URL, as a gateway does. @returns the reason of its refusal */
async function put(t: ExecutionContext, address: string, url: string): Promise<string> {
  const client = new Client(address, credentials.createInsecure());
  t.teardown(() => client.close());
  const query = new URL(url, 'http://gateway').searchParams;
  const claims = { fileId: query.get('file_id')!, chunkId: query.get('chunk_id')!, expires: query.get('expires')! };
  const encode = (message: object) =>
    Buffer.from(UploadSignedChunkRequest.encode(UploadSignedChunkRequest.fromPartial(message)).finish());
  return new Promise((resolve) => {
    const call = client.makeClientStreamRequest(
      FileServiceService.uploadSignedChunk.path,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      new Metadata(),
      { deadline: Date.now() + 20_000 },
      (error: ServiceError | null) => resolve(error === null ? 'OK' : fromServiceError(error).reason),
    );
    call.on('error', () => {});
    call.write(encode({ ...claims, signature: query.get('signature')! }));
    call.write(encode({ data: content }));
    call.end();
  });
}

test('UPLOAD_URL_KEYS: the first one signs, and what any of them has signed is believed', async (t) => {
  const [before, between, after] = await Promise.all(
    [older, `${newer}, ${older}`, newer].map((keys) => hub.startService('file', { UPLOAD_URL_KEYS: keys })),
  );
  const userId = uuid();
  const token = await hub.userToken({ userId, username: userId.slice(0, 8) });
  const urlOf = async ({ address }: { address: string }) => {
    const files = hub.client(FileServiceService, address, { token });
    const shape = { filename: 'x', contentType: '', checksum: '', chunkSize: undefined };
    return (await files.initiateUpload({ ...shape, fileSize: BigInt(content.byteLength) })).uploadUrl!;
  };
  const [old, fresh] = [await urlOf(before!), await urlOf(between!)];
  t.is(await put(t, after!.address, old), 'SIGNATURE_INVALID');
  t.is(await put(t, before!.address, fresh), 'SIGNATURE_INVALID');
  t.is(await put(t, between!.address, old), 'OK');
  t.is(await put(t, after!.address, fresh), 'OK');
});
