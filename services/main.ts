import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { runProcess, type ProcessDefinition } from '#lib/lifecycle.ts';

const folder = import.meta.dirname;
const known = readdirSync(folder).filter((name) => existsSync(path.join(folder, name, 'index.ts')));
const name = process.argv[2] ?? '';

if (known.includes(name)) {
  const service: Omit<ProcessDefinition<Record<string, never>>, 'name'> = await import(`./${name}/index.ts`);
  await runProcess({ name, settings: service.settings, start: service.start });
} else {
  console.error(`${name === '' ? 'Which service?' : `There is no service "${name}".`} One of: ${known.join(', ')}`);
  process.exitCode = 64;
}
