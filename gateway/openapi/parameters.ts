import type { DescField } from '@bufbuild/protobuf';
import { type Binding, isOutsideQuery } from '../rules/bindings.ts';
import type { HeaderField } from '../rules/stream-bindings.ts';
import type { Template } from '../rules/path-template.ts';
import { commentOf } from './comments.ts';
import type { Schema } from './rules.ts';
import type { Schemas } from './schemas.ts';

/** The headers that make a request conditional (RFC 9110, 13). */
export const conditions: readonly Schema[] = [
  {
    name: 'If-Match',
    in: 'header',
    description: 'Entity tags, or `*`: unless what is there has one of them, nothing is done.',
    schema: { type: 'string' },
  },
  {
    name: 'If-None-Match',
    in: 'header',
    description: 'Entity tags of what the client has already, or `*`.',
    schema: { type: 'string' },
  },
];

/** The Parameter Objects of an operation: of its path, its query and its headers. */
export function parametersOf(
  schemas: Schemas,
  bindings: readonly Binding[],
  wildcards: readonly Wildcard[],
  isConditional: boolean,
): Schema[] {
  const [binding] = bindings as [Binding];
  return [
    ...wildcards.map((wildcard) => pathParameter(schemas, binding, wildcard)),
    ...queryParameters(schemas, bindings),
    ...headerParameters(binding.requestHeaders, binding),
    ...(isConditional ? conditions : []),
    { $ref: '#/components/parameters/X-Request-ID' },
  ];
}

export interface Wildcard {
  name: string;
  /** The index of its step. */
  index: number;
}

/** A path template in OpenAPI's form, with a name in braces for each wildcard. */
export function writtenPath({ steps, variables, verb }: Template): { path: string; wildcards: Wildcard[] } {
  const wildcards: Wildcard[] = [];
  const segments = steps.map((step, index) => {
    if (step.kind === 'literal') return encodeURIComponent(step.text);
    const variable = variables.find(({ from, to }) => from <= index && index < to);
    const siblings = steps.filter((each, at) => isWithin(at, variable) && each.kind !== 'literal').length;
    const base = variable?.path.join('.') ?? 'segment';
    const before = wildcards.filter(({ name }) => name === base || name.startsWith(`${base}_`)).length;
    const name = variable !== undefined && siblings === 1 ? base : `${base}_${before + 1}`;
    wildcards.push({ name, index });
    return `{${name}}`;
  });
  return { path: `/${segments.join('/')}${verb === undefined ? '' : `:${verb}`}`, wildcards };
}

function isWithin(index: number, variable: { from: number; to: number } | undefined): boolean {
  return variable !== undefined && variable.from <= index && index < variable.to;
}

function pathParameter(schemas: Schemas, { input, template, method }: Binding, { name, index }: Wildcard): Schema {
  const variable = template.variables.find(({ from, to }) => from <= index && index < to);
  const field = variable === undefined ? undefined : fieldAt(method.input.fields, variable.path);
  const isAlone = variable !== undefined && variable.to - variable.from === 1;
  const {
    description = '',
    examples,
    ...schema
  } = field !== undefined && isAlone ? schemas.field(field, 'request') : { type: 'string' };
  const texts = [
    String(description),
    variable?.several === true ? `Together the segments are \`${variable.path.join('.')}\` of ${input.typeName}.` : '',
    template.steps[index]?.kind === 'rest' ? 'It may hold several segments, with slashes between them.' : '',
  ].filter((text) => text !== '');
  return {
    name,
    in: 'path',
    required: true,
    ...(texts.length > 0 && { description: texts.join('\n\n') }),
    schema,
    ...(Array.isArray(examples) && { example: examples[0] as unknown }),
  };
}

function queryParameters(schemas: Schemas, both: readonly Binding[]): Schema[] {
  const parameters = new Map<string, Schema>();
  for (const binding of both) {
    if (binding.body === 'all' || binding.isWholeHttp) continue;
    for (const leaf of schemas.leaves(binding.method.input)) {
      if (parameters.has(leaf.name) || isOutsideQuery(binding, leaf.fields)) continue;
      const { examples, ...schema } = leaf.schema;
      parameters.set(leaf.name, {
        name: leaf.name,
        in: 'query',
        ...(leaf.required && { required: true }),
        ...(leaf.description !== '' && { description: leaf.description }),
        ...(leaf.isMap && { style: 'deepObject', explode: true }),
        schema,
        ...(Array.isArray(examples) && { example: examples[0] as unknown }),
      });
    }
  }
  return [...parameters.values()];
}

/** The field of this name, which is known to be there. */
export function fieldOf(fields: readonly DescField[], name: string): DescField {
  return fields.find((field) => field.name === name)!;
}

function fieldAt(fields: readonly DescField[], [name, ...rest]: readonly string[]): DescField | undefined {
  const field = fields.find((candidate) => candidate.name === name || candidate.jsonName === name);
  return rest.length === 0 ? field : fieldAt(field?.message?.fields ?? [], rest);
}

/** Headers that HTTP clients set by themselves, so that they are no parameters. */
const madeByClients = new Set(['content-length', 'content-type', 'accept', 'authorization']);

function headerParameters(headers: readonly HeaderField[], { method }: Binding): Schema[] {
  return headers
    .filter(({ header }) => !madeByClients.has(header))
    .map(({ header, field }) => ({
      name: headerName(header),
      in: 'header',
      description: commentOf(fieldOf(method.input.fields, field.name)),
      schema: { type: 'string' },
    }));
}

/** A header as it is usually written: `Content-Range`. */
export function headerName(header: string): string {
  return header === 'etag' ? 'ETag' : header.replaceAll(/(^|-)[a-z]/g, (letter) => letter.toUpperCase());
}
