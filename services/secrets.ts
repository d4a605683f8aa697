import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { duration } from '#lib/config.ts';
import { generateKeys } from '#lib/identity.ts';
import { makeKeyFolder, rotateKeys } from './key-folder.ts';

/**
 * Makes secrets for all that docker-compose.yml starts. Whoever has them has the hub: they are kept where only the administrator reads.
 *
 *     node services/secrets.ts >> .env                            new passwords and keys, once
 *     node services/secrets.ts keys <folder>                      new keys in files, which may be replaced while all runs
 *     node services/secrets.ts rotate <folder> <service>…         replaces the keys of services in such a folder
 *                              [--trust 24h]                      how long the old ones are believed
 */

const names = readdirSync(import.meta.dirname).filter((name) =>
  existsSync(path.join(import.meta.dirname, name, 'index.ts')),
);
const password = () => randomBytes(24).toString('base64url');
/** Every process looks at its files at least that often, in milliseconds, and a bit more. */
const settle = 5_000;

async function printSecrets(): Promise<void> {
  const { privateKeys, trusted } = await generateKeys(names);
  const secrets = {
    POSTGRES_PASSWORD: password(),
    ...Object.fromEntries(names.map((name) => [`${name.toUpperCase()}_DATABASE_PASSWORD`, password()])),
    ...Object.fromEntries(names.map((name) => [`${name.toUpperCase()}_IDENTITY_KEY`, privateKeys[name]])),
    TRUSTED_KEYS: trusted,
    UPLOAD_URL_KEYS: password(),
    S3_ACCESS_KEY: `chat4all-${randomBytes(4).toString('hex')}`,
    S3_SECRET_KEY: password(),
  };
  // In single quotes nothing in a value means anything; none of these has one.
  for (const [name, value] of Object.entries(secrets)) console.log(`${name}='${value}'`);
}

function refuse(message: string): void {
  console.error(message);
  process.exitCode = 64;
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { trust: { type: 'string', default: '24h' } },
});
const [command, folder, ...services] = positionals;
const trustFor = duration({ min: 0 }).safeParse(values.trust);
const unknown = services.filter((name) => !names.includes(name));

if (command === undefined) await printSecrets();
else if (command === 'keys' && folder !== undefined) await makeKeyFolder(folder, names);
else if (command !== 'rotate' || folder === undefined || services.length === 0) {
  refuse('Usage: node services/secrets.ts [keys <folder> | rotate <folder> <service>… [--trust 24h]]');
} else if (unknown.length > 0) refuse(`There is no service ${unknown.join(', ')}. There are: ${names.join(', ')}`);
else if (!trustFor.success) refuse('--trust must be a whole number with a unit: 30m, 24h or 7d');
else {
  await rotateKeys(folder, names, services, { trustFor: trustFor.data, settle });
  console.log(`New keys for ${services.join(', ')}: the old ones are believed for ${values.trust} more.`);
}
