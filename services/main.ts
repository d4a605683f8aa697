import { runProcess, type ProcessDefinition } from '#lib/lifecycle.ts';
import { serviceNames } from './names.ts';

/** `node services/main.ts <name>…`: one service, or several in one process. */

const names = process.argv.slice(2);
const unknown = names.find((name) => !serviceNames.includes(name));

if (names.length === 0 || unknown !== undefined) {
  const problem = unknown === undefined ? 'Which service?' : `There is no service "${unknown}".`;
  console.error(`${problem} One of: ${serviceNames.join(', ')}`);
  process.exitCode = 64;
} else {
  const load = async (name: string): Promise<ProcessDefinition> => {
    const service: Omit<ProcessDefinition, 'name'> = await import(`./${name}/index.ts`);
    return { name, settings: service.settings, start: service.start };
  };
  await runProcess(await Promise.all(names.map(load)));
}
