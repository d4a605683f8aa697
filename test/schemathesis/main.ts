import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs, promisify } from 'node:util';
import type { commands } from '../bench/hub.ts';
import { openRemote } from '../bench/remote.ts';

/**
 * `npm run schemathesis [-- --examples N --cases N]`: lets Schemathesis (PyPI, pinned in requirements.txt) make requests of the
 * OpenAPI document of a hub of its own, as a user and as an administrator, and check each answer against the document: no 5xx, no
 * status, header, type or body that it doesn't say. It fails if anything fails, or if there were fewer cases than asked for.
 *
 * It needs Python 3.10 or newer, and PyPI at the first time: what it installs is kept in .chat4all/schemathesis.
 */

const usage =
  'usage: npm run schemathesis [-- --examples <for each endpoint, 60> --cases <how many at least in all, 5000>]';

const here = import.meta.dirname;
const kept = path.resolve(here, '../../.chat4all/schemathesis');
const installLimit = 5 * 60_000;
const startLimit = 120_000;
/** Milliseconds after which a run has failed. */
const longestRun = 15 * 60_000;

const stopped = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopped.abort(new Error(signal)));

process.exitCode = await main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  return 1;
});

async function main(): Promise<number> {
  const { examples, cases } = read();
  const program = await install();
  await using cleanUp = new AsyncDisposableStack();
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-schemathesis-'));
  cleanUp.defer(() => rm(folder, { recursive: true, force: true }));
  const log = await open(path.join(folder, 'hub.log'), 'a');
  const hub = openRemote<typeof commands>(path.join(here, '../bench/hub.ts'), log.fd, stopped.signal);
  cleanUp.defer(() => hub.stop());
  await log.close();
  const env = {
    DATABASE_URL: undefined,
    KAFKA_BROKERS: undefined,
    S3_ENDPOINT: undefined,
    RATE_LIMIT: '0',
    ADMIN_USERS: 'user5',
  };
  const { url } = await hub.ask('start', { dataDir: path.join(folder, 'data'), env }, startLimit);

  let made = 0;
  let isRight = true;
  for (const username of ['user1', 'user5']) {
    console.log(`\nAs ${username}:`);
    const { code, count } = await run(program, url, await logIn(url, username), examples);
    made += count;
    isRight &&= code === 0;
  }
  const verdict = !isRight ? 'with failures' : made < cases ? `too few: ${cases} were asked for` : 'no failures';
  console.log(`\n${made} cases, ${verdict}`);
  return isRight && made >= cases ? 0 : 1;
}

function read(): { examples: number; cases: number } {
  try {
    const { values } = parseArgs({
      options: { examples: { type: 'string', default: '60' }, cases: { type: 'string', default: '5000' } },
    });
    const [examples, cases] = [Number(values.examples), Number(values.cases)];
    if (Number.isInteger(examples) && examples > 0 && cases >= 0) return { examples, cases };
  } catch {
    // Said below.
  }
  throw new Error(usage);
}

/** Schemathesis in an environment of its own. @returns where the program is */
async function install(): Promise<string> {
  const program = path.join(kept, 'bin/schemathesis');
  const requirements = path.join(here, 'requirements.txt');
  const [made, wanted] = await Promise.all([stat(program).catch(() => undefined), stat(requirements)]);
  if (made !== undefined && made.mtimeMs >= wanted.mtimeMs) return program;
  console.log('Installing Schemathesis, only this once.');
  await mkdir(path.dirname(kept), { recursive: true });
  await rm(kept, { recursive: true, force: true });
  const exec = promisify(execFile);
  const options = { timeout: installLimit, signal: stopped.signal };
  await exec('python3', ['-m', 'venv', kept], options);
  // As wheels: nothing that is downloaded is built.
  await exec(
    path.join(kept, 'bin/pip'),
    ['install', '--quiet', '--disable-pip-version-check', '--only-binary', ':all:', '--no-deps', '-r', requirements],
    options,
  );
  return program;
}

async function logIn(url: string, username: string): Promise<string> {
  const response = await fetch(`${url}/auth/token`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ username, password: 'password123' }),
    signal: AbortSignal.timeout(30_000),
  });
  if (!response.ok) throw new Error(`${username} can't log in: ${response.status}`);
  return ((await response.json()) as { token: string }).token;
}

/** Runs it, shows what it writes, and counts the cases. */
async function run(
  program: string,
  url: string,
  token: string,
  examples: number,
): Promise<{ code: number; count: number }> {
  const about = ['--header', `Authorization: Bearer ${token}`, '--max-examples', String(examples)];
  const manner = ['--continue-on-failure', '--no-shrink', '--request-timeout', '30', '--warnings', 'off'];
  const child = spawn(
    program,
    ['--config-file', path.join(here, 'schemathesis.toml'), 'run', `${url}/openapi.json`, ...about, ...manner],
    // It remembers its examples in a folder of where it runs.
    { cwd: kept, stdio: ['ignore', 'pipe', 'inherit'], signal: stopped.signal, timeout: longestRun },
  );
  child.on('error', () => {});
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
    process.stdout.write(piece);
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code: code ?? 1, count: Number(/(\d+) generated/.exec(text)?.[1] ?? 0) };
}
