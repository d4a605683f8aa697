import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import {
  engineHome,
  installOnce,
  installWithGo,
  isOnPath,
  runTool,
  type InstallOptions,
} from '../../dev/engines/install.ts';

/** What reads and checks manifests: kustomize, and kubernetes-validate of PyPI, which brings the published schemas of Kubernetes. */

const kustomizeVersion = 'v5.7.1';
const kustomizeHome = engineHome('kustomize', kustomizeVersion);
export const kustomize = path.join(kustomizeHome, 'kustomize');

const requirements = path.join(import.meta.dirname, 'requirements.txt');
const validatorVersion = createHash('sha256').update(readFileSync(requirements)).digest('hex').slice(0, 12);
const validatorHome = engineHome('kubernetes-validate', validatorVersion);
export const validator = path.join(validatorHome, 'bin/python');

/** What the machine must have for them. */
export const kubernetesToolsNeeds = 'Go (go) and Python with venv (python3) on the PATH';
const limit = 10 * 60_000;

export function kubernetesToolsAvailable(): boolean {
  return (existsSync(kustomize) || isOnPath('go')) && (existsSync(validator) || isOnPath('python3'));
}

export async function installKubernetesTools(options: InstallOptions = {}): Promise<void> {
  const module = `sigs.k8s.io/kustomize/kustomize/v5@${kustomizeVersion}`;
  await installWithGo(kustomizeHome, { name: 'kustomize', module, time: 'a minute', limit }, options);
  const { log, signal } = options;
  await installOnce(validatorHome, async (unfinished) => {
    log?.('Installing kubernetes-validate, only this once.');
    const given = { limit, failure: 'kubernetes-validate could not be installed. Is there a network?', signal };
    await runTool('python3', ['-m', 'venv', unfinished], given);
    const wheels = ['--quiet', '--disable-pip-version-check', '--only-binary', ':all:', '--no-deps'];
    await runTool(path.join(unfinished, 'bin/python'), ['-m', 'pip', 'install', ...wheels, '-r', requirements], given);
  });
}
