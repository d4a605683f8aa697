import { randomUUID } from 'node:crypto';
import { openAsBlob } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { ConnectionError, createClient, outcomeOf, RefusedError, type Client } from '../client/client.ts';
import type { GetMessageResponse } from '../client/gen/chat4all/message/v1/message.pb.ts';
import { openMemory, type Memory } from './upload-memory.ts';
import { askPassword, openProgress } from './upload-terminal.ts';

/** `npm run upload`: uploads a file to a hub by `uploadFile` of the client, and sends it. */

const usage = `npm run upload -- [options] <file>: uploads a file to a hub, and sends it

  --to <conversation id>    a conversation to send it to; may be repeated. Without it the file is only uploaded
  --channels <names>        over which channels, with commas (whatsapp,instagram); all by default
  --hub <url>               the hub; $HUB_URL or http://localhost:8000 by default
  --user <name>             who uploads; user1 by default
  --password <password>     else $HUB_PASSWORD, else it is asked for. On a hub on this machine user1, user2, … need none
  --parallel <1-16>         how many chunks are under way at once; 4 by default
  --chunk-size <MiB>        bytes of a chunk; chosen by the hub by default
  --direct                  the chunks go straight to the hub's store, by URLs that the hub signs
  --anew                    forgets what was done with this file before
  --help

Interrupted, it goes on where it stopped when it is started again in the same way; repeated, it sends nothing twice. What
it has begun is remembered in $XDG_STATE_HOME/chat4all/uploads.json (~/.local/state by default).

Exit code 0 if everything was done, 1 if not, 64 if it was called wrongly, 130 if it was interrupted.`;

interface Options {
  /** Absolute. */
  file: string;
  conversations: string[];
  /** In the order of the alphabet. */
  channels: string[];
  hub: string;
  username: string;
  password: string | undefined;
  parallel: number;
  /** Bytes. */
  chunkSize: number | undefined;
  direct: boolean;
  anew: boolean;
}

/** What is wrong with the call of this program, or with the file, for people. */
class UsageError extends Error {}
class SourceError extends Error {}

/** A message ends within 30 s. Milliseconds. */
const endLimit = 40_000;
const lookEvery = 200;
/** What all chunks under way wait for is said once. Milliseconds. */
const sayAgainAfter = 3_000;

const progress = openProgress(process.stderr);
let said = { text: '', at: 0 };

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  // What has arrived is remembered by the hub, and what was begun is written down before the first chunk.
  process.on(signal, () => {
    progress.end();
    progress.note('\nStopped. To go on from here, start it again in the same way.');
    process.exit(code);
  });
}

try {
  process.exitCode = await main(readOptions());
} catch (error) {
  progress.end();
  if (error instanceof UsageError) console.error(`${error.message}\n\n${usage}`);
  else console.error(isForPeople(error) ? textOf(error) : error);
  process.exitCode = error instanceof UsageError ? 64 : 1;
}

function readOptions(): Options {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean', default: false } as const;
  const { values, positionals } = parse({
    to: { type: 'string', multiple: true, default: [] as string[] },
    channels: { ...text, default: 'all' },
    hub: { ...text, default: process.env.HUB_URL || 'http://localhost:8000' },
    user: { ...text, default: 'user1' },
    password: text,
    parallel: { ...text, default: '4' },
    'chunk-size': text,
    direct: flag,
    anew: flag,
    help: flag,
  });
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  const [file, ...more] = positionals;
  if (file === undefined) throw new UsageError('Which file?');
  if (more.length > 0) throw new UsageError(`One file at a time; these are more: ${more.join(' ')}`);
  if (!/^https?:\/\/[^/?#@\s]+\/*$/.test(values.hub) || !URL.canParse(values.hub)) {
    throw new UsageError('--hub must be http://host:port or https://host:port');
  }
  const chunkSize = values['chunk-size'];
  const channels = values.channels.split(',').map((name) => name.trim().toLowerCase());
  return {
    // npm starts us in the project's folder, whatever folder it was called in.
    file: path.resolve(process.env.INIT_CWD ?? '.', file),
    conversations: [...new Set(values.to.map((id) => id.toLowerCase()))],
    channels: [...new Set(channels.filter((name) => name !== ''))].toSorted(),
    hub: values.hub.replace(/\/+$/, ''),
    username: values.user,
    password: values.password ?? (process.env.HUB_PASSWORD || undefined),
    parallel: wholeNumber('--parallel', values.parallel, 16),
    chunkSize: chunkSize === undefined ? undefined : wholeNumber('--chunk-size', chunkSize, 1_024) * 2 ** 20,
    direct: values.direct,
    anew: values.anew,
  };
}

function parse<Given extends NonNullable<Parameters<typeof parseArgs>[0]>['options']>(options: Given) {
  try {
    return parseArgs({ options, allowPositionals: true });
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}

function wholeNumber(name: string, text: string, most: number): number {
  if (/^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= most) return Number(text);
  throw new UsageError(`${name} must be a whole number from 1 to ${most}`);
}

async function main(options: Options): Promise<number> {
  const { file, conversations, channels } = options;
  const source = await sourceOf(file);
  const client = await connect(options);
  const { user_id: from } = await client.auth.getCurrentUser();
  // Before anything is uploaded for nothing.
  for (const conversation_id of conversations) await client.conversation.getConversation({ conversation_id });

  const memory = openMemory();
  const uploaded = await upload(client, source, memory, options);
  console.log(`file_id       ${uploaded.file_id}`);
  console.log(`checksum      ${uploaded.checksum}`);
  console.log(`download_url  ${uploaded.download_url}`);

  let failed = 0;
  for (const conversation_id of conversations) {
    const key = ['message', uploaded.file_id, conversation_id, ...channels].join(' ');
    const message_id = (await memory.getItem(key)) ?? randomUUID();
    // Before it is sent: whoever repeats it sends the same one.
    await memory.setItem(key, message_id);
    const payload = { type: 'file' as const, file_id: uploaded.file_id };
    await client.message.sendMessage({ message_id, conversation_id, from, channels, payload });
    const { status, history } = await ended(client, message_id);
    const why = status === 'failed' ? `: ${history.at(-1)?.note ?? ''}` : '';
    console.log(`message_id    ${message_id}  ${status}${why}  (to ${conversation_id})`);
    if (status === 'failed') failed += 1;
  }
  return failed === 0 ? 0 : 1;
}

/** A file that is there, and when it was last changed. @throws SourceError */
async function sourceOf(file: string): Promise<{ blob: Blob; mtime: bigint }> {
  try {
    const found = await stat(file, { bigint: true });
    if (!found.isFile()) throw new SourceError(`${file}: only a file can be uploaded`);
    return { blob: await openAsBlob(file), mtime: found.mtimeNs };
  } catch (error) {
    if (error instanceof SourceError) throw error;
    const reasons: Record<string, string> = { ENOENT: 'there is no such file', EACCES: 'you may not read it' };
    const { code = '', message } = error as NodeJS.ErrnoException;
    throw new SourceError(`${file}: ${reasons[code] ?? message}`, { cause: error });
  }
}

/** A client of somebody who is logged in, and is so again when the token has expired. */
async function connect(options: Options): Promise<Client> {
  const { hub: baseUrl, username } = options;
  const password = options.password ?? (await passwordOf(options));
  const { auth } = createClient({ baseUrl });
  const login = async () => (await auth.issueToken({ username, password })).token;
  try {
    let first: string | undefined = await login();
    return createClient({
      baseUrl,
      async token() {
        const token = first ?? (await login());
        first = undefined;
        return token;
      },
    });
  } catch (error) {
    if (error instanceof ConnectionError) throw new SourceError(`No hub answers: ${textOf(error)}`, { cause: error });
    throw error;
  }
}

async function passwordOf({ hub, username }: Options): Promise<string> {
  const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(new URL(hub).hostname);
  // The users that every hub on a laptop has, as the README says.
  if (isHere && /^user\d+$/.test(username)) return 'password123';
  if (!process.stdin.isTTY) throw new UsageError(`What is the password of ${username}? Set HUB_PASSWORD`);
  return (await askPassword(`Password of ${username}: `, process.stdin, process.stderr)) ?? process.exit(130);
}

/** Uploads the file, or what of it isn't there yet. */
async function upload(
  client: Client,
  { blob, mtime }: { blob: Blob; mtime: bigint },
  memory: Memory,
  options: Options,
) {
  const { hub, username, file, parallel, chunkSize, direct, anew } = options;
  const [begun, done] = ['begun', 'done'].map((word) => [word, hub, username, file, blob.size, mtime].join(' '));
  if (anew) for (const key of [begun!, done!]) await memory.removeItem(key);
  const before = await memory.getItem(done!);
  if (before !== null) {
    const { value } = await outcomeOf(client.file.getFile({ file_id: before }));
    if (value?.status === 'completed') {
      progress.note('It was uploaded before');
      return value;
    }
  }
  try {
    const completed = await client.uploadFile(blob, {
      filename: path.basename(file),
      chunkSize,
      parallel,
      direct,
      memory: {
        getItem: () => memory.getItem(begun!),
        setItem: (_, value) => memory.setItem(begun!, value),
        removeItem: () => memory.removeItem(begun!),
      },
      onBegin({ chunk_count: count, missing, isResumed, abandoned }) {
        if (abandoned !== undefined) progress.note(`${abandoned}: beginning anew`);
        if (!isResumed) return;
        progress.note(`Resuming the earlier upload: ${count - missing} of ${count} chunks are there`);
      },
      onProgress({ phase, done, total }) {
        if (phase === 'uploading') return progress.show(done, total);
        progress.end();
        progress.note('Waiting until the hub has verified it');
      },
      onRetry: noteWait,
    });
    await memory.setItem(done!, completed.file_id);
    return completed;
  } catch (error) {
    if (!(error instanceof DOMException && error.name === 'NotReadableError')) throw error;
    throw new SourceError(`${file} was changed while it was uploaded: begin again once nobody writes to it`, {
      cause: error,
    });
  }
}

/** The message once it is delivered or failed, or as it is when that takes too long. */
async function ended(client: Client, message_id: string): Promise<GetMessageResponse> {
  for (const limit = performance.now() + endLimit; ;) {
    const message = await client.message.getMessage({ message_id });
    if (message.status === 'delivered' || message.status === 'failed' || performance.now() > limit) return message;
    await sleep(lookEvery);
  }
}

function noteWait(error: Error, wait: number): void {
  const text = textOf(error).split('\n', 1)[0] as string;
  const now = performance.now();
  if (said.text === text && now - said.at < sayAgainAfter) return;
  said = { text, at: now };
  progress.note(`${text}; trying again in ${(wait / 1_000).toFixed(1)} s`);
}

function isForPeople(error: unknown): error is Error {
  return [RefusedError, ConnectionError, SourceError].some((kind) => error instanceof kind);
}

/** What has gone wrong, for people: all wrong fields in lines of their own. */
function textOf(error: Error): string {
  if (error instanceof RefusedError) {
    const wrong = error.details.map(({ field, message }) => `  ${field} ${message}`);
    return [error.problem?.detail ?? error.message, ...wrong].join('\n');
  }
  const { code = '' } = (error.cause as { cause?: { code?: string } } | undefined)?.cause ?? {};
  const texts: Record<string, string> = {
    ECONNREFUSED: 'nothing listens there',
    ECONNRESET: 'the connection was cut',
    UND_ERR_SOCKET: 'the connection was cut',
    EPIPE: 'the connection was cut',
    ENOTFOUND: 'there is no such host',
    EAI_AGAIN: "the hub's address can't be looked up now",
  };
  return texts[code] ?? error.message;
}
