import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { FileRegistry } from '@bufbuild/protobuf';
import { Mender } from './mend.ts';
import { installPlugin, runPlugin } from './plugin.ts';

/**
 * Makes the client's code: what the generator makes, mended.
 *
 * @param folder where to; emptied before
 * @param registry all protos
 * @param inputs arguments of `buf generate` that say of which protos
 * @param runtime the path of client/fetch.ts, seen from `folder`
 */
export async function generateClient(
  folder: string,
  registry: FileRegistry,
  inputs: readonly string[],
  runtime: string,
): Promise<void> {
  const made = runPlugin(await installPlugin(), inputs);
  try {
    rmSync(folder, { recursive: true, force: true });
    const mender = new Mender(registry);
    for (const file of [...registry.files].filter((file) => mender.isNeeded(file))) {
      const name = `${file.name}.pb.ts`;
      const written = readFileSync(path.join(made.folder, name), 'utf8');
      const up = path.posix.relative(path.posix.dirname(name), '.');
      mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
      writeFileSync(path.join(folder, name), mender.mend(written, file, `${up}/${runtime}`));
    }
  } finally {
    made.remove();
  }
}
