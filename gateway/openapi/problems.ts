import { hasOption, getOption, type DescExtension, type Registry } from '@bufbuild/protobuf';
import type { Binding } from '../rules/bindings.ts';
import { httpStatusOf } from '../http/problem.ts';
import type { Schema } from './rules.ts';

/** An error that an endpoint may answer with. */
export interface KnownProblem {
  status: number;
  code: string;
  /** When it occurs, as the rest of a sentence. */
  when: string;
  /** Its code in an envelope, if its service declares one. */
  envelopeCode?: string | undefined;
}

/** The kind of a request's body. */
export type BodyKind = 'none' | 'json' | 'bytes';

const problem = (status: number, code: string, when: string): KnownProblem => ({ status, code, when });

/** Problems of any request, also of one that calls no backend. */
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

/** The problem of a conditional request. */
export const preconditionFailed = problem(
  412,
  'PRECONDITION_FAILED',
  'If-Match or If-None-Match is not met by what is there now',
);

/** Problems of calls to a backend. */
const ofCalls: readonly KnownProblem[] = [
  problem(400, 'MALFORMED_HEADER', 'Grpc-Timeout, or metadata in a header, is not usable'),
  problem(401, 'MALFORMED_HEADER', 'the header Authorization or X-API-Key has characters that are not ASCII'),
  problem(429, 'TOO_MANY_CALLS', 'this user, or this address, has more under way than its share: wait for some of it'),
  problem(500, 'UNKNOWN', 'something went wrong on our side'),
  problem(501, 'UNIMPLEMENTED', "the server doesn't know this call: it is of another version"),
  problem(502, 'ANSWER_TOO_LARGE', 'the answer is larger than can be passed on'),
  problem(503, 'UNAVAILABLE', 'the service is away for a moment'),
  problem(504, 'DEADLINE_EXCEEDED', 'the answer took too long'),
];

const ofPaths = problem(400, 'MALFORMED_PATH', 'the path has a wrong percent-encoding');
const ofFields = problem(400, 'INVALID_ARGUMENT', 'fields are wrong: all of them are named');

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
    problem(400, 'DIGEST_MISMATCH', 'the form has another digest than Content-Digest says'),
    problem(400, 'INCOMPLETE_BODY', 'the body ended before its time'),
    problem(415, 'UNSUPPORTED_MEDIA_TYPE', 'the body is compressed'),
  ],
};

/** Problems that the access rule of an RPC (chat4all.options.v1.access) may cause. */
const ofTokens: readonly KnownProblem[] = [
  problem(401, 'TOKEN_MISSING', 'there is no bearer token'),
  problem(401, 'TOKEN_INVALID', 'the token is not valid'),
  problem(401, 'TOKEN_EXPIRED', 'the token has expired: log in again'),
  problem(403, 'ACCESS_DENIED', 'the call is not for this user'),
  problem(503, 'SERVICE_UNAVAILABLE', 'a service that this one needs is away for a moment'),
];
const ofApiKeys = problem(401, 'API_KEY_INVALID', 'the API key is not valid');

/** All problems that belong to no single RPC; one that several kinds of requests have stands there several times. */
export const generalProblems: readonly KnownProblem[] = [
  ofFields,
  ofPaths,
  ...ofBodies.json,
  ...ofBodies.bytes,
  ...ofTokens,
  ofApiKeys,
  ...ofCalls,
  ...ownProblems,
  preconditionFailed,
  problem(404, 'ROUTE_NOT_FOUND', 'there is nothing at this path'),
  problem(405, 'METHOD_NOT_ALLOWED', 'there is nothing at this path with this method'),
];

/** Codes that belong to no endpoint: nothing is there, or nothing with that method. */
export const ofNoEndpoint: readonly string[] = ['ROUTE_NOT_FOUND', 'METHOD_NOT_ALLOWED'];

/** Reads which errors an RPC may end with. */
export class KnownErrors {
  readonly #known: DescExtension | undefined;
  readonly #errors: DescExtension | undefined;
  readonly #access: DescExtension | undefined;
  readonly #bearerOnly: DescExtension | undefined;

  constructor(registry: Registry) {
    const ours = (name: string) => registry.getExtension(`chat4all.options.v1.${name}`);
    this.#known = ours('known_errors');
    this.#errors = ours('errors');
    this.#access = ours('access');
    this.#bearerOnly = ours('bearer_only');
  }

  /** The access rule of an RPC (chat4all.options.v1.Access); undefined if it says none. */
  accessOf({ method }: Binding): number | undefined {
    return this.#access !== undefined && hasOption(method, this.#access)
      ? (getOption(method, this.#access) as number)
      : undefined;
  }

  /** The credentials that an RPC accepts, as a Security Requirement of OpenAPI; undefined without an access rule. */
  securityOf(binding: Binding): Schema[] | undefined {
    const access = this.accessOf(binding);
    if (access === undefined) return undefined;
    if (access === publicAccess) return [];
    return this.#takesApiKeys(binding) ? [{ bearer: [] }, { apiKey: [] }] : [{ bearer: [] }];
  }

  #takesApiKeys(binding: Binding): boolean {
    const isBearerOnly = this.#bearerOnly !== undefined && getOption(binding.method, this.#bearerOnly) === true;
    return this.accessOf(binding) === userAccess && !isBearerOnly;
  }

  /** All problems that a route may answer with, for these kinds of body. */
  problemsOf(binding: Binding, bodies: readonly BodyKind[]): KnownProblem[] {
    const { input, variables } = binding;
    const access = this.accessOf(binding);
    return [
      ...(input.fields.length > 0 ? [ofFields] : []),
      ...this.#declared(binding),
      ...bodies.flatMap((body) => ofBodies[body]),
      ...(variables.length > 0 ? [ofPaths] : []),
      ...(access === undefined || access === publicAccess ? [] : ofTokens),
      ...(this.#takesApiKeys(binding) ? [ofApiKeys] : []),
      ...ofCalls,
      ...ownProblems,
    ];
  }

  /**
   * The errors that the RPC's proto declares.
   *
   * @throws Error if it names an error that its service doesn't declare
   */
  #declared({ method, errorStatuses, errorCodes }: Binding): KnownProblem[] {
    if (this.#known === undefined || this.#errors === undefined) return [];
    const known = getOption(method.parent, this.#known) as unknown as DeclaredError[];
    const named = getOption(method, this.#errors) as unknown as string[];
    const unknown = named.filter((name) => !known.some(({ reason }) => reason === name));
    if (unknown.length > 0) {
      throw new Error(`${method.parent.typeName}.${method.name} names unknown errors: ${unknown.join(', ')}`);
    }
    return known
      .filter(({ reason, everywhere }) => everywhere || named.includes(reason))
      .map(({ code, reason, when }) => ({
        ...problem(errorStatuses.get(reason) ?? httpStatusOf(code), reason, when),
        envelopeCode: errorCodes?.get(reason),
      }));
  }
}

const publicAccess = 1;
const userAccess = 2;

/** chat4all.options.v1.Error, as protobuf-es shows it. */
interface DeclaredError {
  code: number;
  reason: string;
  when: string;
  everywhere: boolean;
}

/** The headers of a problem response. */
export function problemHeaders(status: number): Schema {
  return {
    'X-Request-ID': { $ref: '#/components/headers/X-Request-ID' },
    ...(status === 401 && { 'WWW-Authenticate': { $ref: '#/components/headers/WWW-Authenticate' } }),
    ...(status === 429 && {
      RateLimit: { $ref: '#/components/headers/RateLimit' },
      'RateLimit-Policy': { $ref: '#/components/headers/RateLimit-Policy' },
    }),
    ...((status === 429 || status === 503) && { 'Retry-After': { $ref: '#/components/headers/Retry-After' } }),
  };
}

/** Capitalises the first letter of a sentence. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
