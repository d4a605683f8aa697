import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '..');

/** A block of shell that is run by a test: `sh run`, or `sh run fails` for one that shows how something is refused. */
export interface ShownBlock {
  text: string;
  fails: boolean;
}

/** The blocks of shell in a text in Markdown that are to be run. Those that are only shown are `sh shown`. */
export function blocksIn(text: string): ShownBlock[] {
  const found = text.matchAll(/^```sh run( fails)?\n([^]*?)^```$/gm);
  return [...found].map(([, fails, block]) => ({ text: block!, fails: fails !== undefined }));
}

/** One script of all blocks: it ends at the first command that fails, or where none does that should. */
function scriptOf(run: readonly ShownBlock[]): string {
  return [
    // A command in $(…) or in front of a pipe that fails is a failure, and so is an answer that says one.
    'set -euo pipefail; shopt -s inherit_errexit',
    'curl() { command curl --fail-with-body "$@"; }',
    ...run.flatMap(({ text, fails }, index) => {
      const echo = `echo; echo "=== ${index}"`;
      if (!fails) return [echo, text];
      return [echo, `set +e; ( set -e\n${text})`, 'code=$?; set -e; [ $code -ne 0 ]'];
    }),
    'echo; echo "=== end"',
  ].join('\n');
}

export interface Shown {
  blocks: readonly ShownBlock[];
  /** What is another here than it says there: ports above all. */
  here: (script: string) => string;
  /** Where it runs. */
  folder: string;
  env: NodeJS.ProcessEnv;
  /** Before that of the machine. */
  programs?: readonly string[];
  /** Milliseconds. */
  limit: number;
}

/**
 * Runs blocks of shell just as they stand in a document but for ports: all in one shell, each with what the ones before have left.
 *
 * @returns the exit code, what was written, and the block that was run last
 */
export async function runShown(shown: Shown): Promise<{ code: unknown; output: string; last: string }> {
  const { blocks, here, folder, programs = [], limit } = shown;
  const script = path.join(folder, 'shown.sh');
  await writeFile(script, here(scriptOf(blocks)));
  const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
    const env = {
      ...process.env,
      PATH: [path.join(root, 'node_modules/.bin'), ...programs, process.env.PATH].join(path.delimiter),
      ...shown.env,
    };
    execFile(
      'bash',
      [script],
      { cwd: folder, env, timeout: limit, maxBuffer: 64 * 1024 * 1024 },
      (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : (error.code ?? error.signal), output: `${stdout}\n${stderr}` }),
    );
  });
  const lastBlock = Number(/=== (\d+)\n(?![^]*=== )/.exec(output)?.[1] ?? -1);
  return { code, output, last: blocks[lastBlock]?.text ?? '' };
}
