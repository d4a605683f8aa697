import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { code, madeOf, table } from './markdown.ts';

/** docs/reference-commands.md: the scripts of package.json and other programs, with the help that they print. */

const root = path.resolve(import.meta.dirname, '../..');

/** What each script of package.json does. */
const scripts: Readonly<Record<string, string>> = {
  start: 'starts the whole hub, with engines of its own where none are set; Ctrl-C stops it',
  engines:
    'starts a real Kafka (with Java 17 and Maven) and a real MinIO (with Go) on this machine, and prints the settings that use them',
  gateway: 'serves the HTTP rules of any gRPC server as REST',
  migrate: 'brings the roles, schemas and tables of a PostgreSQL up to date; may be repeated',
  upload: 'uploads a file to a hub, and sends it',
  mcp: 'an MCP server of the hub over standard input and output: `npm run --silent mcp -- tasks` or `hub`, with `CHAT4ALL_URL` and `CHAT4ALL_API_KEY`',
  test: 'all tests, on real engines; on Kafka with Java 17 and Maven, on MinIO with Go, in a browser with Chromium. Behind `--`: files, patterns, and options of AVA',
  check: 'format, lint and import rules, types, protos, generated code and documents',
  format: 'formats code, protos and documents',
  generate: 'makes all that is generated: code of the protos, the client, reference pages, `.env.example`',
  'console:build': 'builds the files of the console from its source',
  'client:build': 'builds the package of the client',
  licences: 'writes the list of the licences of all dependencies',
  faults: 'kills, freezes and cuts off each part under load, and checks [what is promised](faults.md)',
  bench: 'throughput, latency, CPU time and what a message makes the hub do; against earlier runs',
  schemathesis:
    'thousands of requests made up from the OpenAPI document, their answers held against it: `-- --examples <for each endpoint, 60> --cases <at least in all, 5000>`. With Python 3.10 or newer',
};

/** Programs without a script, each without arguments. */
const programs: Readonly<Record<string, string>> = {
  'node services/main.ts <service>…': 'one service, or several in one process',
  'node gateway/main.ts': 'the gateway of the hub',
  'node bin/health.ts':
    'whether the process with the same environment takes calls: exit code 0 or 1, for health checks',
  'node bin/secrets.ts': 'passwords and keys for containers and for services one by one',
  'node test/node-alone.ts': 'the tests that depend on other programs, as on a machine that has nothing but Node',
};

/** Those that print a help. */
const helps: readonly (readonly [command: string, file: string])[] = [
  ['npm run upload', 'dev/upload.ts'],
  ['npm run gateway', 'gateway/standalone.ts'],
  ['npm run faults', 'test/faults/main.ts'],
  ['npm run bench', 'test/bench/main.ts'],
  ['node bin/secrets.ts', 'bin/secrets.ts'],
];

/** @returns docs/reference-commands.md */
export async function commandsPage(): Promise<string> {
  const { scripts: there } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { scripts: object };
  const differ = [...new Set([...Object.keys(there), ...Object.keys(scripts)])].filter(
    (name) => !(name in there) || !(name in scripts),
  );
  if (differ.length > 0)
    throw new Error(`Of these scripts the page knows nothing, or there is none: ${differ.join(', ')}`);
  const rows = [
    ...Object.entries(scripts).map(([name, text]) => [
      code(/^(start|test)$/.test(name) ? `npm ${name}` : `npm run ${name}`),
      text,
    ]),
    ...Object.entries(programs).map(([name, text]) => [code(name), text]),
  ];
  const printed = await Promise.all(
    helps.map(async ([command, file]) => {
      const { stdout } = await promisify(execFile)(process.execPath, [path.join(root, file), '--help'], { cwd: root });
      return `## ${command}\n\n\`\`\`text\n${stdout.trim()}\n\`\`\``;
    }),
  );
  return `# Commands

${madeOf('package.json and the helps that the programs print')}

All of them run in the project folder. Each \`npm run …\` uses the project's own Node 24; before \`node …\` say
\`export PATH="$PWD/node_modules/.bin:$PATH"\` once, or \`npx node …\`. Options stand behind \`--\`: \`npm run upload -- --help\`.

${table(['command', 'what it does'], rows)}

${printed.join('\n\n')}
`;
}
