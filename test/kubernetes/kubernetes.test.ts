import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { parseAllDocuments } from 'yaml';
import { loadConfig, type Settings } from '#lib/config.ts';
import { processSettings } from '#lib/lifecycle.ts';
import { compose, makeSecrets } from '../deployment.ts';
import { serviceNames } from '../harness.ts';
import { opened, openedFolder } from '../opened.ts';
import { kubernetesToolsAvailable, kustomize, validator } from './tools.ts';

/**
 * The manifests in deploy/kubernetes, as kustomize puts them together. They are compared with the published schemas and with what the processes
 * read; no Kubernetes has run them.
 */

interface EnvVariable {
  name: string;
  value?: string;
  valueFrom?: { secretKeyRef: { name: string; key: string } };
}

interface PodSpec {
  terminationGracePeriodSeconds?: number;
  containers: {
    args: string[];
    image: string;
    env?: EnvVariable[];
    envFrom: { configMapRef: { name: string } }[];
    startupProbe?: object;
    readinessProbe?: object;
    livenessProbe?: object;
    resources: { limits: { memory: string } };
    securityContext: object;
    ports: { name: string; containerPort: number }[];
  }[];
}

interface Manifest {
  kind: string;
  metadata: { name: string; namespace?: string };
  data?: Record<string, string>;
  spec: {
    template: { spec: PodSpec };
    minReplicas: number;
    maxReplicas: number;
    metrics: { type: string; external?: { metric: { name: string } } }[];
    clusterIP?: string;
    scaleTargetRef: { name: string };
    selector: { matchLabels: Record<string, string> };
  };
}

/** Those that have a consumer group. */
const consumers = new Set(['connectors', 'conversation', 'events', 'message', 'router']);
const execute = promisify(execFile);
const real = kubernetesToolsAvailable() ? test : test.skip;
const folder = openedFolder('chat4all-kubernetes-');
const rendered = opened(async () => {
  const { stdout } = await execute(kustomize, ['build', path.join(import.meta.dirname, '../../deploy/kubernetes')]);
  const manifests = parseAllDocuments(stdout).map((document) => document.toJS() as Manifest);
  const of = (kind: string, name: string) =>
    manifests.find(({ kind: other, metadata }) => other === kind && metadata.name === name)!;
  return { text: stdout, manifests, of };
});

const validate = async (name: string, text: string) => {
  const file = path.join(folder, name);
  await writeFile(file, text);
  const { stdout, stderr } = await execute(validator, ['-m', 'kubernetes_validate', '--strict', '--no-warn', file]);
  return `${stdout}${stderr}`;
};

/** The environment of a pod, with these secrets. */
function environmentOf(spec: PodSpec, secrets: Readonly<Record<string, string>>): Record<string, string> {
  const [container] = spec.containers;
  const environment: Record<string, string> = {};
  for (const { configMapRef } of container!.envFrom) {
    Object.assign(environment, rendered.of('ConfigMap', configMapRef.name).data);
  }
  for (const { name, value, valueFrom } of container!.env ?? []) {
    environment[name] =
      value?.replaceAll(/\$\((\w+)\)/g, (_all, from: string) => environment[from]!) ??
      secrets[valueFrom!.secretKeyRef.key]!;
  }
  return environment;
}

const secretsOf = (spec: PodSpec) =>
  (spec.containers[0]!.env ?? []).flatMap(({ valueFrom }) => (valueFrom ? [valueFrom.secretKeyRef.key] : []));

real('deploy/kubernetes: all is what the published schemas of Kubernetes allow, and nothing more', async (t) => {
  const said = await validate('all.yaml', rendered.text);
  t.is(said.match(/ passed for resource /g)?.length, rendered.manifests.length, said);
  const wrong = rendered.text.replace('failureThreshold', 'failureTreshold');
  await t.throwsAsync(validate('wrong.yaml', wrong), undefined, 'a word that Kubernetes does not know');
});

real('deploy/kubernetes: each process has a Deployment with probes, a Service, a budget and an autoscaler', (t) => {
  for (const name of [...serviceNames, 'gateway']) {
    const { template } = rendered.of('Deployment', name).spec;
    const [container] = template.spec.containers;
    t.deepEqual(container!.args, compose.services[name]!.command, name);
    for (const probe of ['startupProbe', 'readinessProbe', 'livenessProbe'] as const) t.truthy(container![probe], name);
    t.like(container!.securityContext, { readOnlyRootFilesystem: true, allowPrivilegeEscalation: false }, name);
    t.is(container!.resources.limits.memory, '512Mi', name);
    const config = loadConfig(processSettings, environmentOf(template.spec, {}));
    const least = (config.SHUTDOWN_NOTICE + config.SHUTDOWN_TIMEOUT) / 1_000;
    t.true(template.spec.terminationGracePeriodSeconds! > least, name);
    t.is(container!.ports.find(({ name: port }) => port === 'metrics')!.containerPort, config.METRICS_PORT!, name);
    t.is(rendered.of('Service', name).spec.clusterIP, name === 'gateway' ? undefined : 'None', name);
    t.deepEqual(rendered.of('PodDisruptionBudget', name).spec.selector.matchLabels, {
      'app.kubernetes.io/name': name,
    });
    const { minReplicas, maxReplicas, metrics, scaleTargetRef } = rendered.of('HorizontalPodAutoscaler', name).spec;
    t.is(scaleTargetRef.name, name);
    t.true(minReplicas >= 2 && maxReplicas > minReplicas, name);
    t.deepEqual(
      metrics.map(({ type, external }) => external?.metric.name ?? type),
      ['Resource', ...(consumers.has(name) ? ['chat4all_bus_lag_events'] : [])],
      name,
    );
  }
  t.deepEqual(
    rendered.manifests.filter(({ kind }) => kind === 'Job').map(({ metadata }) => metadata.name),
    ['migrate'],
  );
});

real(
  'deploy/kubernetes: each process is given the settings that it needs, and its own secrets and no others',
  async (t) => {
    const secrets = makeSecrets();
    for (const name of [...serviceNames, 'gateway', 'migrate']) {
      const { spec } = rendered.of(name === 'migrate' ? 'Job' : 'Deployment', name).spec.template;
      const file = name === 'gateway' ? 'gateway/index.ts' : `services/${name}/index.ts`;
      if (name !== 'migrate') {
        const { settings } = (await import(path.join(import.meta.dirname, '../..', file))) as { settings: Settings };
        t.notThrows(() => loadConfig(settings, environmentOf(spec, secrets)), name);
      }
      const inCompose = Object.values(compose.services[name]!.environment!).flatMap((value) =>
        [...value.matchAll(/\$\{(\w+)/g)].map(([, from]) => from!).filter((from) => from in secrets),
      );
      t.deepEqual(secretsOf(spec).toSorted(), [...new Set(inCompose)].toSorted(), name);
    }
    const { BACKENDS: backends } = environmentOf(rendered.of('Deployment', 'gateway').spec.template.spec, {});
    t.is(backends, compose.services['gateway']!.environment!['BACKENDS']!.replaceAll(/\s/g, ''));
  },
);
