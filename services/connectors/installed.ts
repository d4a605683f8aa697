import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { connectorName, type Connector } from './connector.ts';

/**
 * The installed connectors, by name: one for each folder of `folder` with an index.ts.
 *
 * @throws Error naming a folder without a connector of its name
 */
export async function installedConnectors(folder: string = import.meta.dirname): Promise<Connector[]> {
  const names = (await readdir(folder)).filter((name) => existsSync(path.join(folder, name, 'index.ts'))).toSorted();
  return Promise.all(
    names.map(async (name) => {
      const file = pathToFileURL(path.join(folder, name, 'index.ts')).href;
      const { connector }: { connector?: Connector } = await import(file);
      if (connector?.name === name && connectorName.test(name)) return connector;
      throw new Error(
        `services/connectors/${name}/index.ts must export a \`connector\` whose name is that of its folder, ` +
          `of lower-case letters, digits, _ and -`,
      );
    }),
  );
}
