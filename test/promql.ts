import { parser } from '@prometheus-io/lezer-promql';

/** A time series of Prometheus. */
export interface Series {
  metric: string;
  labels: Readonly<Record<string, string>>;
  value: string;
}

/** The series of an answer of `/metrics`. */
export function readSeries(text: string): Series[] {
  return [...text.matchAll(/^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/gm)].map(([, metric, labels = '', value]) => ({
    metric: metric!,
    labels: Object.fromEntries(
      [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, quoted]) => [name!, quoted!]),
    ),
    value: value!,
  }));
}

/** Which series a part of a query selects. */
export interface Selector {
  metric: string;
  matchers: { label: string; operator: string; value: string }[];
}

/** What a query in PromQL reads, and the labels that it groups by. */
export interface Query {
  selectors: Selector[];
  groupedBy: string[];
}

/** @throws Error if it is no PromQL */
export function readQuery(text: string): Query {
  const query: Query = { selectors: [], groupedBy: [] };
  parser.parse(text).iterate({
    enter({ node, type, from, to }) {
      const shown = text.slice(from, to);
      const within = node.parent?.name;
      if (type.isError) throw new Error(`No PromQL, at ${from}: ${text}`);
      if (type.name === 'VectorSelector') query.selectors.push({ metric: '', matchers: [] });
      const selector = query.selectors.at(-1);
      const matcher = selector?.matchers.at(-1);
      if (type.name === 'Identifier' && within === 'VectorSelector') selector!.metric = shown;
      if (type.name === 'UnquotedLabelMatcher') selector!.matchers.push({ label: '', operator: '', value: '' });
      if (within === 'UnquotedLabelMatcher') {
        if (type.name === 'LabelName') matcher!.label = shown;
        if (type.name === 'MatchOp') matcher!.operator = shown;
        if (type.name === 'StringLiteral') matcher!.value = JSON.parse(shown) as string;
      }
      if (type.name === 'LabelName' && within === 'GroupingLabels') query.groupedBy.push(shown);
    },
  });
  return query;
}

/** Whether a selector selects a series, as Prometheus sees it: a label that a series doesn't have is empty. */
export function selects({ metric, matchers }: Selector, series: Series): boolean {
  return (
    metric === series.metric &&
    matchers.every(({ label, operator, value }) => {
      const actual = series.labels[label] ?? '';
      const isMatch = operator.endsWith('~') ? new RegExp(`^(?:${value})$`).test(actual) : actual === value;
      return isMatch !== operator.startsWith('!');
    })
  );
}
