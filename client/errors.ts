/** What calls fail with, and how a program tells one failure from another. */

/** A refusal, as the hub explains it (RFC 9457). */
export interface Problem {
  type: string;
  title: string;
  status: number;
  /** A sentence for people. */
  detail: string;
  /** What programs tell refusals apart by. */
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

/** An answer in an envelope: of what is under `/api/v1`. */
export interface Enveloped {
  data: unknown;
  error?: { code: string; message: string; details?: Detail[] } | null;
  meta?: { request_id?: string; pagination?: object };
}

/** The hub, or something in front of it, has refused a call. */
export class RefusedError<Code extends string = string> extends Error {
  override name = 'RefusedError';
  /** The HTTP status. */
  readonly status: number;
  /** What programs tell refusals apart by; undefined if it wasn't the hub that answered. */
  readonly code: Code | undefined;
  /** All that is wrong with fields. */
  readonly details: readonly Detail[];
  /** The one to look for in the hub's logs. */
  readonly requestId: string | undefined;
  /** Seconds after which to try again, if it said so. */
  readonly retryAfter: number | undefined;
  /** All that the hub says, except under `/api/v1`. */
  readonly problem: Problem | undefined;

  /**
   * @param body the JSON of the answer, if it was JSON
   * @param retryAfter the header of that name
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

/** No answer came, or only a part of it: the network or the hub is away. `cause` is what `fetch` threw. */
export class ConnectionError extends Error {
  override name = 'ConnectionError';
}

/**
 * Waits for what fetch promises.
 *
 * @param signal that fetch was given
 * @throws what the signal says once it is aborted; ConnectionError for the TypeErrors that fetch has for all that is wrong with a connection
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

/** The promise of a call. `Code` is what it may be refused with: `outcomeOf` makes use of it. */
export interface Reply<Value, Code extends string = string> extends Promise<Value> {
  /** Only there for the type checker: no promise has it. */
  readonly refusedWith?: Code;
}

/** How a call ended, where the hub has answered. */
export type Outcome<Value, Code extends string = string> =
  { ok: true; value: Value; refusal?: undefined } | { ok: false; value?: undefined; refusal: RefusedError<Code> };

/**
 * Waits for a call, and returns its refusal in place of throwing it, with the codes that just this call may have:
 * `const { ok, refusal } = await outcomeOf(client.message.sendMessage(…))`.
 *
 * @throws whatever else the call fails with
 */
export async function outcomeOf<Value, Code extends string>(reply: Reply<Value, Code>): Promise<Outcome<Value, Code>> {
  try {
    return { ok: true, value: await reply };
  } catch (error) {
    if (error instanceof RefusedError) return { ok: false, refusal: error as RefusedError<Code> };
    throw error;
  }
}

/** Whether an error is a refusal with one of these codes. */
export function isRefused<Code extends string>(error: unknown, ...codes: Code[]): error is RefusedError<Code> {
  return error instanceof RefusedError && (codes as (string | undefined)[]).includes(error.code);
}

/** Seconds that a header Retry-After says, which may also be a date. */
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
