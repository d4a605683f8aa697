import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { ConfigError } from '#lib/config.ts';

/** A google.api.HttpRule, as protobuf-es shows it when it only has the descriptor. */
export interface HttpRule {
  pattern: { case?: string; value?: string | { kind: string; path: string } };
  body: string;
  responseBody: string;
  additionalBindings: HttpRule[];
}

const verbs = ['get', 'put', 'post', 'delete', 'patch', 'custom'];
/** By the name that it has in YAML and in JSON. */
const members = new Map([
  ['selector', 'selector'],
  ['body', 'body'],
  ['response_body', 'responseBody'],
  ['responseBody', 'responseBody'],
  ['additional_bindings', 'additionalBindings'],
  ['additionalBindings', 'additionalBindings'],
  ...verbs.map((verb) => [verb, verb] as const),
]);

/**
 * Reads a gRPC API Configuration (google.api.Service): HTTP rules that don't stand in the protos, as grpc-gateway takes them with
 * `grpc_api_configuration`. Whatever else it says is left alone.
 *
 * @param file YAML, or JSON
 * @returns the rules by the full names of their methods
 * @throws ConfigError that says what is wrong with it
 */
export function readApiConfiguration(file: string): Map<string, HttpRule[]> {
  const fail = (what: string): never => {
    throw new ConfigError([`${file} is no gRPC API Configuration: ${what}`]);
  };
  let content: unknown;
  try {
    content = parse(readFileSync(file, 'utf8'));
  } catch (error) {
    return fail((error as Error).message);
  }
  const rules = new Map<string, HttpRule[]>();
  const all = objectIn(objectIn(content)?.['http'])?.['rules'];
  if (!Array.isArray(all)) return fail('it has no http.rules');
  for (const [index, each] of all.entries()) {
    const selector = objectIn(each)?.['selector'];
    if (typeof selector !== 'string') return fail(`the rule ${index + 1} has no selector`);
    const rule = ruleIn(each, (what) => fail(`the rule of ${selector} ${what}`));
    rules.set(selector, [...(rules.get(selector) ?? []), rule]);
  }
  return rules;
}

function ruleIn(given: unknown, fail: (what: string) => never): HttpRule {
  const rule: HttpRule = { pattern: {}, body: '', responseBody: '', additionalBindings: [] };
  for (const [key, value] of Object.entries(objectIn(given) ?? fail('is no object'))) {
    const member = members.get(key);
    if (member === undefined) return fail(`has ${key}, which no rule has`);
    if (member === 'additionalBindings') {
      if (!Array.isArray(value)) return fail(`has ${key} that are no list`);
      rule.additionalBindings = value.map((one) => ruleIn(one, fail));
    } else if (member === 'custom') {
      const { kind, path } = objectIn(value) ?? {};
      if (typeof kind !== 'string' || typeof path !== 'string')
        return fail('has a custom pattern without kind or path');
      rule.pattern = { case: 'custom', value: { kind, path } };
    } else if (typeof value !== 'string') {
      return fail(`has ${key} that is no text`);
    } else if (member === 'body' || member === 'responseBody') {
      rule[member] = value;
    } else if (verbs.includes(member)) {
      rule.pattern = { case: member, value };
    }
  }
  return rule;
}

function objectIn(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}
