import { STATUS_CODES } from 'node:http';
import { failureResponse } from './envelopes.ts';
import { problemHeaders, sentence, type KnownProblem } from './problems.ts';
import type { Schema } from './rules.ts';

/** The schema of every error (RFC 9457). */
export const problemSchema: Schema = {
  type: 'object',
  description: 'What went wrong (RFC 9457).',
  properties: {
    type: { type: 'string', format: 'uri', description: 'The code once more, as a URN.' },
    title: { type: 'string', description: 'What the status means.' },
    status: { type: 'integer', minimum: 400, maximum: 599, description: 'The status of the answer.' },
    detail: { type: 'string', minLength: 1, description: 'What went wrong, as a sentence for people.' },
    error_code: {
      type: 'string',
      pattern: '^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$',
      description: 'What went wrong, for programs: it stays as it is, whatever the texts become.',
    },
    request_id: { type: 'string', description: 'The same as X-Request-ID: the one to look for in the logs.' },
    field_errors: {
      type: 'object',
      minProperties: 1,
      additionalProperties: { type: 'array', minItems: 1, items: { type: 'string' } },
      description: 'What is wrong with each field, by its path as it was sent: all wrong fields at once.',
    },
    retry_after: { type: 'integer', minimum: 1, description: 'Seconds until it is worth trying again.' },
  },
  required: ['type', 'title', 'status', 'detail', 'error_code', 'request_id'],
};

/** The responses for problems, by status. */
export function problemResponses(problems: readonly KnownProblem[], isEnveloped = false): Record<string, Schema> {
  const byStatus = Map.groupBy(problems, ({ status }) => status);
  return Object.fromEntries(
    [...byStatus]
      .toSorted(([one], [other]) => one - other)
      .map(([status, all]) => {
        const once = [...new Map(all.map((each) => [each.code, each])).values()];
        return [String(status), isEnveloped ? failureResponse(status, once) : problemResponse(status, once)];
      }),
  );
}

function problemResponse(status: number, problems: readonly KnownProblem[]): Schema {
  const codes = problems.map(({ code }) => code);
  const waits = status === 429 || status === 503;
  const [{ code, when }] = problems as [KnownProblem];
  const title = STATUS_CODES[status] ?? 'Error';
  return {
    description: `${title}\n\n${problems.map((each) => `- \`${each.code}\`: ${each.when}`).join('\n')}`,
    headers: problemHeaders(status),
    content: {
      'application/problem+json': {
        schema: {
          allOf: [{ $ref: '#/components/schemas/Problem' }],
          properties: { status: { const: status }, error_code: { enum: codes } },
          ...(waits && { required: ['retry_after'] }),
        },
        example: {
          type: `urn:error:${code.toLowerCase().replaceAll('_', '-')}`,
          title,
          status,
          detail: `${status === 403 ? 'Access denied: ' : ''}${status === 403 ? when : sentence(when)}`,
          error_code: code,
          request_id: '0d9e5a3c-6a0e-4a52-8a0b-5f9a3a1f7c11',
          ...(code === 'INVALID_ARGUMENT' && { field_errors: { name: ['is required'] } }),
          ...(waits && { retry_after: 1 }),
        },
      },
    },
  };
}
