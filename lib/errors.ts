/** The names of the gRPC status codes that a call of ours may end with (google.golang.org/grpc/codes). */
export type ErrorKind =
  | 'CANCELLED'
  | 'INVALID_ARGUMENT'
  | 'DEADLINE_EXCEEDED'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'PERMISSION_DENIED'
  | 'RESOURCE_EXHAUSTED'
  | 'FAILED_PRECONDITION'
  | 'ABORTED'
  | 'OUT_OF_RANGE'
  | 'UNIMPLEMENTED'
  | 'INTERNAL'
  | 'UNAVAILABLE'
  | 'UNAUTHENTICATED';

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
