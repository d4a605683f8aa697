import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { clearField, createFileRegistry, fromBinary, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { generateClient } from './client/generate.ts';
import { writeApi } from './client/package.ts';
import { pluginAvailable, pluginNeeds } from './client/plugin.ts';
import { eventCatalogue } from './event-catalogue.ts';

/** Imported by the protos, but not by the generated code. */
const unused = [
  'buf',
  'google/api',
  'google/protobuf/descriptor.ts',
  'chat4all/options',
  'google/rpc/code.ts',
  'grpc/channelz',
  'grpc/health',
];

/** The protos that the gateway's tests use: no API of anyone, so no module of buf.yaml, which would be linted and kept. */
export const testProtos = [
  '--config',
  JSON.stringify({ version: 'v2', modules: ['proto', 'third_party', 'test/protos'].map((path) => ({ path })) }),
  ...['test/protos/transcoding', 'proto/chat4all/http', 'proto/chat4all/paging'].flatMap((path) => ['--path', path]),
];

/** All committed files that are generated from the protos. */
export const made = ['gen', 'test/protos/descriptors.binpb', ...(pluginAvailable() ? ['client/gen'] : [])];

/**
 * Makes code and descriptor sets from the protos, in `base`. The client is left as it is where its generator can't be built;
 * with CI=true that is an error.
 */
export async function generate(base: string): Promise<void> {
  mkdirSync(join(base, 'test/protos'), { recursive: true });
  buf('generate', '--include-imports', '--output', base);
  for (const path of unused) rmSync(join(base, 'gen', path), { recursive: true, force: true });
  const described = join(base, 'gen/descriptors.binpb');
  const build = ['build', '--as-file-descriptor-set'];
  buf(...build, '-o', described);
  writeFileSync(described, onlyComments(readFileSync(described)));
  buf(...build, '--exclude-source-info', ...testProtos, '-o', join(base, 'test/protos/descriptors.binpb'));
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(described)));
  writeFileSync(join(base, 'gen/events.ts'), eventCatalogue(registry));
  if (pluginAvailable()) {
    await generateClient(join(base, 'client/gen'), registry, ['--path', 'proto/chat4all'], '..');
  } else {
    const left = `client/gen needs ${pluginNeeds}, and is left as it is`;
    if (process.env.CI === 'true') throw new Error(left);
    console.log(left);
  }
}

/**
 * A descriptor set with our own comments, which the API's documentation is made of, and nothing else about the sources: the
 * places of all that they say would be most of it, and change with every line.
 */
function onlyComments(bytes: Uint8Array): Uint8Array {
  const set = fromBinary(FileDescriptorSetSchema, bytes);
  for (const file of set.file) {
    const { sourceCodeInfo } = file;
    if (!file.name.startsWith('chat4all/') || sourceCodeInfo === undefined) {
      clearField(file, FileDescriptorProtoSchema.field.sourceCodeInfo);
      continue;
    }
    sourceCodeInfo.location = sourceCodeInfo.location.filter(({ leadingComments }) => leadingComments !== '');
    for (const location of sourceCodeInfo.location) {
      location.leadingDetachedComments = [];
      // Tools want a place of each comment.
      location.span = [0, 0, 0];
    }
  }
  return toBinary(FileDescriptorSetSchema, set);
}

function buf(...args: string[]): void {
  execFileSync('buf', args, { stdio: 'inherit' });
}

if (import.meta.main) {
  await generate('.');
  writeApi();
  // Loaded only now: it reads what was just generated.
  const { writePages } = await import('./reference/pages.ts');
  await writePages();
}
