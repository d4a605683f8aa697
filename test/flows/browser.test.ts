import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { stripTypeScriptTypes } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { isOnPath } from '../../dev/engines/install.ts';
import { startMesh } from '../harness.ts';
import { opened } from '../opened.ts';

const client = path.resolve(import.meta.dirname, '../../client');

/** Serves the client and a page that uses it, and hears from that page how it went. */
const site = opened(
  async () => {
    const server = createServer((request, response) => void serve(request.url ?? '/', request, response));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => server.close() };
  },
  (site) => site.close(),
);
const told = Promise.withResolvers<string>();

const mesh = opened(
  () => startMesh({ bus: 'embedded', env: { CORS_ORIGINS: site.url } }),
  (mesh) => mesh.stop(),
);

const chromium = ['chromium', 'google-chrome'].find(isOnPath);
if (chromium === undefined && process.env.CI === 'true') throw new Error('With CI=true there must be a chromium');
const inBrowser = chromium === undefined ? test.skip : test;

inBrowser('the client works in a browser, on a page of another origin', async (t) => {
  const profile = await mkdtemp(path.join(tmpdir(), 'chat4all-chromium-'));
  const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'];
  const quiet = ['--disable-background-networking', '--disable-component-update', `--user-data-dir=${profile}`];
  const page = `${site.url}/?hub=${encodeURIComponent(mesh.url)}`;
  const browser = spawn(chromium!, [...flags, ...quiet, page], { stdio: 'ignore', detached: true });
  t.teardown(async () => {
    process.kill(-browser.pid!, 'SIGKILL');
    await once(browser, 'exit');
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  const failed = new Promise<never>((_, reject) => {
    browser.once('error', reject).once('exit', (code) => reject(new Error(`${chromium} ended with ${code}`)));
  });
  failed.catch(() => {});
  t.deepEqual(JSON.parse(await Promise.race([told.promise, failed])), {
    status: 'delivered',
    refused: 'INVALID_ARGUMENT',
    downloaded: 'bytes of a browser',
  });
});

const html = `<!doctype html><script type="module">
import { AuthService } from '/gen/chat4all/auth/v1/auth.pb.ts';
import { ConversationService } from '/gen/chat4all/conversation/v1/conversation.pb.ts';
import { FileService } from '/gen/chat4all/file/v1/file.pb.ts';
import { MessageService } from '/gen/chat4all/message/v1/message.pb.ts';
import { downloadFile, uploadChunk } from '/files.ts';

async function run() {
  const pathPrefix = new URLSearchParams(location.search).get('hub');
  const { token, user_id: from } = await AuthService.IssueToken({ username: 'user1', password: 'password123' }, { pathPrefix });
  const init = { pathPrefix, headers: { authorization: 'Bearer ' + token } };
  const { conversation_id } = await ConversationService.CreateConversation({ type: 'private', members: ['user1', 'user2'] }, init);
  const content = new Blob(['bytes of a browser']);
  const { file_id } = await FileService.InitiateUpload({ filename: 'page.txt', file_size: content.size }, init);
  await uploadChunk({ file_id, chunk_id: 0 }, content, init);
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await content.arrayBuffer()));
  const checksum = [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  await FileService.CompleteUpload({ file_id, checksum }, init);
  const message_id = crypto.randomUUID();
  await MessageService.SendMessage({ message_id, conversation_id, from, channels: ['all'], payload: { type: 'file', file_id } }, init);
  let status;
  while (status !== 'delivered' && status !== 'failed') ({ status } = await MessageService.GetMessage({ message_id }, init));
  const refused = await ConversationService.CreateConversation({}, init).catch((error) => error.problem.error_code);
  const downloaded = await (await downloadFile({ file_id }, init)).text();
  return { status, refused, downloaded };
}
run().catch((error) => ({ error: String(error) })).then((told) => fetch('/told', { method: 'POST', body: JSON.stringify(told) }));
</script>`;

async function serve(url: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname } = new URL(url, site.url);
  if (pathname === '/told') {
    told.resolve((await request.toArray()).join(''));
    response.end();
  } else if (pathname.endsWith('.ts')) {
    const text = await readFile(path.join(client, path.normalize(pathname)), 'utf8');
    response.setHeader('content-type', 'text/javascript').end(stripTypeScriptTypes(text));
  } else {
    response.setHeader('content-type', 'text/html').end(html);
  }
}
