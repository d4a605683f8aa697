import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Imported by the protos, but not by the code that is made from them. */
const unused = ['buf', 'google/api', 'google/protobuf/descriptor.ts', 'chat4all/options', 'grpc/health'];

/** The protos that the gateway's tests use: no API of anyone, so no module of buf.yaml, which would be linted and kept. */
export const testProtos = [
  '--config',
  JSON.stringify({ version: 'v2', modules: ['proto', 'third_party', 'test/protos'].map((path) => ({ path })) }),
  '--path',
  'test/protos/transcoding',
];

/** All that is made from the protos and committed. */
export const made = ['gen', 'test/protos/descriptors.binpb'];

/** Makes code and descriptor sets from the protos, in `base`. */
export function generate(base: string): void {
  mkdirSync(join(base, 'test/protos'), { recursive: true });
  buf('generate', '--include-imports', '--output', base);
  for (const path of unused) rmSync(join(base, 'gen', path), { recursive: true, force: true });
  const build = ['build', '--exclude-source-info', '--as-file-descriptor-set'];
  buf(...build, '-o', join(base, 'gen/descriptors.binpb'));
  buf(...build, ...testProtos, '-o', join(base, 'test/protos/descriptors.binpb'));
}

function buf(...args: string[]): void {
  execFileSync('buf', args, { stdio: 'inherit' });
}

if (import.meta.main) generate('.');
