/** The errors that calls fail with. */

/** The body of an error response (RFC 9457). */
export interface Problem {
  type: string;
  title: string;
  status: number;
  /** A sentence for people. */
  detail: string;
  /** The reason, for programs. */
  error_code: string;
  /** The one to look for in the hub's logs. */
  request_id: string;
  /** What is wrong with each wrong field, by its path. */
  field_errors?: Record<string, string[]>;
  /** Seconds after which to try again. */
  retry_after?: number;
}

/** What is wrong with a field. */
export interface Detail {
  /** Its path. */
  field: string;
  /** A sentence for people. */
  message: string;
  /** Which rule it doesn't meet, for programs; undefined where that isn't told. */
  rule?: string;
}

/** The envelope of responses under `/api/v1`. */
export interface Enveloped {
  data: unknown;
  error?: { code: string; message: string; details?: Detail[] } | null;
  meta?: { request_id?: string; pagination?: object };
}

/** An error response, from the hub or from a proxy in front of it. */
export class RefusedError<Code extends string = string> extends Error {
  override name = 'RefusedError';
  /** The HTTP status. */
  readonly status: number;
  /** The reason, for programs; undefined if the response isn't the hub's. */
  readonly code: Code | undefined;
  /** What is wrong with which field. */
  readonly details: readonly Detail[];
  /** The one to look for in the hub's logs. */
  readonly requestId: string | undefined;
  /** Seconds after which to try again, if the response says so. */
  readonly retryAfter: number | undefined;
  /** The whole body; undefined under `/api/v1`, where there is an envelope instead. */
  readonly problem: Problem | undefined;

  /**
   * @param body the parsed body, if it is JSON
   * @param retryAfter the header Retry-After
   */
  constructor(status: number, body: unknown, retryAfter?: string | null) {
    const problem = isProblem(body) ? body : undefined;
    const { error, meta } = isEnveloped(body) ? body : {};
    const [code, message] = [problem?.error_code ?? error?.code, problem?.detail ?? error?.message];
    super(code === undefined ? `HTTP ${status}` : `${message} (${status} ${code})`);
    this.status = status;
    this.code = code as Code | undefined;
    this.details = error?.details ?? detailsIn(problem);
    this.requestId = problem?.request_id ?? meta?.request_id;
    this.retryAfter = problem?.retry_after ?? secondsOf(retryAfter);
    this.problem = problem;
  }
}

/** There was no response, or it broke off: the network or the hub is down. `cause` is the error of `fetch`. */
export class ConnectionError extends Error {
  override name = 'ConnectionError';
}

/**
 * Waits for a promise of `fetch` or of a body.
 *
 * @param signal the one that `fetch` was given
 * @throws the reason of the signal once it is aborted; ConnectionError in place of the TypeErrors that `fetch` has for network errors
 */
export async function connected<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  try {
    return await promise;
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof TypeError)) throw error;
    const { cause } = error as { cause?: { message?: string; code?: string } };
    throw new ConnectionError(`No answer: ${cause?.message || cause?.code || error.message}`, { cause: error });
  }
}

/** The promise of a call. `Code` are the error codes that it may have, for `outcomeOf`. */
export interface Reply<Value, Code extends string = string> extends Promise<Value> {
  /** For the type checker only: never set. */
  readonly refusedWith?: Code;
}

/** The response to a call, or its refusal. */
export type Outcome<Value, Code extends string = string> =
  { ok: true; value: Value; refusal?: undefined } | { ok: false; value?: undefined; refusal: RefusedError<Code> };

/**
 * Waits for a call, and returns a refusal instead of throwing it, typed with the codes of this very call:
 * `const { ok, refusal } = await outcomeOf(client.message.sendMessage(…))`.
 *
 * @throws any other error of the call
 */
export async function outcomeOf<Value, Code extends string>(reply: Reply<Value, Code>): Promise<Outcome<Value, Code>> {
  try {
    return { ok: true, value: await reply };
  } catch (error) {
    if (error instanceof RefusedError) return { ok: false, refusal: error as RefusedError<Code> };
    throw error;
  }
}

/** Whether an error is a RefusedError with one of these codes. */
export function isRefused<Code extends string>(error: unknown, ...codes: Code[]): error is RefusedError<Code> {
  return error instanceof RefusedError && (codes as (string | undefined)[]).includes(error.code);
}

/** The seconds of a header Retry-After, which may also be a date. */
function secondsOf(header: string | null | undefined): number | undefined {
  if (header === null || header === undefined || header === '') return undefined;
  if (/^\d+$/.test(header)) return Number(header);
  const until = Date.parse(header);
  return Number.isNaN(until) ? undefined : Math.max(0, Math.ceil((until - Date.now()) / 1_000));
}

function isProblem(body: unknown): body is Problem {
  const { detail, error_code: code } = (body ?? {}) as Partial<Problem>;
  return typeof detail === 'string' && typeof code === 'string';
}

function isEnveloped(body: unknown): body is Enveloped {
  const { error } = (body ?? {}) as Partial<Enveloped>;
  return typeof error?.code === 'string' && typeof error.message === 'string';
}

function detailsIn(problem: Problem | undefined): Detail[] {
  const fields = Object.entries(problem?.field_errors ?? {});
  return fields.flatMap(([field, all]) => all.map((message) => ({ field, message })));
}
