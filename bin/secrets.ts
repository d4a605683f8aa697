import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { duration, loadConfig, maxRetentionMs } from '#lib/config.ts';
import { generateKeys } from '#lib/identity.ts';
import { serviceNames as names } from '../services/names.ts';
import { makeKeyFolder, rotateKeys, withKeys } from './key-folder.ts';

/** Makes secrets for all that docker-compose.yml starts. Whoever has them has the hub: they are kept where only the administrator reads. */

const usage = `node bin/secrets.ts [keys <folder> | rotate <folder> <service>…] [options]

  node bin/secrets.ts >> .env                       passwords and keys for docker-compose.yml: those that aren't in its own
                                                    environment yet
  node bin/secrets.ts keys <folder>                 keys in files, which may be replaced while all runs: those that aren't
                                                    there yet
  node bin/secrets.ts rotate <folder> <service>…    replaces the keys of services in such a folder

  --trust <time>                                    how long the old ones are believed: 30m, 24h (the default) or 7d
  --help`;

const password = () => randomBytes(24).toString('base64url');
/** Longer than any process takes to notice a changed file, in milliseconds. */
const settle = 5_000;

const identityKeyOf = (name: string) => `${name.toUpperCase()}_IDENTITY_KEY`;

/** Reads a setting; docker's --env-file leaves the quotes around a value. */
function readGiven(wanted: readonly string[]): Record<string, string | undefined> {
  const unquoted = z.string().transform((text) => /^'(.*)'$/s.exec(text)?.[1] ?? text);
  return loadConfig(Object.fromEntries(wanted.map((name) => [name, unquoted.optional()])));
}

async function printSecrets(): Promise<void> {
  const secrets: Record<string, string> = {
    POSTGRES_PASSWORD: password(),
    ...Object.fromEntries(names.map((name) => [`${name.toUpperCase()}_DATABASE_PASSWORD`, password()])),
    UPLOAD_URL_KEYS: password(),
    S3_ACCESS_KEY: `chat4all-${randomBytes(4).toString('hex')}`,
    S3_SECRET_KEY: password(),
  };
  const given = readGiven([...Object.keys(secrets), ...names.map(identityKeyOf), 'TRUSTED_KEYS']);
  for (const name of Object.keys(secrets)) if (given[name] !== undefined) delete secrets[name];
  const known = given.TRUSTED_KEYS ?? '{"keys":[]}';
  // Where it is a path, the keys are in files: `keys` makes what is missing there.
  const missing = known.startsWith('{') ? names.filter((name) => given[identityKeyOf(name)] === undefined) : [];
  if (missing.length > 0) {
    const { privateKeys, trusted } = await generateKeys(missing);
    for (const name of missing) secrets[identityKeyOf(name)] = privateKeys[name]!;
    // In a .env the last line with a name counts.
    secrets.TRUSTED_KEYS = withKeys(known, trusted);
  }
  // In single quotes no character is special; none of the values contains one.
  for (const [name, value] of Object.entries(secrets)) console.log(`${name}='${value}'`);
}

function refuse(message: string): void {
  console.error(message);
  process.exitCode = 64;
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { trust: { type: 'string', default: '24h' }, help: { type: 'boolean', default: false } },
});
const [command, folder, ...services] = positionals;
const trustFor = duration({ min: 0, max: maxRetentionMs }).safeParse(values.trust);
const unknown = services.filter((name) => !names.includes(name));

if (values.help) console.log(usage);
else if (command === undefined) await printSecrets();
else if (command === 'keys' && folder !== undefined) await makeKeyFolder(folder, names);
else if (command !== 'rotate' || folder === undefined || services.length === 0) {
  refuse(usage);
} else if (unknown.length > 0) refuse(`There is no service ${unknown.join(', ')}. There are: ${names.join(', ')}`);
else if (!trustFor.success) refuse('--trust must be a whole number with a unit: 30m, 24h or 7d');
else {
  await rotateKeys(folder, names, services, { trustFor: trustFor.data, settle });
  console.log(`New keys for ${services.join(', ')}: the old ones are believed for ${values.trust} more.`);
}
