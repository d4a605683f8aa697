import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { getOption, type DescExtension } from '@bufbuild/protobuf';
import { status } from '@grpc/grpc-js';
import test from 'ava';
import { registry } from '#lib/rpc/schema.ts';

/** The errors that services raise, held against those that their protos declare (`known_errors` of chat4all.options.v1). */

const root = path.join(import.meta.dirname, '..');
const services = [...registry]
  .filter((type) => type.kind === 'service')
  .filter(({ typeName }) => typeName.startsWith('chat4all.'));
const knownErrors = registry.getExtension('chat4all.options.v1.known_errors') as DescExtension;

/** The codes that each reason is declared with, in any service. */
const declared = new Map<string, Set<string>>();
for (const service of services) {
  for (const { reason, code } of getOption(service, knownErrors) as { reason: string; code: number }[]) {
    const codes = declared.get(reason) ?? new Set();
    declared.set(reason, codes.add(status[code] as string));
  }
}

/** The errors in the source of services, and of what they share. */
function raised(): { file: string; kind: string; reason: string }[] {
  const files = globSync(['services/**/*.ts', 'lib/**/*.ts'], { cwd: root }).filter(
    (file) => !file.endsWith('.test.ts'),
  );
  return files.flatMap((file) => {
    const source = readFileSync(path.join(root, file), 'utf8');
    return [...source.matchAll(/new HubError\(\s*'([A-Z_]+)',\s*'([A-Z_]+)'/g)].map(([, kind = '', reason = '']) => ({
      file,
      kind,
      reason,
    }));
  });
}

test('known errors: whatever has the reason of a declared one is raised with its code', (t) => {
  const all = raised();
  t.true(all.length > 100, String(all.length));
  const wrong = all.filter(({ kind, reason }) => declared.has(reason) && !declared.get(reason)!.has(kind));
  t.deepEqual(wrong, []);
});

test('known errors: each reason has one code, whichever service declares it', (t) => {
  const several = [...declared].filter(([, codes]) => codes.size > 1).map(([reason, codes]) => [reason, ...codes]);
  t.deepEqual(several, []);
});
