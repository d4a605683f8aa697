import { ChildProcess } from 'node:child_process';
import { registerHooks } from 'node:module';
import { Server, Socket } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

/**
 * `node --permission --allow-fs-read=* --allow-addons --allow-child-process test/loading.ts [--skipped] <test file…>`: loads
 * test files as AVA does, without running a hook or a test, and writes a line for each one that opens something:
 * `<file>: <what>`. Where there is none, it ends by itself. With `--skipped` it also says `<file>: skips <number of tests>`.
 *
 * Without the permission to write, a folder can't be made. Programs that end before their caller goes on may be run, to ask
 * whether something is there.
 */

/** In place of AVA: takes whatever is declared and runs nothing of it, but counts what is skipped. */
const inert = `
  const taker = (skips) => new Proxy(() => {}, {
    get: (_target, key) => taker(skips || key === 'skip'),
    apply: () => { if (skips) globalThis.skippedTests += 1; },
  });
  export default taker(false);`;
const counting = globalThis as unknown as { skippedTests: number };
registerHooks({
  resolve: (specifier, context, next) =>
    specifier === 'ava'
      ? { url: `data:text/javascript,${encodeURIComponent(inert)}`, shortCircuit: true }
      : next(specifier, context),
});

function refuse(what: string): () => never {
  return () => {
    throw new Error(what);
  };
}
Server.prototype.listen = refuse('listens for connections');
Socket.prototype.connect = refuse('opens a connection');
(ChildProcess.prototype as unknown as { spawn: unknown }).spawn = refuse('starts a program');

/** What is open beyond `before` and would keep this process alive, once what was only read is read. */
async function stillOpen(before: readonly string[]): Promise<string[]> {
  let open: string[] = [];
  for (let times = 0; times < 50; times++) {
    await sleep(10);
    open = process.getActiveResourcesInfo();
    for (const known of before) {
      const at = open.indexOf(known);
      if (at >= 0) open.splice(at, 1);
    }
    if (open.length === 0) break;
  }
  return open;
}

// They are opened when they are first asked for.
void [process.stdin, process.stdout, process.stderr];

const tellSkipped = process.argv[2] === '--skipped';
const files = process.argv.slice(tellSkipped ? 3 : 2);
let found = false;
const report = (file: string, what: string) => {
  found = true;
  console.log(`${file}: ${what}`);
};

for (const file of files) {
  counting.skippedTests = 0;
  const before = process.getActiveResourcesInfo();
  try {
    await import(pathToFileURL(path.resolve(file)).href);
  } catch (error) {
    const { permission, resource } = error as { permission?: string; resource?: string };
    report(file, permission === 'FileSystemWrite' ? `writes ${resource}` : String((error as Error).stack ?? error));
  }
  for (const what of await stillOpen(before)) report(file, `leaves a ${what} open`);
  if (tellSkipped && counting.skippedTests > 0) console.log(`${file}: skips ${counting.skippedTests}`);
}
// What was found may be open for ever.
if (found) process.exit(1);
