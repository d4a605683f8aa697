import test from 'ava';
import { isFreed, openedFileMeshes } from './file-meshes.ts';
import { complete, contentOf, detailsOf, download, everyChunk, initiate, mebibyte, sendChunks } from './files.ts';
import { ended, openConversation, send, type Person } from './meshes.ts';

// One store is enough, the faster one: what each does with large parts is in its contract.
const [mesh] = openedFileMeshes([['embedded', 'disk']], { people: 2 });

const { files, newPeople } = mesh!;
const gibibyte = 1024 * mebibyte;
/** Of services, gateway and clients, all in this process. */
const mostMemory = gibibyte / 2;

/** Watches what this process needs of memory beyond what it has needed before. */
function memoryWatch() {
  const before = process.memoryUsage.rss();
  let peak = before;
  const timer = setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), 20);
  return {
    stop() {
      clearInterval(timer);
      return peak - before;
    },
  };
}

test.serial(
  `${files}: a file of 2 GiB is uploaded in chunks of 64 MiB, three at a time, sent, downloaded, and never held`,
  async (t) => {
    t.timeout(5 * 60_000);
    const [owner, member] = newPeople(2) as [Person, Person];
    const content = contentOf('large', 2 * gibibyte);
    // Before its bytes are on their way.
    const checksum = await content.sha256();
    const upload = await initiate(owner, content, { filename: 'large.bin', chunkSize: 64 * mebibyte });
    const { file_id: fileId } = upload;
    t.is(upload.chunk_count, 32);
    // Warms up what is needed once.
    await sendChunks(upload, [31]);

    const began = Date.now();
    const uploading = memoryWatch();
    await sendChunks(upload, everyChunk(upload).toReversed().slice(1), 3);
    const uploaded = Date.now();
    t.like(await complete(upload), { status: 'completed', file_size: content.size, checksum });
    const completed = Date.now();
    const forUpload = uploading.stop();

    const id = await openConversation([owner, member]);
    const message = await ended(member, await send(owner, id, { payload: { type: 'file', file_id: fileId } }));
    t.is(message.status, 'delivered');
    t.like(message.payload, { filename: 'large.bin', file_size: content.size });
    const downloading = memoryWatch();
    const sent = Date.now();
    const got = await download(member, fileId, { timeout: 5 * 60_000 });
    const forDownload = downloading.stop();
    t.like(got, { status: 200, length: content.size, sha256: checksum });
    t.is(got.headers.get('content-length'), String(content.size));

    const inMebibytes = (bytes: number) => Math.round(bytes / mebibyte);
    t.log(
      `${uploaded - began} ms up, ${completed - uploaded} ms to complete, ${Date.now() - sent} ms down;`,
      `memory ${inMebibytes(forUpload)} MiB and ${inMebibytes(forDownload)} MiB`,
    );
    t.true(forUpload < mostMemory, `${forUpload} bytes of memory for the upload`);
    t.true(forDownload < mostMemory, `${forDownload} bytes of memory for the download`);
  },
);

test.serial(`${files}: an upload of 2 GiB that is given up leaves nothing`, async (t) => {
  const [owner] = mesh!.people as [Person];
  const upload = await initiate(owner, contentOf('given up', 2 * gibibyte), { chunkSize: 64 * mebibyte });
  await sendChunks(upload, [7]);
  t.is((await owner.rest.call('DELETE', `/v1/files/${upload.file_id}`)).status, 204);
  await isFreed(mesh!, upload.file_id);
  t.is((await detailsOf(owner, upload.file_id)).status, 'failed');
});
