import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { runProcess, type ProcessDefinition } from '#lib/lifecycle.ts';

/** `node services/main.ts <name>…`: one service, or several in one process. */

const folder = import.meta.dirname;
const known = readdirSync(folder).filter((name) => existsSync(path.join(folder, name, 'index.ts')));
const names = process.argv.slice(2);
const unknown = names.find((name) => !known.includes(name));

if (names.length === 0 || unknown !== undefined) {
  const problem = unknown === undefined ? 'Which service?' : `There is no service "${unknown}".`;
  console.error(`${problem} One of: ${known.join(', ')}`);
  process.exitCode = 64;
} else {
  const load = async (name: string): Promise<ProcessDefinition> => {
    const service: Omit<ProcessDefinition, 'name'> = await import(`./${name}/index.ts`);
    return { name, settings: service.settings, start: service.start };
  };
  await runProcess(await Promise.all(names.map(load)));
}
