import { STATUS_CODES } from 'node:http';
import { hasOption, getOption, type DescExtension, type Registry } from '@bufbuild/protobuf';
import type { Binding } from '../bindings.ts';
import { httpStatusOf } from '../problem.ts';
import type { Schema } from './rules.ts';

/** An error that an endpoint may answer with. */
export interface KnownProblem {
  status: number;
  code: string;
  /** What has happened then, as the rest of a sentence. */
  when: string;
}

/** How a request carries what it says beyond its path and query. */
export type BodyKind = 'none' | 'json' | 'bytes';

const problem = (status: number, code: string, when: string): KnownProblem => ({ status, code, when });

/** What can be wrong with any request, also one that calls no backend. */
export const ownProblems: readonly KnownProblem[] = [
  problem(400, 'MALFORMED_REQUEST', 'this is no valid HTTP request'),
  problem(400, 'TOO_MANY_PARAMETERS', 'the query has more parameters than any endpoint takes'),
  problem(408, 'REQUEST_TIMEOUT', 'the request took too long to arrive'),
  problem(414, 'URI_TOO_LONG', 'the path and the query are too long'),
  problem(417, 'EXPECTATION_FAILED', 'the header Expect asks for something else than 100-continue'),
  problem(429, 'RATE_LIMITED', 'there were too many requests by this user or from this address: slow down'),
  problem(431, 'HEADERS_TOO_LARGE', 'the headers are too large'),
  problem(500, 'INTERNAL', 'something went wrong on our side'),
  problem(503, 'OVERLOADED', 'there is too much to do at the moment'),
];

/** What calling a backend may lead to. */
const ofCalls: readonly KnownProblem[] = [
  problem(400, 'MALFORMED_HEADER', 'Grpc-Timeout, or metadata in a header, is not usable'),
  problem(401, 'MALFORMED_HEADER', 'the header Authorization has characters that are not ASCII'),
  problem(429, 'TOO_MANY_CALLS', 'this user, or this address, has more under way than its share: wait for some of it'),
  problem(500, 'UNKNOWN', 'something went wrong on our side'),
  problem(501, 'UNIMPLEMENTED', "the server doesn't know this call: it is of another version"),
  problem(502, 'ANSWER_TOO_LARGE', 'the answer is larger than can be passed on'),
  problem(503, 'UNAVAILABLE', 'the service is away for a moment'),
  problem(504, 'DEADLINE_EXCEEDED', 'the answer took too long'),
];

const ofPaths = problem(400, 'MALFORMED_PATH', 'the path has a wrong percent-encoding');
const ofFields = problem(400, 'INVALID_ARGUMENT', 'fields are wrong: `field_errors` names them');

const ofBodies: Readonly<Record<BodyKind, readonly KnownProblem[]>> = {
  none: [],
  json: [
    problem(400, 'MALFORMED_JSON', 'the body is no JSON'),
    problem(400, 'INCOMPLETE_BODY', 'the body ended before its time'),
    problem(413, 'PAYLOAD_TOO_LARGE', 'the body is too large'),
    problem(415, 'UNSUPPORTED_MEDIA_TYPE', 'the body is of another type, or compressed'),
  ],
  bytes: [
    problem(400, 'MALFORMED_FORM', "the form can't be read"),
    problem(400, 'INCOMPLETE_BODY', 'the body ended before its time'),
    problem(415, 'UNSUPPORTED_MEDIA_TYPE', 'the body is compressed'),
  ],
};

/** What the access rule of an RPC (chat4all.options.v1.access) leads to. */
const ofTokens: readonly KnownProblem[] = [
  problem(401, 'TOKEN_MISSING', 'there is no bearer token'),
  problem(401, 'TOKEN_INVALID', 'the token is not valid'),
  problem(401, 'TOKEN_EXPIRED', 'the token has expired: log in again'),
  problem(403, 'ACCESS_DENIED', 'the call is not for this user'),
];

/** Codes that belong to no endpoint: nothing is there, or nothing with that method. */
export const ofNoEndpoint: readonly string[] = ['ROUTE_NOT_FOUND', 'METHOD_NOT_ALLOWED'];

/** Reads which errors an RPC may end with. */
export class KnownErrors {
  readonly #known: DescExtension | undefined;
  readonly #errors: DescExtension | undefined;
  readonly #access: DescExtension | undefined;

  constructor(registry: Registry) {
    const ours = (name: string) => registry.getExtension(`chat4all.options.v1.${name}`);
    this.#known = ours('known_errors');
    this.#errors = ours('errors');
    this.#access = ours('access');
  }

  /** The access rule of an RPC (chat4all.options.v1.Access); undefined if it says none. */
  accessOf({ method }: Binding): number | undefined {
    return this.#access !== undefined && hasOption(method, this.#access)
      ? (getOption(method, this.#access) as number)
      : undefined;
  }

  /** All problems that a route may answer with, whose request has one of those kinds of body. */
  problemsOf(binding: Binding, bodies: readonly BodyKind[]): KnownProblem[] {
    const { input, variables } = binding;
    const access = this.accessOf(binding);
    return [
      ...(input.fields.length > 0 ? [ofFields] : []),
      ...this.#declared(binding),
      ...bodies.flatMap((body) => ofBodies[body]),
      ...(variables.length > 0 ? [ofPaths] : []),
      ...(access === undefined || access === publicAccess ? [] : ofTokens),
      ...ofCalls,
      ...ownProblems,
    ];
  }

  /**
   * What the RPC's proto declares.
   *
   * @throws Error if it names an error that its service doesn't know
   */
  #declared({ method, errorStatuses }: Binding): KnownProblem[] {
    if (this.#known === undefined || this.#errors === undefined) return [];
    const known = getOption(method.parent, this.#known) as unknown as DeclaredError[];
    const named = getOption(method, this.#errors) as unknown as string[];
    const unknown = named.filter((name) => !known.some(({ reason }) => reason === name));
    if (unknown.length > 0) {
      throw new Error(`${method.parent.typeName}.${method.name} names unknown errors: ${unknown.join(', ')}`);
    }
    return known
      .filter(({ reason, everywhere }) => everywhere || named.includes(reason))
      .map(({ code, reason, when }) => problem(errorStatuses.get(reason) ?? httpStatusOf(code), reason, when));
  }
}

const publicAccess = 1;

/** chat4all.options.v1.Error, as protobuf-es shows it. */
interface DeclaredError {
  code: number;
  reason: string;
  when: string;
  everywhere: boolean;
}

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
export function problemResponses(problems: readonly KnownProblem[]): Record<string, Schema> {
  const byStatus = Map.groupBy(problems, ({ status }) => status);
  return Object.fromEntries(
    [...byStatus]
      .toSorted(([one], [other]) => one - other)
      .map(([status, all]) => {
        const once = [...new Map(all.map((each) => [each.code, each])).values()];
        return [String(status), problemResponse(status, once)];
      }),
  );
}

function problemResponse(status: number, problems: readonly KnownProblem[]): Schema {
  const codes = problems.map(({ code }) => code);
  const waits = status === 429 || status === 503;
  const headers = {
    'X-Request-ID': { $ref: '#/components/headers/X-Request-ID' },
    ...(status === 401 && { 'WWW-Authenticate': { $ref: '#/components/headers/WWW-Authenticate' } }),
    ...(status === 429 && {
      RateLimit: { $ref: '#/components/headers/RateLimit' },
      'RateLimit-Policy': { $ref: '#/components/headers/RateLimit-Policy' },
    }),
    ...(waits && { 'Retry-After': { $ref: '#/components/headers/Retry-After' } }),
  };
  const [{ code, when }] = problems as [KnownProblem];
  const title = STATUS_CODES[status] ?? 'Error';
  return {
    description: `${title}\n\n${problems.map((each) => `- \`${each.code}\`: ${each.when}`).join('\n')}`,
    headers,
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
          detail: `${status === 403 ? 'Access denied: ' : ''}${status === 403 ? when : when.charAt(0).toUpperCase() + when.slice(1)}`,
          error_code: code,
          request_id: '0d9e5a3c-6a0e-4a52-8a0b-5f9a3a1f7c11',
          ...(code === 'INVALID_ARGUMENT' && { field_errors: { name: ['is required'] } }),
          ...(waits && { retry_after: 1 }),
        },
      },
    },
  };
}
