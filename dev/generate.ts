import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';

/** Imported by the protos, but not by the code that is made from them. */
const unused = ['buf', 'google/api', 'google/protobuf/descriptor.ts', 'chat4all/options'];

/** Makes `gen/`, the code and the descriptor set from the protos, in `base`. */
export function generate(base: string): void {
  execFileSync('buf', ['generate', '--include-imports', '--output', base], { stdio: 'inherit' });
  for (const path of unused) rmSync(join(base, 'gen', path), { recursive: true, force: true });
  const descriptors = join(base, 'gen/descriptors.binpb');
  execFileSync('buf', ['build', '--exclude-source-info', '--as-file-descriptor-set', '-o', descriptors], {
    stdio: 'inherit',
  });
}

if (import.meta.main) generate('.');
