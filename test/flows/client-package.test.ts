import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { buildClient } from '../../dev/client/package.ts';
import { isOnPath } from '../../dev/engines/install.ts';
import { startMesh } from '../harness.ts';
import { opened, openedFolder } from '../opened.ts';

/** The client as the package that others install: compiled, in Node and in a browser. */

const root = path.resolve(import.meta.dirname, '../..');
const client = path.join(root, 'client');
/** A program's folder, in which the package is installed. */
const folder = openedFolder('chat4all-package-');
const installed = path.join(folder, 'node_modules/@chat4all/client');

test.serial.before(async (t) => {
  t.timeout(120_000);
  await mkdir(installed, { recursive: true });
  buildClient(path.join(installed, 'dist'));
  await cp(path.join(client, 'package.json'), path.join(installed, 'package.json'));
  await cp(path.join(client, 'examples'), path.join(installed, 'examples'), { recursive: true });
});

/** Serves the package and a page that uses it, and hears from that page how it went. */
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

test('package: the first program of its README does what it says', async (t) => {
  const readme = await readFile(path.join(client, 'README.md'), 'utf8');
  const [, program] = /```js\n([^]*?)```/.exec(readme)!;
  t.true(program!.trim().split('\n').length <= 15);
  const file = path.join(folder, 'first.mjs');
  await writeFile(file, program!.replace('http://localhost:8000', mesh.url));
  const { stdout } = await promisify(execFile)(process.execPath, [file], { timeout: 60_000 });
  t.is(stdout, 'accepted\n');
});

const programs: Record<string, string> = {
  right: `
    import { createClient, outcomeOf, type Client } from '@chat4all/client';
    import { MessageStatus, type SendMessageRequest } from '@chat4all/client/message';
    import type { ReplayDeadLettersRequest } from '@chat4all/client/operations';
    import type { ChatResponse } from '@chat4all/client/assistant';
    export const client: Client = createClient({ baseUrl: 'http://x', token: async () => 't' });
    export async function send(request: SendMessageRequest): Promise<boolean> {
      const { ok, value, refusal } = await outcomeOf(client.message.sendMessage(request, { timeout: 1 }));
      if (!ok && refusal.code === 'NOT_A_MEMBER') return false;
      return value?.status === MessageStatus.MESSAGE_STATUS_ACCEPTED;
    }
    export const textOf = (event: ChatResponse) => (event.type === 'text' ? event.data.delta : '');
    export type Replay = ReplayDeadLettersRequest;
    void client.auth.getCurrentUser();`,
  'a required field is missing': `
    import { createClient } from '@chat4all/client';
    void createClient({}).message.sendMessage({ conversation_id: 'x' });`,
  'a code that the call does not have': `
    import { createClient, outcomeOf } from '@chat4all/client';
    const { refusal } = await outcomeOf(createClient({}).message.getMessage({ message_id: 'x' }));
    export const isIt = refusal?.code === 'EMAIL_TAKEN';`,
  'a value that the enum does not have': `
    import { createClient } from '@chat4all/client';
    void createClient({}).conversation.createConversation({ type: 'crowd', members: [] });`,
  'what a part of a path is not left out': `
    import { createClient } from '@chat4all/client';
    void createClient({}).assistant.chat({ message: 'x' });`,
};

for (const resolution of ['nodenext', 'bundler']) {
  test(`package: the type checker knows what is right and what is wrong (${resolution})`, async (t) => {
    t.timeout(120_000);
    const project = path.join(folder, resolution);
    await mkdir(project);
    const names = Object.keys(programs);
    for (const [index, name] of names.entries()) await writeFile(path.join(project, `${index}.mts`), programs[name]!);
    const options = {
      strict: true,
      noEmit: true,
      target: 'es2022',
      lib: ['es2022', 'dom', 'dom.iterable'],
      types: [],
      module: resolution === 'bundler' ? 'esnext' : resolution,
      moduleResolution: resolution,
    };
    await writeFile(path.join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions: options }));
    const tsc = path.join(root, 'node_modules/.bin/tsc');
    const output = await new Promise<string>((resolve) => {
      execFile(tsc, ['-p', project, '--pretty', 'false'], { timeout: 100_000 }, (_error, stdout) => resolve(stdout));
    });
    const wrong = new Set([...output.matchAll(/^.*?(\d)\.mts\(/gm)].map(([, index]) => names[Number(index)]));
    t.deepEqual([...wrong], names.slice(1), output);
  });
}

const chromium = ['chromium', 'google-chrome'].find(isOnPath);
if (chromium === undefined && process.env.CI === 'true') throw new Error('With CI=true there must be a chromium');
const inBrowser = chromium === undefined ? test.skip : test;

inBrowser('package: it works in a browser, on a page of another origin', async (t) => {
  const profile = await mkdtemp(path.join(tmpdir(), 'chat4all-chromium-'));
  const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'];
  const quiet = ['--disable-background-networking', '--disable-component-update', `--user-data-dir=${profile}`];
  const page = `${site.url}/examples/browser.html?hub=${encodeURIComponent(mesh.url)}`;
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
    page: 'page.bin to user2: delivered',
    left: 0,
    refused: 'INVALID_ARGUMENT',
    downloaded: 'bytes of a browser',
    events: ['start', 'finish'],
  });
});

/** What somebody does on the page of the example, and what else a page may do. */
const visitor = `<script type="module">
import { createClient } from '@chat4all/client';

async function usePage() {
  const [form, output] = ['form', 'output'].map((id) => document.getElementById(id));
  const chosen = new DataTransfer();
  chosen.items.add(new File([new Uint8Array(12_000_000).fill(7)], 'page.bin'));
  form.file.files = chosen.files;
  form.requestSubmit();
  while (!/delivered|failed|password|error/.test(output.textContent)) await new Promise((resolve) => setTimeout(resolve, 50));
  return output.textContent;
}

async function run() {
  const page = await usePage();
  const baseUrl = new URLSearchParams(location.search).get('hub');
  const { auth } = createClient({ baseUrl });
  const token = async () => (await auth.issueToken({ username: 'user1', password: 'password123' })).token;
  const client = createClient({ baseUrl, token });
  const { file_id } = await client.uploadFile(new Blob(['bytes of a browser']), { filename: 'page.txt' });
  const downloaded = await (await client.downloadFile({ file_id })).text();
  const refused = await client.conversation.createConversation({}).catch((error) => error.code);
  const { user_id } = await client.auth.getCurrentUser();
  const types = [];
  for await (const { type } of client.assistant.chatEvents({ user_id, message: 'How are you?' })) types.push(type);
  return { page, left: localStorage.length, refused, downloaded, events: types.filter((type) => type !== 'text') };
}
run().catch((error) => ({ error: String(error) })).then((told) => fetch('/told', { method: 'POST', body: JSON.stringify(told) }));
</script>`;

async function serve(url: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname } = new URL(url, site.url);
  if (pathname === '/told') {
    told.resolve((await request.toArray()).join(''));
    response.end();
    return;
  }
  try {
    const text = await readFile(path.join(installed, path.normalize(pathname)), 'utf8');
    const isPage = pathname.endsWith('.html');
    response.setHeader('content-type', isPage ? 'text/html' : 'text/javascript');
    response.end(isPage ? text.replace('</body>', `${visitor}</body>`) : text);
  } catch {
    response.writeHead(404).end();
  }
}
