import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { DescFile, FileRegistry } from '@bufbuild/protobuf';
import { Rpcs } from './rpcs.ts';
import { installPlugin, runPlugin } from './plugin.ts';
import { codesFile, codesOf, serviceClass, servicesFile } from './services.ts';
import { readWritten, Types } from './types.ts';

/**
 * Generates the client's code: the plugin's types, corrected (types.ts), and a class for each service (services.ts).
 *
 * @param folder where to; emptied before
 * @param registry all protos
 * @param inputs arguments of `buf generate` that say of which protos
 * @param client the folder of client/caller.ts, seen from `folder`
 */
export async function generateClient(
  folder: string,
  registry: FileRegistry,
  inputs: readonly string[],
  client: string,
): Promise<void> {
  const made = runPlugin(await installPlugin(), inputs);
  try {
    rmSync(folder, { recursive: true, force: true });
    const rpcs = new Rpcs(registry);
    const types = new Types(rpcs);
    const write = (name: string, text: string) => {
      mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
      writeFileSync(path.join(folder, name), `// Made from the protos by dev/client: \`npm run generate\`.\n${text}`);
    };
    const files = [...registry.files].toSorted((one, other) => one.name.localeCompare(other.name));
    for (const file of files) {
      if (types.in(file).length === 0 && rpcs.services(file).length === 0) continue;
      const written = readFileSync(path.join(made.folder, `${file.name}.pb.ts`), 'utf8');
      write(`${file.name}.pb.ts`, fileText(file, written, rpcs, types, client));
    }
    write(
      'services.ts',
      servicesFile(
        files.flatMap((file) => rpcs.services(file)),
        client,
      ),
    );
    write('codes.ts', codesFile(rpcs));
  } finally {
    made.remove();
  }
}

function fileText(file: DescFile, text: string, rpcs: Rpcs, types: Types, client: string): string {
  const written = readWritten(text);
  const body = [
    ...types.in(file).map((type) => types.declaration(type, written)),
    ...file.services.flatMap((service) => rpcs.of(service)).map(codesOf),
    ...rpcs.services(file).map((service) => serviceClass(service, rpcs, types, written)),
  ].join('\n');
  const up = path.posix.relative(path.posix.dirname(file.name), '.');
  const imports = [
    ...[...written.imports].map(([name, from]) => [name, `${from}.pb.ts`] as const),
    ['wire', `${up}/${client}/wire.ts`],
    ['codes', `${up}/codes.ts`],
  ] as const;
  const used = imports.filter(([name]) => new RegExp(`\\b${name}\\.`).test(body));
  const lines = used.map(([name, from]) => `import type * as ${name} from '${from}';\n`);
  const calls = ['Caller', 'CallOptions', 'Reply'].filter((name) => new RegExp(`\\b${name}\\b`).test(body));
  if (calls.includes('Caller'))
    lines.unshift(`import type { ${calls.join(', ')} } from '${up}/${client}/caller.ts';\n`);
  return `${lines.join('')}\n${body}`;
}
