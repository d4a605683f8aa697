/** The names of the gRPC status codes that a call of ours may end with, beside OK (google.golang.org/grpc/codes). */
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
   * Which rule isn't met, for programs: short lower snake_case that stays as it is (`min_length`). Travels in upper case, as the
   * reason of the violation (AIP-193).
   */
  rule?: string | undefined;
}

export interface HubErrorOptions {
  /** The wrong fields; travels as google.rpc.BadRequest. */
  fields?: readonly FieldViolation[];
  /** Seconds until it is worth trying again; travels as google.rpc.RetryInfo. */
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

/** How many wrong fields a sentence names. */
const namedFields = 20;

/** INVALID_ARGUMENT that names every wrong field. */
export function invalidFields(fields: readonly FieldViolation[]): HubError {
  const names = [...new Set(fields.map((violation) => violation.field))];
  const more = names.length > namedFields ? ` and ${names.length - namedFields} more` : '';
  const message = `Some fields are not valid: ${names.slice(0, namedFields).join(', ')}${more}`;
  return new HubError('INVALID_ARGUMENT', 'INVALID_ARGUMENT', message, { fields });
}

/** Whether trying the same thing again later may work, because something that it needs is away for now. */
export function isTransient(error: unknown): boolean {
  return error instanceof HubError && (error.kind === 'UNAVAILABLE' || error.kind === 'DEADLINE_EXCEEDED');
}

/**
 * Says beside what failed that it took longer than it may, and that nothing of it was done: less of it at once may work. A statement
 * that was ended at its time limit, above all.
 */
export class TimedOut extends HubError {}

/** Whether it failed because it took too long, so that less at once may work. */
export function isTimeout(error: unknown): boolean {
  return error instanceof TimedOut || (error instanceof HubError && error.kind === 'DEADLINE_EXCEEDED');
}

/** What a failure says at the bottom, in one line. */
export function innermostText(error: unknown): string {
  let current = error;
  while (current instanceof Error && current.cause instanceof Error) current = current.cause;
  // Of a name with several addresses.
  if (current instanceof AggregateError && current.errors.length > 0) current = current.errors[0] as unknown;
  const text = current instanceof Error ? current.message || current.name : String(current);
  return text.replaceAll(/\s*\n\s*/g, ' ').trim();
}
