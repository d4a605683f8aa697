const answerLimit = 5_000;

/** A sample of a metric, as Prometheus's text format has it. */
export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/**
 * What the hub's own counters say, by name and labels (`chat4all_bus_published_total{topic="messages"}`), added up over processes.
 * One that doesn't answer is left out.
 */
export async function readMetrics(ports: readonly number[]): Promise<Record<string, number>> {
  const texts = await Promise.all(
    ports.map(async (port) => {
      try {
        const answer = await fetch(`http://127.0.0.1:${port}/metrics`, { signal: AbortSignal.timeout(answerLimit) });
        return await answer.text();
      } catch {
        return '';
      }
    }),
  );
  return addUp(texts.flatMap((text) => counterLines(text)));
}

/** The lines of the hub's counters in a text of Prometheus, each with its value. */
export function counterLines(text: string): [series: string, value: number][] {
  return text.split('\n').flatMap((line): [string, number][] => {
    const found = /^(chat4all_\w+_total(?:\{.*\})?) (\S+)$/.exec(line);
    return found === null ? [] : [[found[1]!, Number(found[2])]];
  });
}

function addUp(lines: readonly [string, number][]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [series, value] of lines) sums[series] = (sums[series] ?? 0) + value;
  return sums;
}

/** The samples of one metric, whose name is given without `chat4all_`. */
export function samplesOf(metrics: Readonly<Record<string, number>>, name: string): Sample[] {
  return Object.entries(metrics).flatMap(([series, value]): Sample[] => {
    const [, found, labels = ''] = /^chat4all_(\w+)(?:\{(.*)\})?$/.exec(series) ?? [];
    if (found !== name) return [];
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, text]) => [label!, text!]);
    return [{ name, labels: Object.fromEntries(pairs) as Record<string, string>, value }];
  });
}

/** The sum of a metric's samples; undefined if there is none of it at all. */
export function sumOf(metrics: Readonly<Record<string, number>>, name: string): number | undefined {
  const samples = samplesOf(metrics, name);
  return samples.length === 0 ? undefined : samples.reduce((sum, { value }) => sum + value, 0);
}

/** The sums of a metric's samples by the text that `key` makes of their labels, largest first. */
export function sumsOf(
  metrics: Readonly<Record<string, number>>,
  name: string,
  key: (labels: Record<string, string>) => string,
): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const { labels, value } of samplesOf(metrics, name)) {
    if (value !== 0) sums[key(labels)] = (sums[key(labels)] ?? 0) + value;
  }
  return Object.fromEntries(Object.entries(sums).toSorted(([, a], [, b]) => b - a));
}
