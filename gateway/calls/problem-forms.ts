import { isUnder, styledPaths, type AnswerStyle, type StyledPath } from '../rules/answer-styles.ts';
import type { Binding } from '../rules/bindings.ts';
import { envelopedProblem } from './envelope.ts';
import { problemJson, type ProblemForm } from '../http/problem.ts';
import type { Route } from '../rules/path-template.ts';

/** Problems with the text and the status once more (chat4all.options.v1.ANSWER_STYLE_PROBLEM_WITH_MESSAGE). */
const withMessage: ProblemForm = {
  headersOf: (problem) => problem.headers,
  bodyOf: (problem, requestId) => problem.body(requestId, { message: problem.message, code: problem.status }),
};

/**
 * Problems with the error of OpenAI's API (chat4all.options.v1.ANSWER_STYLE_PROBLEM_WITH_ERROR), which its clients take the text
 * from. Which types and codes there are is said in https://platform.openai.com/docs/guides/error-codes.
 */
const withError: ProblemForm = {
  headersOf: (problem) => problem.headers,
  bodyOf(problem, requestId) {
    const { status, code, message, fields } = problem;
    return problem.body(requestId, { error: openAiError(status, code, message, fields?.[0]?.field) });
  },
};

/**
 * The `error` of OpenAI's API.
 *
 * @param code that of the problem
 * @param param the field that is wrong, if it is one
 */
export function openAiError(status: number, code: string, message: string, param?: string): Record<string, unknown> {
  const ours = status === 401 ? 'invalid_api_key' : status === 429 ? 'rate_limit_exceeded' : code.toLowerCase();
  return { message, type: errorType(status), param: param ?? null, code: ours };
}

function errorType(status: number): string {
  if (status === 429) return 'rate_limit_error';
  if (status === 403) return 'permission_error';
  if (status === 401) return 'authentication_error';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
}

const forms: Readonly<Record<AnswerStyle, ProblemForm>> = {
  envelope: envelopedProblem,
  'problem with message': withMessage,
  'problem with error': withError,
};

/** The form in which the problems of an RPC are told. */
export function problemFormOf({ answers }: Binding): ProblemForm {
  return answers === undefined ? problemJson : forms[answers.style];
}

/** Tells in which form a problem is told, by the path that was asked for. */
export class ProblemForms {
  readonly #paths: readonly StyledPath[];

  constructor(routes: readonly Route<Binding>[]) {
    this.#paths = styledPaths(routes);
  }

  /** @param pathname still encoded, without the query */
  of(pathname: string): ProblemForm {
    // What is no request may have any text there.
    const path = pathname.startsWith('/') ? pathname : `/${pathname}`;
    const found = this.#paths.find(({ segments }) => isUnder(segments, path));
    return found === undefined ? problemJson : forms[found.style];
  }
}
