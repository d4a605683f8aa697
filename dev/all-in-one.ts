import { runProcess, type ProcessDefinition } from '#lib/lifecycle.ts';

/**
 * `node dev/all-in-one.ts <name>…`: the gateway and these services in one process, which is what a laptop has memory for. They meet
 * over gRPC and the bus all the same.
 */

async function load(name: string, file: string): Promise<ProcessDefinition> {
  const { settings, start }: Omit<ProcessDefinition, 'name'> = await import(file);
  return { name, settings, start };
}

const services = process.argv.slice(2).map((name) => load(name, `../services/${name}/index.ts`));
await runProcess([await load('gateway', '../gateway/index.ts')], await Promise.all(services));
