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
import { createClient } from '/client.ts';

async function run() {
  const baseUrl = new URLSearchParams(location.search).get('hub');
  const { auth } = createClient({ baseUrl });
  const token = async () => (await auth.issueToken({ username: 'user1', password: 'password123' })).token;
  const client = createClient({ baseUrl, token });
  const { user_id: from } = await client.auth.getCurrentUser();
  const { conversation_id } = await client.conversation.createConversation({ type: 'private', members: ['user1', 'user2'] });
  const content = new File(['bytes of a browser'], 'page.txt');
  const { file_id } = await client.uploadFile(content, { memory: localStorage });
  const message_id = crypto.randomUUID();
  await client.message.sendMessage({ message_id, conversation_id, from, channels: ['all'], payload: { type: 'file', file_id } });
  let status;
  while (status !== 'delivered' && status !== 'failed') ({ status } = await client.message.getMessage({ message_id }));
  const refused = await client.conversation.createConversation({}).catch((error) => error.code);
  const downloaded = await (await client.downloadFile({ file_id })).text();
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
