import { STATUS_CODES } from 'node:http';
import { envelopeCode } from '../calls/envelope.ts';
import { problemHeaders, sentence, type KnownProblem } from './problems.ts';
import type { Schema } from './rules.ts';

/*
 * Answers in an envelope (gateway/calls/envelope.ts).
 */

/** What rules are called, in any service. */
const rules =
  "In any endpoint: `required`; `type` and `format` (it can't be read), `enum` (none of the values that there are), `unknown` (no " +
  'such field), `once` and `conflict` (given twice, or beside what excludes it), `depth`, `unicode`, `encoding`; `min_length`, ' +
  '`max_length`, `length`, `min_bytes`, `max_bytes`, `pattern`, `contains`, `not_contains`, `email`, `uuid`, `uri`; `minimum`, ' +
  '`maximum`, `above`, `below`, `range`, `future`; `min_items`, `max_items`, `unique`; `invalid` where nothing more is known. ' +
  'Others belong to one endpoint.';

const requestId: Schema = {
  type: 'string',
  description: 'The same as X-Request-ID: the one to look for in the logs.',
};

/** The schema of an enveloped success. @param pagination the schema of `meta.pagination`, for lists */
export function successSchema(data: Schema, pagination?: Schema): Schema {
  return {
    type: 'object',
    properties: {
      data,
      error: { type: 'null' },
      meta: {
        type: 'object',
        properties: { request_id: requestId, ...(pagination !== undefined && { pagination }) },
        required: ['request_id', ...(pagination === undefined ? [] : ['pagination'])],
      },
    },
    required: ['data', 'error', 'meta'],
  };
}

const meta: Schema = { type: 'object', properties: { request_id: requestId }, required: ['request_id'] };

/** The schema of an envelope around an error. */
function failure(error: Schema): Schema {
  return {
    type: 'object',
    properties: { data: { type: 'null' }, error, meta },
    required: ['data', 'error', 'meta'],
  };
}

const detailSchema: Schema = {
  type: 'object',
  properties: {
    field: { type: 'string', description: 'The path of the field, as it was sent.' },
    message: { type: 'string', minLength: 1, description: 'What is wrong with it, for people.' },
    rule: {
      type: 'string',
      pattern: '^[a-z][a-z0-9_]*$',
      description: `Which rule it does not meet, for programs. ${rules}`,
    },
  },
  required: ['field', 'message', 'rule'],
};

/** The schemas of every error, by their names among the components. */
export const failureSchemas: Readonly<Record<string, Schema>> = {
  Failure: {
    description: 'What went wrong, in an envelope.',
    ...failure({ $ref: '#/components/schemas/FailureError' }),
  },
  FailureError: {
    type: 'object',
    description: 'What went wrong.',
    properties: {
      code: {
        type: 'string',
        pattern: '^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$',
        description: 'What went wrong, for programs: it stays as it is, whatever the texts become.',
      },
      message: { type: 'string', minLength: 1, description: 'What went wrong, as a sentence for people.' },
      details: {
        type: 'array',
        description: 'All that is wrong with fields, at once: one entry for each rule that a field does not meet.',
        items: detailSchema,
      },
    },
    required: ['code', 'message', 'details'],
  },
};

/** The response for problems with one status. */
export function failureResponse(status: number, problems: readonly KnownProblem[]): Schema {
  const byCode = Map.groupBy(problems, ({ code, envelopeCode: own }) => envelopeCode(status, code, own));
  const title = STATUS_CODES[status] ?? 'Error';
  const lines = [...byCode].map(
    ([code, all]) => `- \`${code}\`: ${[...new Set(all.map(({ when }) => when))].join('; ')}`,
  );
  const [code, [first]] = [...byCode][0] as unknown as [string, readonly [KnownProblem]];
  const details =
    first.code === 'INVALID_ARGUMENT' ? [{ field: 'name', message: 'is required', rule: 'required' }] : [];
  return {
    description: `${title}\n\n${lines.join('\n')}`,
    headers: problemHeaders(status),
    content: {
      'application/json': {
        schema: failure({
          allOf: [{ $ref: '#/components/schemas/FailureError' }],
          properties: { code: { enum: [...byCode.keys()] } },
        }),
        example: {
          data: null,
          error: { code, message: sentence(first.when), details },
          meta: { request_id: '0d9e5a3c-6a0e-4a52-8a0b-5f9a3a1f7c11' },
        },
      },
    },
  };
}
