import { readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import type { z } from 'zod';
import { ConfigError, loadConfig } from '#lib/config.ts';
import { processSettings } from '#lib/lifecycle.ts';
import { settingNames } from '#lib/setting-names.ts';
import { variablesIn } from './deployment.ts';
import { serviceNames } from './harness.ts';

const root = path.resolve(import.meta.dirname, '..');
const read = (file: string) => readFileSync(path.join(root, file), 'utf8');

/** Of all processes: what each variable is declared as, by its name. */
async function declarations(): Promise<Map<string, z.ZodType[]>> {
  const files = [
    ...serviceNames.map((name) => `services/${name}/index.ts`),
    'bin/migrate.ts',
    'gateway/index.ts',
    'dev/settings.ts',
  ];
  const modules: { settings: Record<string, z.ZodType> }[] = await Promise.all(
    files.map((file) => import(path.join(root, file))),
  );
  const all = [processSettings, ...modules.map(({ settings }) => settings)];
  const entries = all.flatMap((settings) => Object.entries<z.ZodType>(settings));
  return new Map(
    [...Map.groupBy(entries, ([name]) => name)].map(([name, some]) => [name, some.map(([, schema]) => schema)]),
  );
}

/** What docker-compose.yml takes from `.env` for itself. */
function composeVariables(): Set<string> {
  return new Set(variablesIn(read('docker-compose.yml')).map(({ name }) => name));
}

/** What stands as the value of each setting in `.env.example`. */
function shownInExample(): Map<string, string> {
  const lines = read('.env.example').matchAll(/^# ([A-Z][A-Z0-9_]*)=(.*)$/gm);
  return new Map([...lines].map(([, name, value]) => [name!, value!]));
}

test('settingNames: what counts as a setting in the environment of a process is exactly what there is', async (t) => {
  const names = new Set([...(await declarations()).keys(), ...composeVariables()]);
  t.deepEqual([...settingNames], [...names].toSorted());
});

test('.env.example: names every variable that there is, once, and nothing that nobody reads', async (t) => {
  const shown = [...read('.env.example').matchAll(/^# ([A-Z][A-Z0-9_]*)=/gm)].map(([, name]) => name!);
  t.deepEqual(shown.toSorted(), [...settingNames]);
});

test('.env.example: a variable that is set as it stands there has its default', async (t) => {
  const shown = shownInExample();
  for (const [name, schemas] of await declarations()) {
    for (const schema of schemas) {
      const standard = schema.safeParse(undefined).data;
      if (standard !== undefined) t.deepEqual(schema.safeParse(shown.get(name)).data, standard, name);
      else t.is(shown.get(name), '', name);
    }
  }
});

test('.env.example: names what docker-compose.yml requires, and gives away no password', (t) => {
  const shown = shownInExample();
  const required = variablesIn(read('docker-compose.yml')).filter(({ isRequired }) => isRequired);
  t.true(required.length > 0);
  for (const { name } of required) t.is(shown.get(name), '', name);
  for (const line of read('.env.example').split('\n')) t.true(line === '' || line.startsWith('#'), line);
});

/** What is named like a secret and is none, or is no text that anybody could guess. */
const noGuesses = /^(TRUSTED_KEYS|IDENTITY_KEY|\w*TOKEN_TTL|\w+_ACCESS_KEY|\w+_TLS_KEY)$/;

test('every password and every key is refused where everybody knows it, and none has a default', async (t) => {
  const declared = await declarations();
  const secrets = [...declared].filter(
    ([name]) => /PASSWORD|SECRET|TOKEN(?!S$)|KEY|DATABASE_URL/.test(name) && !noGuesses.test(name),
  );
  for (const known of [
    'DATABASE_URL',
    'BUS_DATABASE_URL',
    'KAFKA_SASL_PASSWORD',
    'S3_SECRET_KEY',
    'S3_UPLOAD_SECRET_KEY',
    'UPLOAD_URL_KEYS',
  ])
    t.true(declared.has(known), known);
  t.deepEqual(
    secrets
      .map(([name]) => name)
      .filter((name) => /^(AUTH|BUS)_DATABASE_PASSWORD$/.test(name))
      .toSorted(),
    ['AUTH_DATABASE_PASSWORD', 'BUS_DATABASE_PASSWORD'],
  );
  for (const [name, schemas] of secrets) {
    const weak = name.endsWith('_URL') ? 'postgres://chat4all_auth:changeme@db:5432/hub' : 'changeme';
    for (const schema of schemas) {
      t.is(schema.safeParse(undefined).data, undefined, name);
      const error = t.throws(() => loadConfig({ [name]: schema }, { [name]: weak }), { instanceOf: ConfigError }, name);
      t.regex(error.message, new RegExp(`${name} must be a secret`));
    }
  }
});
