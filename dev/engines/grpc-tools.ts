import { existsSync } from 'node:fs';
import path from 'node:path';
import { engineHome, installWithGo, isOnPath, type InstallOptions } from './install.ts';

const modules = {
  grpcurl: ['github.com/fullstorydev/grpcurl/cmd/grpcurl', 'v1.9.4'],
  ghz: ['github.com/bojand/ghz/cmd/ghz', 'v0.93.0'],
} as const;

const tools = Object.entries(modules).map(([name, [module, version]]) => ({
  name,
  module: `${module}@${version}`,
  home: engineHome(name, version),
}));

const buildLimit = 10 * 60_000;

/** The gRPC tools of docs/tutorial-grpc.md: grpcurl and ghz, in the versions that it names. */
export const grpcTools = {
  name: 'grpcurl and ghz',
  /** What the machine must have for them. */
  needs: 'Go (go) on the PATH, to be built',

  isAvailable(): boolean {
    return isOnPath('go') || tools.every(({ name, home }) => existsSync(path.join(home, name)));
  },

  /** Builds them, once per machine. */
  async install(options: InstallOptions = {}): Promise<void> {
    for (const { name, module, home } of tools) {
      await installWithGo(home, { name, module, time: 'a minute or two', limit: buildLimit }, options);
    }
  },

  /** Where they are, once they are installed: for the PATH. */
  folders: tools.map(({ home }) => home),
};
