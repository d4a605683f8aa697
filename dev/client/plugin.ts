import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { engineHome, installOnce, isOnPath, runTool, type InstallOptions } from '../engines/install.ts';

const name = 'protoc-gen-grpc-gateway-ts';
const tools = path.resolve(import.meta.dirname, '../../tools');
const buildLimit = 10 * 60_000;

/** What the machine must have for it. */
export const pluginNeeds = 'Go (go) on the PATH';

/** Whether the generator of the client can be built here. */
export function pluginAvailable(): boolean {
  return isOnPath('go');
}

/** Builds the generator in the version of tools/go.mod, unless it is there. @returns its path */
export async function installPlugin({ log, signal }: InstallOptions = {}): Promise<string> {
  const modules = readFileSync(path.join(tools, 'go.mod'), 'utf8');
  const [module, version = ''] = new RegExp(`\\S+/${name} (v\\S+)`).exec(modules) ?? [];
  if (module === undefined) throw new Error(`tools/go.mod doesn't name ${name}`);
  const home = engineHome(name, version);
  await installOnce(home, async (unfinished) => {
    log?.("Building the client's generator with Go: less than a minute, only this once.");
    // A copy, since Go would add to them what it finds missing there.
    for (const file of ['go.mod', 'go.sum']) copyFileSync(path.join(tools, file), path.join(unfinished, file));
    await runTool('go', ['build', '-mod=mod', '-trimpath', '-o', name, module.split(' ')[0]!], {
      limit: buildLimit,
      failure: `${name} could not be built with Go. Is there a network, and a GOPROXY if you need one?`,
      cwd: unfinished,
      env: { CGO_ENABLED: '0' },
      signal,
    });
  });
  return path.join(home, name);
}

/**
 * Runs the generator.
 *
 * @param inputs arguments of `buf generate` that say on which protos
 * @returns the folder of what it has made, which the caller removes
 */
export function runPlugin(plugin: string, inputs: readonly string[]): { folder: string; remove(): void } {
  const folder = mkdtempSync(path.join(tmpdir(), 'chat4all-client-'));
  const template = { version: 'v2', plugins: [{ local: plugin, out: folder, opt: ['use_proto_names=true'] }] };
  // It warns that the generator doesn't know `optional`: that is mended.
  execFileSync('buf', ['generate', '--template', JSON.stringify(template), ...inputs], { stdio: 'pipe' });
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}
