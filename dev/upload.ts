import path from 'node:path';
import { parseArgs } from 'node:util';
import { ConnectionError } from './upload/http.ts';
import { connect, Refusal, type Credentials } from './upload/hub.ts';
import { openMemory } from './upload/memory.ts';
import { askPassword } from './upload/password.ts';
import { openProgress } from './upload/progress.ts';
import { sendMessages } from './upload/messages.ts';
import { openSource, SourceError } from './upload/source.ts';
import { uploadFile } from './upload/file.ts';

/** `npm run upload`: uploads a file to a hub, and sends it. */

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
  file: string;
  conversations: string[];
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

class UsageError extends Error {}

const progress = openProgress(process.stderr);
/** What all chunks under way wait for is said once. Milliseconds. */
const sayAgainAfter = 3_000;
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
  if (error instanceof UsageError) {
    console.error(`${error.message}\n\n${usage}`);
    process.exitCode = 64;
  } else {
    const isForPeople = [Refusal, ConnectionError, SourceError].some((kind) => error instanceof kind);
    console.error(isForPeople ? (error as Error).message : error);
    process.exitCode = 1;
  }
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
  const { hub: url, username, conversations, channels } = options;
  await using source = await openSource(options.file);
  const credentials = await credentialsOf(options);
  const hub = await connect({
    url,
    credentials,
    onWait: noteWait,
  }).catch((error: Error) => {
    if (!(error instanceof ConnectionError)) throw error;
    throw new ConnectionError(`No hub answers: ${error.message}`, { cause: error });
  });
  // Before anything is uploaded for nothing.
  for (const id of conversations) await hub.call('GET', `/v1/conversations/${encodeURIComponent(id)}`);

  const memory = openMemory();
  const key = { hub: url, username, path: source.path };
  if (options.anew) await memory.forget(key);
  const { upload, file } = await uploadFile({ ...options, hub, source, memory, key, progress });
  console.log(`file_id       ${file.file_id}`);
  console.log(`checksum      ${file.checksum}`);
  console.log(`download_url  ${file.download_url}`);

  let failed = 0;
  for await (const { messageId, conversationId, status, why } of sendMessages({
    hub,
    memory,
    upload,
    conversations,
    channels,
  })) {
    console.log(`message_id    ${messageId}  ${status}${why === '' ? '' : `: ${why}`}  (to ${conversationId})`);
    if (status === 'failed') failed += 1;
  }
  return failed === 0 ? 0 : 1;
}

async function credentialsOf({ hub, username, password }: Options): Promise<Credentials> {
  if (password !== undefined) return { username, password };
  const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(new URL(hub).hostname);
  // The users that every hub on a laptop has, as the README says.
  if (isHere && /^user\d+$/.test(username)) return { username, password: 'password123' };
  if (!process.stdin.isTTY) throw new UsageError(`What is the password of ${username}? Set HUB_PASSWORD`);
  const asked = await askPassword(`Password of ${username}: `, process.stdin, process.stderr);
  if (asked === undefined) process.exit(130);
  return { username, password: asked };
}

function noteWait(reason: string, wait: number): void {
  const text = reason.split('\n', 1)[0] as string;
  const now = performance.now();
  if (said.text === text && now - said.at < sayAgainAfter) return;
  said = { text, at: now };
  progress.note(`${text}; trying again in ${(wait / 1_000).toFixed(1)} s`);
}
