import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parseEnv } from 'node:util';
import { DockerfileParser, Keyword } from 'dockerfile-ast';
import { parse } from 'yaml';

const root = path.resolve(import.meta.dirname, '..');

export function textOf(file: string): string {
  return readFileSync(path.join(root, file), 'utf8');
}

/** A service of docker-compose.yml, as far as it is looked at here; aliases and merges are resolved. */
export interface ComposeService {
  image: string;
  build?: string | object;
  command?: string[];
  environment?: Record<string, string>;
  ports?: string[];
  depends_on?: Record<string, { condition: string }>;
  networks?: { default: { ipv4_address: string } };
  restart?: string;
}

export interface Compose {
  services: Record<string, ComposeService>;
  networks: { default: { ipam: { config: { subnet: string; ip_range: string }[] } } };
}

export const compose = parse(textOf('docker-compose.yml'), { merge: true }) as Compose;

/** The variables that a text takes from `.env`, and whether it does without one. */
export function variablesIn(text: string): { name: string; isRequired: boolean }[] {
  return [...text.matchAll(/\$\{([A-Z][A-Z0-9_]*)(:[?-])?/g)].map(([, name, operator]) => ({
    name: name as string,
    isRequired: operator !== ':-',
  }));
}

/** The environment of a service as compose makes it out of `.env`. */
export function environmentOf(name: string, dotEnv: Readonly<Record<string, string>>): Record<string, string> {
  const { environment = {} } = compose.services[name]!;
  return Object.fromEntries(
    Object.entries(environment).map(([variable, text]) => [
      variable,
      text.replaceAll(/\$\{([A-Z][A-Z0-9_]*)(?::([?-])([^}]*))?\}/g, (_all, from: string, operator, fallback) => {
        const value = dotEnv[from] ?? '';
        if (value !== '') return value;
        if (operator === '-') return fallback as string;
        throw new Error(`${from} is not set`);
      }),
    ]),
  );
}

/** What `bin/secrets.ts` prints, in a folder with the project or a part of it. */
export function makeSecrets(folder = root): Record<string, string> {
  const text = execFileSync(process.execPath, ['bin/secrets.ts'], { cwd: folder, encoding: 'utf8' });
  return parseEnv(text) as Record<string, string>;
}

/** The instructions of the Dockerfile, in lower case and with their arguments, by stage. */
export function stagesOf(dockerfile: string): { instruction: string; text: string }[][] {
  const stages: { instruction: string; text: string }[][] = [];
  for (const each of DockerfileParser.parse(dockerfile).getInstructions()) {
    if (each.getKeyword() === Keyword.FROM) stages.push([]);
    stages.at(-1)?.push({ instruction: each.getKeyword(), text: each.getArgumentsContent() ?? '' });
  }
  return stages;
}

/**
 * Does in a folder what the Dockerfile does for the hub's image, as far as that goes without a container: the files that
 * .dockerignore lets through, and the packages.
 */
export function buildImage(folder: string): void {
  const [packages, hub] = stagesOf(textOf('Dockerfile')).slice(-2) as [
    { instruction: string; text: string }[],
    { instruction: string; text: string }[],
  ];
  for (const { instruction, text } of packages) {
    if (instruction === 'COPY')
      for (const file of text.split(' ').slice(0, -1)) cpSync(path.join(root, file), path.join(folder, file));
    if (instruction === 'RUN') {
      execFileSync('sh', ['-c', `${text} --prefer-offline`], { cwd: folder, stdio: 'pipe', timeout: 8 * 60_000 });
    }
  }
  if (!hub.some(({ instruction, text }) => instruction === 'COPY' && text === '. .')) throw new Error('no COPY . .');
  const [allowed, refused] = ignoreRules();
  for (const entry of allowed) {
    cpSync(path.join(root, entry), path.join(folder, entry), {
      recursive: true,
      filter: (source) => !refused.some((pattern) => path.matchesGlob(path.relative(root, source), pattern)),
    });
  }
}

/** Of .dockerignore what is let in though all is shut out, and what of that is not. */
function ignoreRules(): [allowed: string[], refused: string[]] {
  const [first, ...rules] = textOf('.dockerignore')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (first !== '*') throw new Error('.dockerignore must shut out everything first');
  const allowed = rules.filter((rule) => rule.startsWith('!')).map((rule) => rule.slice(1));
  return [allowed, rules.filter((rule) => !rule.startsWith('!'))];
}

/** A process that stands for a container. */
export interface Container {
  child: ChildProcess;
  /** What it has written. */
  output(): string;
  /** The exit code of its health check. */
  check(): Promise<number>;
  stop(): Promise<void>;
}

/** The exit code of the image's health check in a container with that environment. */
export async function checkHealth(folder: string, environment: Record<string, string>): Promise<number> {
  const check = spawn(process.execPath, ['bin/health.ts'], { cwd: folder, env: environment, stdio: 'ignore' });
  const [code] = (await once(check, 'exit')) as [number];
  return code;
}

/** Starts what a container of the hub's image would run, with nothing but that environment. */
export function run(folder: string, command: readonly string[], environment: Record<string, string>): Container {
  const options = { cwd: folder, env: { NODE_ENV: 'production', ...environment } };
  const child = spawn(process.execPath, command, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const exited = once(child, 'exit');
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += String(data)));
  return {
    child,
    output: () => output,
    check: () => checkHealth(folder, environment),
    async stop() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
      await exited;
    },
  };
}

/** What the project depends on, with its versions: what only a laptop needs isn't in the image. */
export function dependenciesOf(): Record<string, string> {
  return (JSON.parse(textOf('package.json')) as { dependencies: Record<string, string> }).dependencies;
}
