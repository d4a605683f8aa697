import { STATUS_CODES } from 'node:http';
import type { AnswerStyle } from '../rules/answer-styles.ts';
import { failureResponse } from './envelopes.ts';
import { openAiError } from '../calls/problem-forms.ts';
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

/** The schemas of errors that have more members, by their names among the components. */
export const styledProblemSchemas: Readonly<Record<string, Schema>> = {
  ProblemWithMessage: {
    description: 'What went wrong, with the text and the status once more.',
    allOf: [{ $ref: '#/components/schemas/Problem' }],
    properties: {
      message: { type: 'string', minLength: 1, description: 'The same as `detail`.' },
      code: { type: 'integer', minimum: 400, maximum: 599, description: 'The same as `status`.' },
    },
    required: ['message', 'code'],
  },
  ProblemWithError: {
    description: 'What went wrong, with the error of the OpenAI API.',
    allOf: [{ $ref: '#/components/schemas/Problem' }],
    properties: {
      error: {
        type: 'object',
        description: 'What clients of the OpenAI API read.',
        properties: {
          message: { type: 'string', minLength: 1, description: 'What went wrong, as a sentence for people.' },
          type: {
            type: 'string',
            description: 'The kind of error: `invalid_request_error`, `server_error` and others.',
          },
          param: { type: ['string', 'null'], description: 'The field that is wrong, if it is one.' },
          code: { type: ['string', 'null'], description: 'What went wrong, for programs.' },
        },
        required: ['message', 'type', 'param', 'code'],
      },
    },
    required: ['error'],
  },
};

/** The schema of a problem in a style. */
export function problemReference(style: AnswerStyle | undefined): Schema {
  const name =
    style === 'problem with message'
      ? 'ProblemWithMessage'
      : style === 'problem with error'
        ? 'ProblemWithError'
        : 'Problem';
  return { $ref: `#/components/schemas/${name}` };
}

/** The responses for problems, by status. */
export function problemResponses(problems: readonly KnownProblem[], style?: AnswerStyle): Record<string, Schema> {
  const byStatus = Map.groupBy(problems, ({ status }) => status);
  return Object.fromEntries(
    [...byStatus]
      .toSorted(([one], [other]) => one - other)
      .map(([status, all]) => {
        const once = [...new Map(all.map((each) => [each.code, each])).values()];
        return [
          String(status),
          style === 'envelope' ? failureResponse(status, once) : problemResponse(status, once, style),
        ];
      }),
  );
}

function problemResponse(status: number, problems: readonly KnownProblem[], style: AnswerStyle | undefined): Schema {
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
          allOf: [problemReference(style)],
          properties: { status: { const: status }, error_code: { enum: codes } },
          ...(waits && { required: ['retry_after'] }),
        },
        example: exampleIn(style, status, {
          type: `urn:error:${code.toLowerCase().replaceAll('_', '-')}`,
          title,
          status,
          detail: `${status === 403 ? 'Access denied: ' : ''}${status === 403 ? when : sentence(when)}`,
          error_code: code,
          request_id: '0d9e5a3c-6a0e-4a52-8a0b-5f9a3a1f7c11',
          ...(code === 'INVALID_ARGUMENT' && { field_errors: { name: ['is required'] } }),
          ...(waits && { retry_after: 1 }),
        }),
      },
    },
  };
}

/** An example of a problem, with what its style adds. */
function exampleIn(
  style: AnswerStyle | undefined,
  status: number,
  problem: Schema & { detail: string; error_code: string },
): Schema {
  if (style === 'problem with message') return { ...problem, message: problem.detail, code: status };
  if (style !== 'problem with error') return problem;
  return { ...problem, error: openAiError(status, problem.error_code, problem.detail) };
}
