import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { declaredMetric } from '#lib/metrics.ts';
import { code, madeOf, prose, table } from './markdown.ts';

/** docs/reference-metrics.md, of the metrics as they are declared next to what they measure. */

const root = path.resolve(import.meta.dirname, '../..');
const declaration = /\b(?:counter|gauge|sharedGauge|durationHistogram|ageHistogram|sizeHistogram)\(\s*'(\w+)'/g;

/** Where a metric is declared, and which processes have it then. */
const places: readonly [folder: RegExp, processes: string][] = [
  [/^gateway\//, 'gateway'],
  [/^services\/(\w+)\//, '$1'],
  [/^lib\/rpc\//, 'every service'],
  [/^lib\/bus\/kafka/, 'who publishes or consumes, over Kafka'],
  [/^lib\/bus\//, 'who publishes or consumes'],
  [/^lib\/(database|connections)/, 'every service'],
  [/^lib\/(breaker|rounds)/, 'every service that has some'],
  [/^lib\/metrics/, 'all'],
];

/** @returns docs/reference-metrics.md */
export async function metricsPage(): Promise<string> {
  const files = globSync('{lib,services,gateway}/**/*.ts', { cwd: root }).filter((file) => !file.endsWith('.test.ts'));
  const rows: string[][] = [];
  for (const file of files.toSorted()) {
    const names = [...readFileSync(path.join(root, file), 'utf8').matchAll(declaration)].map(([, name]) => name!);
    if (names.length === 0) continue;
    await import(path.join(root, file));
    for (const name of names) {
      const { type, help, labels } = declaredMetric(name);
      rows.push([code(`chat4all_${name}`), type, labels.map(code).join(', '), prose(help), processesOf(file)]);
    }
  }
  rows.sort(([a], [b]) => (a! < b! ? -1 : 1));
  return `# Metrics

${madeOf('the declarations of the metrics')}

Each process serves these for Prometheus at \`/metrics\` on \`METRICS_PORT\`, if that is set, and Node's own beside them (\`process_…\`, \`nodejs_…\`). Which port
each process has, and what to alert on: [what to watch](operating.md#what-to-watch). Histograms have \`_bucket\`, \`_sum\` and
\`_count\`. Counters whose labels have values that are known beforehand begin with 0 for each of them.

${table(['metric', 'kind', 'labels', 'what it says', 'processes'], rows)}
`;
}

function processesOf(file: string): string {
  const [folder, processes] = places.find(([each]) => each.test(file)) ?? [];
  if (folder === undefined || processes === undefined) throw new Error(`${file}: which processes have its metrics?`);
  return file.replace(new RegExp(`${folder.source}.*`), processes);
}
