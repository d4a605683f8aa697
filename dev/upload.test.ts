import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { appendFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { eventually } from '../test/eventually.ts';
import { s3IsThere, startMesh, type Mesh } from '../test/harness.ts';
import { opened } from '../test/opened.ts';
import {
  openRest,
  type Conversation,
  type MessageDetails,
  type MessagePage,
  type Rest,
  type Token,
} from '../test/rest.ts';

/** Tests that count in the gateway's log are serial: nobody else may write there. */
const onDisk = opened(
  () => startMesh({ bus: 'embedded', files: 'disk', env: { MIN_CHUNK_SIZE: String(2 ** 20) } }),
  (mesh) => mesh.stop(),
);
const onS3 = s3IsThere
  ? opened(
      () => startMesh({ bus: 'embedded', files: 's3' }),
      (mesh) => mesh.stop(),
    )
  : undefined;
const user = opened(() => logIn(onDisk));

test('upload: a file is uploaded and sent, and a repetition sends nothing twice', async (t) => {
  const { file, content, upload } = await prepare(t, onDisk.url, 5 * 2 ** 20 + 1);
  const conversation = await openConversation(user);
  const options = ['--to', conversation, '--channels', 'whatsapp', '--chunk-size', '1', file];
  const first = await upload(...options);
  t.is(first.code, 0, first.errors);
  t.is(first.fields.checksum, createHash('sha256').update(content).digest('hex'));
  t.is(first.fields.download_url, `${onDisk.url}/v1/files/${first.fields.file_id}/content`);
  t.true(first.fields.message_id!.endsWith(`  delivered  (to ${conversation})`), first.output);

  const messageId = first.fields.message_id!.split(' ')[0]!;
  const { payload, channels } = await user.get<MessageDetails>(`/v1/messages/${messageId}`);
  t.like(payload, { type: 'file', file_id: first.fields.file_id!, filename: 'a file.bin', file_size: content.length });
  t.deepEqual(channels, ['whatsapp']);

  const again = await upload(...options);
  t.deepEqual(again.fields, first.fields);
  const { total } = await user.get<MessagePage>(`/v1/conversations/${conversation}/messages`);
  t.is(total, 1);
});

test('upload: what it remembers is for its user alone, and holds no secret', async (t) => {
  const { file, upload, memory } = await prepare(t, onDisk.url, 10);
  t.is((await upload(file, '--password', 'password123')).code, 0);
  t.is((await stat(memory)).mode & 0o777, 0o600);
  const text = await readFile(memory, 'utf8');
  t.regex(text, /"done http/);
  t.notRegex(text, /password|token|eyJ/i);
});

test('upload: an empty file has no chunk', async (t) => {
  const { file, upload } = await prepare(t, onDisk.url, 0);
  const { code, fields, errors } = await upload(file);
  t.is(code, 0, errors);
  t.is(fields.checksum, createHash('sha256').digest('hex'));
});

test.serial(
  'upload: stopped by Ctrl-C it says how to go on, and goes on with the chunks that are missing',
  async (t) => {
    const gate = await openGate(t, onDisk);
    const { file, upload } = await prepare(t, gate.url, 6 * 2 ** 20);
    const options = [file, '--chunk-size', '1', '--parallel', '1'];
    gate.intercept = ({ chunkId }) => (chunkId === 3 ? 'hold' : 'pass');
    const first = upload(...options);
    await eventually(
      'the fourth chunk is sent',
      () => gate.chunks.length,
      (count) => count === 4,
    );
    first.interrupt();
    const stopped = await first;
    t.is(stopped.code, 130);
    t.regex(stopped.errors, /start it again in the same way/);

    gate.intercept = () => 'pass';
    gate.chunks = [];
    const begun = onDisk.gateway.lines.length;
    const { code, fields, errors } = await upload(...options);
    t.is(code, 0, errors);
    t.regex(errors, /3 of 6 chunks are there/);
    t.deepEqual(gate.chunks, [3, 4, 5]);
    const lines = onDisk.gateway.lines.slice(begun);
    t.is(lines.filter((line) => line.includes('"PATCH"')).length, 3);
    t.is((await user.get<{ status: string }>(`/v1/files/${fields.file_id}`)).status, 'completed');
  },
);

test('upload: one that is gone meanwhile begins anew, and says so', async (t) => {
  const gate = await openGate(t, onDisk);
  const { file, upload, memory } = await prepare(t, gate.url, 3 * 2 ** 20);
  gate.intercept = () => 'hold';
  const first = upload(file);
  await eventually(
    'a chunk is sent',
    () => gate.chunks.length,
    (count) => count > 0,
  );
  first.interrupt();
  await first;
  const { items } = JSON.parse(await readFile(memory, 'utf8')) as { items: Record<string, { value: string }> };
  const begun = Object.entries(items).find(([key]) => key.startsWith('begun '))![1].value;
  t.is((await user.call('DELETE', `/v1/files/${begun}`)).status, 204);

  gate.intercept = () => 'pass';
  const { code, fields, errors } = await upload(file);
  t.is(code, 0, errors);
  t.regex(errors, /failed \(.*\): beginning anew/);
  t.not(fields.file_id, begun);
});

test('upload: what passes is waited for: a hub that is away, one that is busy, a token that has expired', async (t) => {
  const gate = await openGate(t, onDisk);
  const { file, upload } = await prepare(t, gate.url, 4 * 2 ** 20);
  const first = new Set([0, 1, 2]);
  gate.intercept = ({ chunkId }) => {
    if (chunkId === undefined || !first.delete(chunkId)) return 'pass';
    if (chunkId === 0) return 'cut';
    if (chunkId === 1) return { status: 503, problem: { error_code: 'STORE_UNAVAILABLE', retry_after: 1 } };
    return { status: 401, problem: { error_code: 'TOKEN_EXPIRED' } };
  };
  const { code, errors } = await upload(file, '--chunk-size', '1');
  t.is(code, 0, errors);
  t.deepEqual(
    gate.chunks.toSorted((a, b) => a - b),
    [0, 0, 1, 1, 2, 2, 3],
  );
  t.is(gate.logins, 2);
  t.regex(errors, /the connection was cut; trying again in 0\.\d s/);
  t.regex(errors, /Told by the test; trying again in 1\.\d s/);
});

test('upload: a file that is changed meanwhile is noticed, and its upload is given up', async (t) => {
  const gate = await openGate(t, onDisk);
  const { file, upload } = await prepare(t, gate.url, 3 * 2 ** 20);
  let fileId = '';
  gate.intercept = (call) => {
    fileId = call.fileId ?? fileId;
    return call.chunkId === 1 ? 'hold' : 'pass';
  };
  const running = upload(file, '--chunk-size', '1', '--parallel', '1');
  await eventually(
    'the second chunk is sent',
    () => gate.chunks.length,
    (count) => count === 2,
  );
  await appendFile(file, 'more');
  gate.intercept = () => 'pass';
  gate.release();
  const { code, errors } = await running;
  t.is(code, 1);
  t.regex(errors, /a file\.bin was changed while it was uploaded/);
  t.is((await user.get<{ status: string }>(`/v1/files/${fileId}`)).status, 'failed');
  t.is((await upload(file)).code, 0);
});

for (const [store, mesh] of [
  ['disk', onDisk],
  ['S3', onS3],
] as const) {
  const declare = mesh === undefined ? test.serial.skip : test.serial;
  declare(`upload: on ${store}, --direct puts the chunks to URLs of their own`, async (t) => {
    const { file, content, upload } = await prepare(t, mesh!.url, 11 * 2 ** 20);
    const conversation = await openConversation(await logIn(mesh!));
    const begun = mesh!.gateway.lines.length;
    const { code, fields, errors } = await upload('--direct', '--chunk-size', '5', '--to', conversation, file);
    t.is(code, 0, errors);
    t.is(fields.checksum, createHash('sha256').update(content).digest('hex'));
    const puts = mesh!.gateway.lines.slice(begun).filter((line) => line.includes('"PUT"'));
    t.is(puts.length >= 3, store === 'disk');
  });
}

test.serial('upload: what the hub refuses is said as the hub says it', async (t) => {
  const { file, upload } = await prepare(t, onDisk.url, 10);
  const begun = onDisk.gateway.lines.length;
  const cases: [string[], RegExp][] = [
    [['--password', 'wrong'], /^The username or the password is wrong$/m],
    [['--to', '5f0c36b6-4c5e-4f0a-9d5e-5f0c36b64c5e'], /^Conversation not found$/m],
    [['--to', '7'], /^ {2}conversation_id must be a valid UUID$/m],
  ];
  for (const [options, said] of cases) {
    const { code, errors, output } = await upload(file, ...options);
    t.is(code, 1);
    t.regex(errors, said);
    t.is(output, '');
  }
  // Before anything is uploaded.
  t.false(onDisk.gateway.lines.slice(begun).some((line) => line.includes('/v1/files')));
  const { errors } = await upload(file, '--chunk-size', '100');
  t.regex(errors, /^ {2}chunk_size must be from 1048576 to 67108864 bytes$/m);
});

test('upload: a hub or a file that is not there is an error, and a wrong call ends with 64', async (t) => {
  const { file, upload } = await prepare(t, onDisk.url, 10);
  const closed = createServer().listen(0, '127.0.0.1');
  await once(closed, 'listening');
  const { port } = closed.address() as AddressInfo;
  await once(closed.close(), 'close');
  const away = await upload(file, '--hub', `http://127.0.0.1:${port}`);
  t.is(away.code, 1);
  t.regex(away.errors, /^No hub answers: nothing listens there$/m);
  const missing = await upload(`${file}.missing`);
  t.is(missing.code, 1);
  t.regex(missing.errors, /there is no such file$/m);
  for (const options of [
    [],
    [file, file],
    [file, '--parallel', '17'],
    [file, '--hub', 'x'],
    [file, '--no-such-option'],
  ]) {
    const { code, errors } = await upload(...options);
    t.is(code, 64, errors);
    t.regex(errors, /npm run upload -- /);
  }
  const help = await upload('--help');
  t.is(help.code, 0);
  t.regex(help.output, /npm run upload -- /);
});

interface Outcome {
  code: number | null;
  output: string;
  errors: string;
  /** What is said on the output, by its name. */
  fields: Record<string, string>;
}

/** A file of random bytes, and the command with a memory of its own. */
async function prepare(t: ExecutionContext, hub: string, size: number) {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-upload-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'a file.bin');
  const content = randomBytes(size);
  await writeFile(file, content);
  const upload = (...options: string[]): Promise<Outcome> & { interrupt(): void } => {
    const env = { ...process.env, HUB_URL: hub, HUB_PASSWORD: '', XDG_STATE_HOME: folder, NODE_OPTIONS: '' };
    const child = spawn(process.execPath, [path.join(import.meta.dirname, 'upload.ts'), ...options], { env });
    t.teardown(() => child.kill('SIGKILL'));
    let output = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
    child.stdin.end();
    const outcome = once(child, 'close').then(([code]) => {
      const lines = output.split('\n').map((line) => /^(\w+) +(.*)$/.exec(line));
      const fields = Object.fromEntries(lines.flatMap((found) => (found === null ? [] : [[found[1], found[2]]])));
      return { code: code as number | null, output, errors, fields: fields as Record<string, string> };
    });
    return Object.assign(outcome, { interrupt: () => void child.kill('SIGINT') });
  };
  return { file, content, upload, memory: path.join(folder, 'chat4all', 'uploads.json') };
}

type Decision = 'pass' | 'hold' | 'cut' | { status: number; problem: { error_code: string; retry_after?: number } };

/** Stands between client and hub, and may get in the way of each chunk. */
async function openGate(t: ExecutionContext, mesh: Mesh) {
  const gate = {
    url: '',
    /** The ids of the chunks that were sent, in order. */
    chunks: [] as number[],
    logins: 0,
    intercept: (_chunk: { fileId?: string; chunkId?: number }): Decision => 'pass',
    /** Lets go what was held. */
    release: () => {},
  };
  const held: (() => void)[] = [];
  gate.release = () => held.splice(0).forEach((go) => go());
  const forward = (request: IncomingMessage, response: ServerResponse) => {
    const { method, headers } = request;
    const onward = httpRequest(`${mesh.url}${request.url}`, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => response.writableFinished || onward.destroy());
    request.pipe(onward);
  };
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url!, mesh.url);
    if (pathname === '/auth/token') gate.logins += 1;
    if (pathname !== '/v1/files/upload') return forward(request, response);
    const [fileId, chunkId] = [searchParams.get('file_id')!, Number(searchParams.get('chunk_id'))];
    gate.chunks.push(chunkId);
    const decision = gate.intercept({ fileId, chunkId });
    if (decision === 'pass') forward(request, response);
    else if (decision === 'hold') held.push(() => forward(request, response));
    else if (decision === 'cut') request.socket.destroy();
    else {
      const { status, problem } = decision;
      const retry = problem.retry_after === undefined ? {} : { 'Retry-After': String(problem.retry_after) };
      response.writeHead(status, { 'Content-Type': 'application/problem+json', ...retry });
      response.end(JSON.stringify({ detail: 'Told by the test', status, ...problem }));
      request.resume();
    }
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  gate.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return gate;
}

async function logIn(mesh: Mesh): Promise<Rest> {
  const { token } = await openRest(mesh.url).post<Token>('/auth/token', { username: 'user1', password: 'password123' });
  return openRest(mesh.url, token);
}

async function openConversation(rest: Rest): Promise<string> {
  const members = ['user1', 'user2'];
  return (await rest.post<Conversation>('/v1/conversations', { type: 'private', members })).conversation_id;
}
