import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { z } from 'zod';
import { busSettings } from '#lib/bus/open.ts';
import { shownSetting, type Settings } from '#lib/config.ts';
import { databaseSettings } from '#lib/database.ts';
import { processSettings } from '#lib/lifecycle.ts';
import { serverSettings } from '#lib/rpc/server.ts';
import { transportSettings } from '#lib/rpc/transport.ts';
import { settings as migrateSettings } from '../../bin/migrate.ts';
import { settings as gatewaySettings } from '../../gateway/index.ts';
import { storageSettings } from '../../services/file/storage/open.ts';
import { serviceNames } from '../../services/names.ts';
import { settings as startSettings } from '../settings.ts';
import { code, madeOf, prose, table } from './markdown.ts';

/** docs/reference-configuration.md and .env.example, both of the settings as the processes declare them. */

const root = path.resolve(import.meta.dirname, '../..');

/** What each process reads, by its name: in the order in which npm start has the services. */
async function processes(): Promise<Map<string, Settings>> {
  const services = await Promise.all(
    serviceNames.map(async (name): Promise<[string, Settings]> => {
      const { settings } = (await import(path.join(root, `services/${name}/index.ts`))) as { settings: Settings };
      return [name, { ...settings, ...processSettings }];
    }),
  );
  return new Map([
    ['npm start', startSettings],
    ['npm run migrate', migrateSettings],
    ['gateway', { ...gatewaySettings, ...processSettings }],
    ...services,
  ]);
}

/** Values that npm start sets in place of the default. */
const underNpmStart: Readonly<Record<string, string>> = {
  LAPTOP_MODE: 'true',
  SHUTDOWN_TIMEOUT: '5s',
  SHUTDOWN_NOTICE: '0s',
  SEED_USERS: '5',
  MAIL_DIR: 'mail in DATA_DIR',
  METRICS_PORT:
    "the gateway's; auth, conversation, message, file, router, connectors, tools, assistant and events have the ones after it",
};

/** What npm start sets by itself for each process. */
const ofOneProcess = /^(GRPC_PORT|IDENTITY_KEY|TRUSTED_KEYS|UPLOAD_URL_KEYS|BUS_DATABASE_URL|BACKENDS|[A-Z]+_ADDRESS)$/;

interface Setting {
  name: string;
  values: string;
  standard: string | undefined;
  isRequired: boolean;
  description: string;
  /** Who reads it. */
  of: string;
}

interface Section {
  title: string;
  /** What all of its settings have in common. */
  note?: string;
  settings: Setting[];
}

async function sections(): Promise<Section[]> {
  const all = await processes();
  const services = serviceNames.map((name) => [name, all.get(name)!] as const);
  const shared = (some: readonly (readonly [string, Settings])[]) =>
    [
      ...Map.groupBy(
        some.flatMap(([, settings]) => Object.keys(settings)),
        (name) => name,
      ),
    ]
      .filter(([, { length }]) => length > 1)
      .map(([name]) => name);
  const isOwn = (name: string) => ofOneProcess.test(name);
  const plans: { title: string; note?: string; names: string[] }[] = [
    {
      title: 'npm start',
      note: 'It reads a file `.env` in the project folder, and hands all that it reads on to the processes that it starts.',
      names: Object.keys(startSettings).filter((name) => !(name in processSettings)),
    },
    {
      title: 'Engines',
      note: 'Without these npm start brings a PostgreSQL of its own, which is the bus, too, and keeps files in a folder.',
      names: Object.keys({ ...databaseSettings, ...busSettings, ...storageSettings }).filter((name) => !isOwn(name)),
    },
    { title: 'Logs, metrics, traces, and the end of a process', names: Object.keys(processSettings) },
    {
      title: 'TLS between services and gateway',
      note: 'All three for each process, or none.',
      names: Object.keys(transportSettings),
    },
    { title: 'Gateway', names: Object.keys(gatewaySettings).filter((name) => !isOwn(name)) },
    { title: 'Every service', names: Object.keys(serverSettings).filter((name) => !isOwn(name)) },
    { title: 'Several services', names: shared(services).filter((name) => !isOwn(name)) },
    ...services.map(([title, settings]) => ({
      title,
      names: Object.keys(settings).filter((name) => !isOwn(name)),
    })),
    {
      title: 'Processes that are started one by one',
      note: 'npm start sets these by itself.',
      names: [...all.values()].flatMap((settings) => Object.keys(settings)).filter(isOwn),
    },
    {
      title: 'npm run migrate',
      note: 'Beside `DATABASE_URL`. npm start makes passwords of its own; `node bin/secrets.ts` makes those for containers.',
      names: Object.keys(migrateSettings),
    },
  ];
  const told = new Set<string>();
  const made = plans.map(({ names, ...section }) => {
    const fresh = [...new Set(names)].filter((name) => !told.has(name));
    for (const name of fresh) told.add(name);
    return { ...section, settings: fresh.map((name) => settingOf(name, all)) };
  });
  return [...made.filter(({ settings }) => settings.length > 0), ofCompose(told)];
}

function settingOf(name: string, all: ReadonlyMap<string, Settings>): Setting {
  const readers = [...all].filter(([, settings]) => name in settings);
  const shown = readers.map(([of, settings]) => ({ of, ...shownSetting(name, settings[name] as z.ZodType) }));
  const texts = [...Map.groupBy(shown, ({ description }) => description)];
  const description =
    texts.length === 1
      ? texts[0]![0]
      : texts.map(([text, same]) => `for ${everybody(same.map(({ of }) => of))}: ${text}`).join('; ');
  const [first, ...others] = shown as [(typeof shown)[number], ...typeof shown];
  if (others.some(({ standard }) => standard !== first.standard)) throw new Error(`${name} has several defaults`);
  return { ...first, name, description, of: everybody(shown.map(({ of }) => of)) };
}

/** Names of processes as a text. */
function everybody(some: readonly string[]): string {
  const services = serviceNames.filter((name) => some.includes(name));
  const others = some.filter((name) => !serviceNames.includes(name));
  const missing = serviceNames.filter((name) => !some.includes(name));
  if (missing.length === 0) return [...others, 'every service'].join(', ');
  if (missing.length === 1) return [...others, `every service but ${missing[0]}`].join(', ');
  return [...others, ...services].join(', ');
}

/** What docker-compose.yml takes from `.env` and no process reads under that name. */
function ofCompose(told: ReadonlySet<string>): Section {
  const text = readFileSync(path.join(root, 'docker-compose.yml'), 'utf8');
  const names = [...text.matchAll(/\$\{([A-Z][A-Z0-9_]*)/g)].map(([, name]) => name!);
  const own = [...new Set(names)].filter((name) => !told.has(name));
  return {
    title: 'docker-compose.yml',
    note: '`node bin/secrets.ts >> .env` makes all that it needs: these, and passwords and keys from above.',
    settings: own.map((name) => {
      const description = composeDescriptions[name] ?? identityKey(name);
      return { name, values: 'secret', standard: undefined, isRequired: true, description, of: 'docker-compose.yml' };
    }),
  };
}

const composeDescriptions: Readonly<Record<string, string>> = {
  POSTGRES_PASSWORD:
    "the superuser's password in the PostgreSQL of docker-compose.yml, which takes it when it is started for the first time",
};

function identityKey(name: string): string {
  const [, service] = /^([A-Z]+)_IDENTITY_KEY$/.exec(name) ?? [];
  if (service === undefined) throw new Error(`docker-compose.yml takes ${name}, which nothing describes`);
  return `the IDENTITY_KEY of ${service.toLowerCase()}`;
}

/** @returns docs/reference-configuration.md */
export async function configurationPage(): Promise<string> {
  const parts = (await sections()).map(({ title, note, settings }) => {
    const rows = settings.map(({ name, values, standard = '', isRequired, description, of }) => {
      const start = underNpmStart[name];
      return [
        code(name),
        isRequired ? 'required' : code(standard),
        values,
        prose(start ? `${description} (under npm start: ${start})` : description),
        of,
      ];
    });
    return [
      `## ${title}`,
      ...(note ? [note] : []),
      table(['variable', 'default', 'values', 'meaning', 'read by'], rows),
    ].join('\n\n');
  });
  return (
    [
      '# Configuration',
      madeOf('the settings that each process declares'),
      `By environment variables, or in a file \`.env\` for \`npm start\`: copy what you need out of [\`.env.example\`](../.env.example), which says the same
as this page. What stands in the environment beats the file; an empty value counts as not set. A process doesn't start
without the settings that it requires; \`npm start\` sets those of its processes by itself.

Lengths of time are whole numbers with a unit: \`500ms\`, \`30s\`, \`15m\`, \`24h\`, \`7d\`. Lists have commas. A service or the gateway whose settings
are unusable names all of them at once, without their values, and ends with [exit code 78](operating.md#what-a-start-checks-and-how-it-ends). A variable
with the name of a service and two underscores before it (\`MESSAGE__LOG_LEVEL=debug\`, \`GATEWAY__LOG_LEVEL=warn\`) is for that one alone.`,
      ...parts,
      '',
    ]
      .join('\n\n')
      .trimEnd() + '\n'
  );
}

/** @returns .env.example */
export async function envExample(): Promise<string> {
  const parts = (await sections()).map(({ title, note, settings }) => {
    const head = [`# --- ${title} ${'-'.repeat(112 - title.length)}`, ...comment(note ?? '')].join('\n');
    const all = settings.map(({ name, standard = '', description }) => {
      const start = underNpmStart[name];
      return [
        ...comment(description),
        ...(start ? comment(`(under npm start: ${start})`) : []),
        `# ${name}=${standard}`,
      ].join('\n');
    });
    return [head, ...all].join('\n\n');
  });
  const intro = [
    ...comment(
      'Every setting of every process, with its default; one without a value has none. Nothing here has to be set for `npm start`, which reads a file `.env` beside this one: copy what you want to change, and take the `#` away. What stands in the environment beats the file. An empty value counts as not set.',
    ),
    '#',
    ...comment('Lengths of time are whole numbers with a unit: 500ms, 30s, 15m, 24h, 7d.'),
    '#',
    ...comment('Made by `npm run generate` from the settings that each process declares; `npm run check` compares it.'),
  ].join('\n');
  return `${[intro, ...parts].join('\n\n')}\n`;
}

const width = 118;

/** Lines of a comment. None breaks within code, or begins with `NAME=`, as if it were the setting itself. */
function comment(text: string): string[] {
  const lines: string[] = [];
  for (const [word] of text.matchAll(/`[^`]*`\S*|(?:\S+ )?[A-Z][A-Z0-9_]*=\S*|\S+/g)) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > width) lines.push(`# ${word}`);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}
