import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { generateKeys } from '#lib/identity.ts';

/**
 * `node services/secrets.ts >> .env`: new passwords and keys for all that docker-compose.yml starts. Whoever has them has the hub:
 * they are made once, and kept where only the administrator reads.
 */

const names = readdirSync(import.meta.dirname).filter((name) =>
  existsSync(path.join(import.meta.dirname, name, 'index.ts')),
);
const password = () => randomBytes(24).toString('base64url');
const { privateKeys, trusted } = await generateKeys(names);

const secrets = {
  POSTGRES_PASSWORD: password(),
  ...Object.fromEntries(names.map((name) => [`${name.toUpperCase()}_DATABASE_PASSWORD`, password()])),
  ...Object.fromEntries(names.map((name) => [`${name.toUpperCase()}_IDENTITY_KEY`, privateKeys[name]])),
  TRUSTED_KEYS: trusted,
  S3_ACCESS_KEY: `chat4all-${randomBytes(4).toString('hex')}`,
  S3_SECRET_KEY: password(),
};
// In single quotes nothing in a value means anything; none of these has one.
for (const [name, value] of Object.entries(secrets)) console.log(`${name}='${value}'`);
