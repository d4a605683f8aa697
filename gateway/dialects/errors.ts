import { Metadata, type ServiceError } from '@grpc/grpc-js';
import type { FieldViolation, HubError } from '#lib/errors.ts';
import { fromServiceError } from '#lib/rpc/status.ts';
import { Problem, type WrongField } from '../http/problem.ts';
import type { Reading } from '../json/reading.ts';
import type { Binding } from '../rules/bindings.ts';

/** What errors of an RPC are over HTTP, by their reason: as in `Binding`. */
export type ErrorForms = Pick<Binding, 'errorStatuses' | 'errorCodes'>;

/** What an error of a call says, as far as its details can be read. */
export function hubErrorOf(error: ServiceError): HubError {
  try {
    return fromServiceError(error);
  } catch {
    // Its details are no google.rpc.Status: what is left is its code and its text.
    error.metadata = new Metadata();
    return fromServiceError(error);
  }
}

/** The answer to a request that is wrong in ways that were found while it was read. */
export function fromReading(reading: Reading): Problem {
  const fields = wrongFields([], reading);
  const names = new Set(fields.map(({ field }) => field));
  const message = `Some fields are not valid: ${[...names].join(', ')}`;
  return new Problem(400, 'INVALID_ARGUMENT', message, { fields });
}

/**
 * All wrong fields by the path that the client wrote: those found while the request was read, and those that the backend
 * found. What the backend says of a field that could not be read, or of a part of it, is only a consequence.
 */
export function wrongFields(found: readonly FieldViolation[], reading: Reading): WrongField[] {
  const wrong = new Map<string, WrongField>();
  const add = (field: string, description: string, rule: string | undefined) => {
    const key = JSON.stringify([field, description]);
    if (!wrong.has(key)) wrong.set(key, { field, description, rule });
  };
  for (const { sent, description, rule } of reading.violations) add(sent, description, rule);
  const unread = new Set(reading.violations.map((violation) => violation.field));
  for (const { field, description, rule } of found) {
    if (!isWithin(field, unread)) add(reading.asSent(field), description, rule);
  }
  return [...wrong.values()];
}

function isWithin(field: string, unread: ReadonlySet<string>): boolean {
  if (unread.size === 0) return false;
  for (
    let end = field.length;
    end > 0;
    end = Math.max(field.lastIndexOf('.', end - 1), field.lastIndexOf('[', end - 1))
  ) {
    if (unread.has(field.slice(0, end))) return true;
  }
  return false;
}
