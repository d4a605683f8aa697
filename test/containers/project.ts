import { chmod, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse } from 'yaml';
import { podmanCompose } from './base-images.ts';
import type { Machine, Podman } from './podman.ts';

/**
 * What `docker compose` does with a project. podman-compose reads the files and makes the containers; here they are started and stopped in
 * order, since the podman of Debian 12 (4.3) neither waits for health nor, without systemd, asks for it by itself.
 */
export interface Project {
  /** Makes networks, volumes and containers that are missing, starts all in order, and waits until they are healthy. */
  up(): Promise<void>;
  /** Ends all, first those that nothing else needs, with the time to stop that the files give each. @returns how each container ended */
  stop(): Promise<Stopped[]>;
  /** Removes containers, networks and volumes. */
  remove(): Promise<void>;
  /** The containers of a service, as podman describes them. */
  inspect(service: string): Promise<ContainerDetails[]>;
  /** Runs a program in the first container of a service. @returns its standard output */
  exec(service: string, ...command: string[]): Promise<string>;
  /** Runs podman. */
  podman(...args: string[]): Promise<string>;
  services: readonly string[];
}

export interface Stopped {
  name: string;
  exitCode: number;
  seconds: number;
  /** How long it may take. */
  grace: number;
}

export interface ContainerDetails {
  Name: string;
  State: {
    Status: string;
    ExitCode: number;
    OOMKilled: boolean;
    Health?: { Status: string };
    Healthcheck?: { Status: string };
  };
  RestartCount: number;
  Mounts: { Name?: string; Destination: string }[];
  HostConfig: { Memory: number; ReadonlyRootfs: boolean; CapDrop: string[]; SecurityOpt: string[] };
  NetworkSettings: { Networks: Record<string, { IPAddress: string; Aliases: string[] }> };
  Config: { Healthcheck?: { Test: string[]; Interval: number } };
}

interface Service {
  depends_on?: Record<string, { condition: string }>;
  stop_grace_period?: string;
}

const healthLimit = 4 * 60_000;
const defaultGrace = 10;

/** A project out of compose files of the repository. */
export async function openProject(
  { folder }: Podman,
  machine: Machine,
  options: { files: readonly string[]; envFile: string; name: string },
): Promise<Project> {
  // A container that requires another starts it again where that has ended, as the migration has: the order is kept here.
  const wrapper = path.join(folder, 'podman-without-requires');
  await writeFile(
    wrapper,
    `#!/bin/bash
args=()
for each in "$@"; do [[ $each == --requires=* ]] || args+=("$each"); done
exec podman "\${args[@]}"
`,
  );
  await chmod(wrapper, 0o755);
  const root = path.resolve(import.meta.dirname, '../..');
  const podman = (...args: string[]) => machine.run('podman', args, { limit: 120_000 });
  const compose = (...args: string[]) => {
    const [python, ...module] = podmanCompose;
    const files = options.files.flatMap((file) => ['--file', path.join(root, file)]);
    const given = [
      '--podman-path',
      wrapper,
      '--in-pod',
      'false',
      '--env-file',
      options.envFile,
      '--project-name',
      options.name,
    ];
    return machine.run(python, [...module, ...given, ...files, ...args], { limit: 120_000 });
  };
  const { services } = parse(await compose('config')) as { services: Record<string, Service> };

  const namesOf = async (service: string) => {
    const filters = [`label=com.docker.compose.service=${service}`, `label=com.docker.compose.project=${options.name}`];
    const listed = await podman(
      'ps',
      '--all',
      ...filters.flatMap((filter) => ['--filter', filter]),
      '--format',
      '{{.Names}}',
    );
    return listed
      .split('\n')
      .filter((name) => name !== '')
      .toSorted();
  };
  const inspectOne = async (name: string) => {
    const [details] = JSON.parse(await podman('inspect', name)) as [ContainerDetails];
    return details;
  };

  const awaitHealth = async (name: string) => {
    const { Healthcheck: check } = (await inspectOne(name)).Config;
    if (check === undefined || check.Test[0] === 'NONE') return;
    const giveUp = Date.now() + healthLimit;
    for (;;) {
      await sleep(check.Interval / 1_000_000);
      const isHealthy = await podman('healthcheck', 'run', name).then(
        () => true,
        () => false,
      );
      if (isHealthy) return;
      if (Date.now() < giveUp) continue;
      throw new Error(`${name} is not healthy:\n${(await podman('logs', '--tail', '20', name)).trim()}`);
    }
  };
  const awaitEnd = async (name: string) => {
    const code = Number(await podman('wait', name));
    if (code !== 0) throw new Error(`${name} ended with ${code}:\n${await podman('logs', name)}`);
  };

  return {
    services: Object.keys(services),
    podman,
    async up() {
      await compose('up', '--no-start', '--no-build', '--no-recreate');
      const started = new Map<string, Promise<string[]>>();
      const reached = new Map<string, Promise<unknown>>();
      const reach = (service: string, condition: string) => {
        const key = `${service} ${condition}`;
        const begun =
          reached.get(key) ??
          start(service).then((names) =>
            Promise.all(
              names.map((name) =>
                condition === 'service_completed_successfully' ? awaitEnd(name) : awaitHealth(name),
              ),
            ),
          );
        reached.set(key, begun);
        return begun;
      };
      const start = (service: string): Promise<string[]> => {
        const begun =
          started.get(service) ??
          (async () => {
            const needs = Object.entries(services[service]!.depends_on ?? {});
            await Promise.all(needs.map(([needed, { condition }]) => reach(needed, condition)));
            const names = await namesOf(service);
            await podman('start', ...names);
            return names;
          })();
        started.set(service, begun);
        return begun;
      };
      await Promise.all(
        Object.keys(services).map((service) => start(service).then(() => reach(service, 'service_healthy'))),
      );
    },
    async stop() {
      const stopped: Stopped[] = [];
      const ending = new Map<string, Promise<void>>();
      const end = (service: string): Promise<void> => {
        const begun =
          ending.get(service) ??
          (async () => {
            const users = Object.entries(services).filter(([, { depends_on: needs }]) => needs && service in needs);
            await Promise.all(users.map(([user]) => end(user)));
            const grace = Number.parseInt(services[service]!.stop_grace_period ?? String(defaultGrace), 10);
            const names = await namesOf(service);
            await Promise.all(
              names.map(async (name) => {
                const began = performance.now();
                await podman('stop', '--time', String(grace), name);
                const seconds = (performance.now() - began) / 1_000;
                stopped.push({ name, exitCode: (await inspectOne(name)).State.ExitCode, seconds, grace });
              }),
            );
          })();
        ending.set(service, begun);
        return begun;
      };
      await Promise.all(Object.keys(services).map(end));
      return stopped;
    },
    async remove() {
      await podman('rm', '--all', '--force');
      await podman('volume', 'rm', '--all');
      await podman('network', 'prune', '--force');
    },
    inspect: async (service) => Promise.all((await namesOf(service)).map(inspectOne)),
    exec: async (service, ...command) => podman('exec', (await namesOf(service))[0]!, ...command),
  };
}
