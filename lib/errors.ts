/** The gRPC status codes that our calls may end with, beside OK (google.golang.org/grpc/codes). */
export const errorKinds = [
  'CANCELLED',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'UNAUTHENTICATED',
] as const;

export type ErrorKind = (typeof errorKinds)[number];

/** One wrong field of a request: its path in proto names (`payload.text`, `members[2]`) and what is wrong with it. */
export interface FieldViolation {
  field: string;
  description: string;
  /**
   * The rule that is violated, for programs: stable short lower snake_case (`min_length`). Sent in upper case as the reason of the
   * violation (AIP-193).
   */
  rule?: string | undefined;
}

export interface HubErrorOptions {
  /** The wrong fields; sent as google.rpc.BadRequest. */
  fields?: readonly FieldViolation[];
  /** Seconds until it is worth trying again; sent as google.rpc.RetryInfo. */
  retryAfter?: number;
  cause?: unknown;
}

/**
 * The one error that callers are meant to see. Anything else that is thrown is a bug: logged, and sent as INTERNAL
 * without its text.
 *
 * `reason` is stable UPPER_SNAKE (google.rpc.ErrorInfo.reason, `error_code` over REST); `message` is a sentence for people.
 */
export class HubError extends Error {
  readonly kind: ErrorKind;
  readonly reason: string;
  readonly fields: readonly FieldViolation[];
  readonly retryAfter: number | undefined;

  constructor(kind: ErrorKind, reason: string, message: string, options: HubErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'HubError';
    this.kind = kind;
    this.reason = reason;
    this.fields = options.fields ?? [];
    this.retryAfter = options.retryAfter;
  }
}

/** How many wrong fields the message names. */
const namedFields = 20;

/** INVALID_ARGUMENT that names every wrong field. */
export function invalidFields(fields: readonly FieldViolation[]): HubError {
  const names = [...new Set(fields.map((violation) => violation.field))];
  const more = names.length > namedFields ? ` and ${names.length - namedFields} more` : '';
  const message = `Some fields are not valid: ${names.slice(0, namedFields).join(', ')}${more}`;
  return new HubError('INVALID_ARGUMENT', 'INVALID_ARGUMENT', message, { fields });
}

/** Whether the same thing may work later, because something that it needs is unavailable now. */
export function isTransient(error: unknown): boolean {
  return error instanceof HubError && (error.kind === 'UNAVAILABLE' || error.kind === 'DEADLINE_EXCEEDED');
}

/**
 * A failure because the work took too long, above all a statement that ran into its timeout. Nothing of it was done; a smaller part at once
 * may work.
 */
export class TimedOut extends HubError {}

/** Whether work failed because it took too long, so that a smaller part at once may work. */
export function isTimeout(error: unknown): boolean {
  return error instanceof TimedOut || (error instanceof HubError && error.kind === 'DEADLINE_EXCEEDED');
}

/** The message of the innermost cause, in one line. */
export function innermostText(error: unknown): string {
  let current = error;
  while (current instanceof Error && current.cause instanceof Error) current = current.cause;
  // Node reports the failures for all addresses of a name together.
  if (current instanceof AggregateError && current.errors.length > 0) current = current.errors[0] as unknown;
  const text = current instanceof Error ? current.message || current.name : String(current);
  return text.replaceAll(/\s*\n\s*/g, ' ').trim();
}
