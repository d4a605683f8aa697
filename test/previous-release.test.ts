import { execFile, spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import pg from 'pg';
import type { DatabaseDefinition } from '#lib/database-definition.ts';
import { migrateDatabase } from '#lib/database-migrations.ts';
import { openHarness, serviceNames } from './harness.ts';
import { opened } from './opened.ts';
import { breaches, readCatalogue, type Catalogue } from './schema-catalogue.ts';

/**
 * That the previous release goes on with today's schemas: they are migrated before any of its processes is replaced. Which release that
 * is, is said in `previous-release.json`, by its commit, and by the last migration that it has of each service.
 */
interface Release {
  commit: string;
  migrations: Record<string, string>;
  /** What it doesn't use any more, though it was there: see `breaches`. */
  unused: string[];
}

const root = path.resolve(import.meta.dirname, '..');
const release = JSON.parse(readFileSync(path.join(import.meta.dirname, 'previous-release.json'), 'utf8')) as Release;

/** Those of its tests that work with the tables of services. */
const storeTests = [
  'services/assistant/tasks/tasks.test.ts',
  'services/assistant/turns/turns.test.ts',
  'services/auth/accounts/accounts.test.ts',
  'services/auth/api-keys/api-keys.test.ts',
  'services/auth/auth.test.ts',
  'services/auth/sessions/sessions.test.ts',
  'services/connectors/connectors.test.ts',
  'services/connectors/lanes.test.ts',
  'services/connectors/states.test.ts',
  'services/conversation/conversation.test.ts',
  'services/file/file.test.ts',
  'services/file/uploads.test.ts',
  'services/message/operations.test.ts',
  'services/message/store.test.ts',
  'services/router/router.test.ts',
  'services/tools/administration.test.ts',
  'services/tools/invocation.test.ts',
];

/**
 * Of these, what depends on the machine and not on tables: how much is answered in time under load, and a lease that this release let go of up
 * to half a millisecond after it did, since its column has whole ones.
 */
const aboutTime = [
  'createApiKey: a user has at most a hundred active ones, however many are made at once',
  'lease: one owner at a time, a new epoch for each, and only the holder takes events out',
];

const harness = opened(openHarness, (harness) => harness.stop());

/** Makes the tables of a service anew, up to a migration. @returns what there is then */
async function catalogueUpTo(name: string, last: string | undefined): Promise<Catalogue> {
  const { database } = (await import(`../services/${name}/database.ts`)) as { database: DatabaseDefinition };
  const { schema, migrations } = database;
  const client = new pg.Client({ connectionString: harness.adminDatabaseUrl });
  await client.connect();
  try {
    await client.query(`drop schema "${schema}" cascade; create schema "${schema}" authorization "chat4all_${name}"`);
    const count = last === undefined ? migrations.length : migrations.findIndex((each) => each.name === last) + 1;
    if (count === 0) throw new Error(`${name} has no migration ${last}: what has landed keeps its name`);
    const some = { ...database, migrations: migrations.slice(0, count) };
    await migrateDatabase(some, { url: harness.databaseUrl(name) });
    return await readCatalogue(client, schema);
  } finally {
    await client.end();
  }
}

test.serial('breaches: finds what earlier releases could not go on with', async (t) => {
  const between = async (name: string, from: string, to: string) =>
    breaches(await catalogueUpTo(name, from), await catalogueUpTo(name, to));
  t.deepEqual(await between('file', '0001-files', '0002-removals-again'), [
    'removals.again is required and has no default',
  ]);
  t.deepEqual(await between('file', '0001-files', '0005-removals-by-earlier-code'), []);
  t.deepEqual(await between('router', '0001-routes', '0002-replays'), [
    'routes.replay is required and has no default',
    'there is no more: routes btree (message_id)',
    'rows are refused for what they were not refused for: routes btree (message_id, replay)',
  ]);
  t.true((await between('auth', '0002-failures-by-address', '0003-accounts')).some((each) => each.includes('CHECK')));
});

for (const name of serviceNames) {
  test.serial(`${name}: its migrations leave what the previous release uses`, async (t) => {
    const before = release.migrations[name];
    // A service that is new has nobody who would go on.
    if (before === undefined) return t.pass();
    t.deepEqual(breaches(await catalogueUpTo(name, before), await catalogueUpTo(name, undefined), release.unused), []);
  });
}

const short = release.commit.slice(0, 7);
const isInClone = spawnSync('git', ['cat-file', '-e', `${release.commit}^{commit}`], { cwd: root }).status === 0;
if (isInClone) {
  test.serial(`the store tests of the previous release, ${short}, pass on today's schemas`, async (t) => {
    t.timeout(300_000);
    const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-previous-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    const archive = path.join(folder, 'code.tar');
    const run = promisify(execFile);
    await run('git', ['archive', '--output', archive, release.commit], { cwd: root });
    await run('tar', ['-xf', archive, '-C', folder]);
    await symlink(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
    // Its harness finds the database that this one has made, and makes none of its own.
    const ava = fileURLToPath(new URL('cli.js', import.meta.resolve('ava')));
    const report = path.join(folder, 'report.json');
    const done = await run(
      process.execPath,
      [
        ava,
        '--concurrency',
        '1',
        '--match',
        '*',
        ...aboutTime.flatMap((title) => ['--match', `!${title}`]),
        ...storeTests,
      ],
      {
        cwd: folder,
        env: { ...process.env, TEST_REPORT: report },
        maxBuffer: 64 * 1024 * 1024,
      },
    ).catch((error: { stdout: string; stderr: string }) => error);
    const { stats } = JSON.parse(await readFile(report, 'utf8')) as { stats: { passedTests: number } };
    t.true(stats.passedTests > 100, `${stats.passedTests} passed`);
    t.false('code' in done, `${done.stdout.slice(-10_000)}\n${done.stderr.slice(-2_000)}`);
  });
} else {
  test.skip(`the store tests of the previous release: not run, since this clone is without its commit (git fetch --depth 1 origin ${release.commit})`, () => {});
}
