import type { IncomingHttpHeaders } from 'node:http2';
import { Metadata, status, type ServiceError, type StatusObject } from '@grpc/grpc-js';
import { BadRequest, ErrorInfo, RetryInfo } from '#gen/google/rpc/error_details.ts';
import { Status } from '#gen/google/rpc/status.ts';
import type { Any } from '#gen/google/protobuf/any.ts';
import { HubError, type ErrorKind, type FieldViolation } from '../errors.ts';
import { encode } from '../encode.ts';

/** The `domain` of our ErrorInfo. */
const domain = 'chat4all';
/** Trailer of every answer to a user: the authenticated user id, for the logs of gateways. */
export const callerKey = 'x-caller-id';
const detailsKey = 'grpc-status-details-bin';
const typePrefix = 'type.googleapis.com/';

/**
 * Parses the status of a call from its trailers (gRPC over HTTP/2, Responses): a `grpc-status` that is no known code is UNKNOWN;
 * `grpc-message` is percent-encoded UTF-8, of which broken parts are kept as they are.
 *
 * @param fields the trailers, with a `grpc-status` among them
 */
export function statusIn(fields: IncomingHttpHeaders): { code: status; message: string } {
  const [given, message] = [String(fields['grpc-status']), decoded(String(fields['grpc-message'] ?? ''))];
  if (!/^\d+$/.test(given))
    return { code: status.UNKNOWN, message: message || `The server's grpc-status is no number` };
  const code = Number(given);
  return { code: status[code] === undefined ? status.UNKNOWN : code, message };
}

function decoded(text: string): string {
  if (/^[ -$&-~]*$/.test(text)) return text;
  const bytes = text.replace(/%([\da-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, 'latin1').toString();
}

/**
 * Metadata key of callers that accept trailers of up to 64 KiB, as Node does: they get more wrong fields at once. Other clients accept 8
 * KiB (gRPC over HTTP/2 suggests that limit), and fail a call with more with RESOURCE_EXHAUSTED.
 */
export const wideTrailersKey = 'x-wide-trailers';

/** The room for an error in the trailers, in bytes. */
interface Room {
  /** For the message, percent-encoded. */
  message: number;
  /** For the message and the details together, with HPACK's overhead. */
  trailers: number;
}

/** 8 KiB, less some for the other trailers: `grpc-status` and the id of the caller. */
const narrow: Room = { message: 1_536, trailers: 8 * 1024 - 512 };
/** More than 64 KiB would end the connection with all calls on it. */
const wide: Room = { message: 9_000, trailers: 60 * 1024 };

/** The size of the names of the two trailers, with HPACK's overhead for each field (RFC 7541, 4.1). */
const trailerNames = 'grpc-message'.length + detailsKey.length + 2 * 32;

/**
 * The status for an error: code, message, and details as google.rpc.Status (AIP-193). Wrong fields for which there is no room are left out,
 * and the message says how many.
 *
 * @param takesWide whether the caller accepts wide trailers (`wideTrailersKey`)
 */
export function toStatus(error: HubError, takesWide = false): Partial<StatusObject> {
  const shownStatus = tell(error, takesWide ? wide : narrow);
  const metadata = new Metadata();
  metadata.set(detailsKey, encode(Status, shownStatus));
  return { code: shownStatus.code, details: shownStatus.message, metadata };
}

/** An error as a message, for calls that don't fail themselves, such as batches. */
export function toStatusMessage(error: HubError): Status {
  return tell(error, wide);
}

function tell({ kind, reason, message: text, fields, retryAfter }: HubError, room: Room): Status {
  const details: Any[] = [pack('google.rpc.ErrorInfo', encode(ErrorInfo, { reason, domain, metadata: {} }))];
  if (retryAfter !== undefined) {
    const seconds = Math.floor(retryAfter);
    const retryDelay = { seconds: BigInt(seconds), nanos: Math.round((retryAfter - seconds) * 1e9) };
    details.push(pack('google.rpc.RetryInfo', encode(RetryInfo, { retryDelay })));
  }
  const whole: Status = { code: status[kind], message: cut(text, room.message), details };
  if (fields.length === 0) return whole;

  const shown = (given: readonly FieldViolation[]): Status => {
    const more = fields.length - given.length;
    return {
      ...whole,
      message: more === 0 ? whole.message : `${whole.message} (${more} more wrong fields are not listed)`,
      details: [...details, pack('google.rpc.BadRequest', encodeViolations(given))],
    };
  };
  const all = shown(fields);
  if (sizeOf(all) <= room.trailers) return all;
  // Base64 turns three bytes into four.
  const left = Math.floor(((room.trailers - sizeOf(shown([]))) * 3) / 4);
  return shown(fields.slice(0, howManyFit(fields, left)));
}

/** The size of an error in the trailers. */
function sizeOf(shownStatus: Status): number {
  return trailerNames + encodeURI(shownStatus.message).length + Math.ceil((encode(Status, shownStatus).length * 4) / 3);
}

/** The beginning of a text that has at maxBytes `maxBytes` percent-encoded. */
function cut(text: string, maxBytes: number): string {
  const whole = text.toWellFormed();
  if (whole.length * 9 <= maxBytes || encodeURI(whole).length <= maxBytes) return whole;
  let [size, end] = ['…'.length * 9, 0];
  for (const character of whole) {
    size += encodeURI(character).length;
    if (size > maxBytes) break;
    end += character.length;
  }
  return `${whole.slice(0, end)}…`;
}

/** Whether an error has details: those of our services always do, those of gRPC itself never. */
export function hasDetails(error: ServiceError): boolean {
  return error.metadata.get(detailsKey).length > 0;
}

/** The HubError that the other side threw. */
export function fromServiceError(error: ServiceError): HubError {
  const [encoded] = error.metadata?.get(detailsKey) ?? [];
  const details = encoded instanceof Buffer ? Status.decode(encoded).details : [];
  return fromStatusMessage({ code: error.code, message: error.details, details }, error);
}

/** The inverse of `toStatusMessage`. */
export function fromStatusMessage({ code, message, details }: Status, cause?: Error): HubError {
  const kind = (status[code] ?? 'INTERNAL') as ErrorKind;
  let reason: string = kind;
  let fields: FieldViolation[] = [];
  let retryAfter = kind === 'UNAVAILABLE' ? 1 : undefined;
  for (const { typeUrl, value } of details) {
    if (typeUrl === `${typePrefix}google.rpc.ErrorInfo`) reason = ErrorInfo.decode(value).reason;
    if (typeUrl === `${typePrefix}google.rpc.BadRequest`) fields = decodeViolations(value);
    if (typeUrl === `${typePrefix}google.rpc.RetryInfo`) {
      const { seconds, nanos } = RetryInfo.decode(value).retryDelay ?? { seconds: 1n, nanos: 0 };
      retryAfter = Number(seconds) + nanos / 1e9;
    }
  }
  return new HubError(kind, reason, message, { fields, retryAfter, cause });
}

/** How many of the first fields fit into `maxBytes` together. */
function howManyFit(fields: readonly FieldViolation[], maxBytes: number): number {
  let size = 0;
  const end = fields.findIndex(({ field, description, rule = '' }) => {
    // With tags and lengths.
    size += Buffer.byteLength(field) + Buffer.byteLength(description) + rule.length + 18;
    return size > maxBytes;
  });
  return end === -1 ? fields.length : end;
}

/** Encodes wrong fields as google.rpc.BadRequest. */
export function encodeViolations(fields: readonly FieldViolation[]): Uint8Array {
  return encode(BadRequest, {
    fieldViolations: fields.map(({ field, description, rule = '' }) => ({
      field,
      description,
      reason: rule.toUpperCase(),
      localizedMessage: undefined,
    })),
  });
}

/** Decodes google.rpc.BadRequest. */
export function decodeViolations(encoded: Uint8Array): FieldViolation[] {
  return BadRequest.decode(encoded).fieldViolations.map(({ field, description, reason }) =>
    reason === '' ? { field, description } : { field, description, rule: reason.toLowerCase() },
  );
}

function pack(name: string, value: Uint8Array): Any {
  return { typeUrl: `${typePrefix}${name}`, value: Buffer.from(value) };
}
