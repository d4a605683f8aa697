import type { IncomingHttpHeaders } from 'node:http2';
import { Metadata, status, type ServiceError, type StatusObject } from '@grpc/grpc-js';
import { BadRequest, ErrorInfo, RetryInfo } from '#gen/google/rpc/error_details.ts';
import { Status } from '#gen/google/rpc/status.ts';
import type { Any } from '#gen/google/protobuf/any.ts';
import { HubError, type ErrorKind, type FieldViolation } from '../errors.ts';

/** The `domain` of our ErrorInfo: says whose reasons these are. */
const domain = 'chat4all';
/** Trailer of every answer to a user: the id that the server found in the token. For the logs of gateways. */
export const callerKey = 'x-caller-id';
const detailsKey = 'grpc-status-details-bin';
const typePrefix = 'type.googleapis.com/';

/**
 * The status that a call ended with, as it is on the wire (gRPC over HTTP/2, Responses): `grpc-status` has to be digits, and what is
 * none of the codes that gRPC knows is UNKNOWN; `grpc-message` is UTF-8 in percent-encoding, of which broken parts stay as they
 * are.
 *
 * @param fields those that came last, with a `grpc-status` among them
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
 * Metadata of a caller that takes trailers of up to 64 KiB, as Node does: it is told of more wrong fields at once. Stock clients take
 * 8 KiB (gRPC over HTTP/2 suggests that limit), and end a call with RESOURCE_EXHAUSTED where there is more.
 */
export const wideTrailersKey = 'x-wide-trailers';

/** How much is told of an error. */
interface Room {
  /** What the message may have once it is in percent-encoding. */
  message: number;
  /** What the message and the details may take of the trailers together, with what HPACK counts beside them. */
  trailers: number;
}

/** Of 8 KiB some is left to the other trailers: `grpc-status` and the id of the caller. */
const narrow: Room = { message: 1_536, trailers: 8 * 1024 - 512 };
/** More than 64 KiB would end the connection, with all other calls on it, in place of the call. */
const wide: Room = { message: 9_000, trailers: 60 * 1024 };

/** Bytes of the names of the two trailers, and what HPACK counts for each field beside its text (RFC 7541, 4.1). */
const trailerNames = 'grpc-message'.length + detailsKey.length + 2 * 32;

/**
 * What goes over the wire for an error: status code, text, and its details as google.rpc.Status (AIP-193). Wrong fields for which there
 * is no room are left out, and the text then says how many those are.
 *
 * @param takesWide whether the caller said so (`wideTrailersKey`)
 */
export function toStatus(error: HubError, takesWide = false): Partial<StatusObject> {
  const told = tell(error, takesWide ? wide : narrow);
  const metadata = new Metadata();
  metadata.set(detailsKey, Buffer.from(Status.encode(told).finish()));
  return { code: told.code, details: told.message, metadata };
}

/** An error as a message: what goes over the wire where the call itself has not failed. */
export function toStatusMessage(error: HubError): Status {
  return tell(error, wide);
}

function tell({ kind, reason, message: text, fields, retryAfter }: HubError, room: Room): Status {
  const details: Any[] = [pack('google.rpc.ErrorInfo', ErrorInfo.encode({ reason, domain, metadata: {} }).finish())];
  if (retryAfter !== undefined) {
    const seconds = Math.floor(retryAfter);
    const retryDelay = { seconds: BigInt(seconds), nanos: Math.round((retryAfter - seconds) * 1e9) };
    details.push(pack('google.rpc.RetryInfo', RetryInfo.encode({ retryDelay }).finish()));
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
  // Base64 makes four bytes of three.
  const left = Math.floor(((room.trailers - sizeOf(shown([]))) * 3) / 4);
  return shown(fields.slice(0, howManyFit(fields, left)));
}

/** Bytes that an error takes of the trailers. */
function sizeOf(told: Status): number {
  return trailerNames + encodeURI(told.message).length + Math.ceil((Status.encode(told).finish().length * 4) / 3);
}

/** As much of a text as has at most so many bytes in percent-encoding. */
function cut(text: string, most: number): string {
  const whole = text.toWellFormed();
  if (whole.length * 9 <= most || encodeURI(whole).length <= most) return whole;
  let [size, end] = ['…'.length * 9, 0];
  for (const character of whole) {
    size += encodeURI(character).length;
    if (size > most) break;
    end += character.length;
  }
  return `${whole.slice(0, end)}…`;
}

/** Whether the other side has said more of an error than its code and its text: a service of ours always does, gRPC itself never. */
export function hasDetails(error: ServiceError): boolean {
  return error.metadata.get(detailsKey).length > 0;
}

/** The error that a call ended with, as the other side meant it. */
export function fromServiceError(error: ServiceError): HubError {
  const [encoded] = error.metadata?.get(detailsKey) ?? [];
  const details = encoded instanceof Buffer ? Status.decode(encoded).details : [];
  return fromStatusMessage({ code: error.code, message: error.details, details }, error);
}

/** The error that `toStatusMessage` has told of. */
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

/** How many of the first wrong fields have at most so many bytes together. */
function howManyFit(fields: readonly FieldViolation[], most: number): number {
  let size = 0;
  const end = fields.findIndex(({ field, description, rule = '' }) => {
    // With the tags and lengths around them.
    size += Buffer.byteLength(field) + Buffer.byteLength(description) + rule.length + 18;
    return size > most;
  });
  return end === -1 ? fields.length : end;
}

/** Encodes wrong fields as google.rpc.BadRequest. */
export function encodeViolations(fields: readonly FieldViolation[]): Uint8Array {
  return BadRequest.encode({
    fieldViolations: fields.map(({ field, description, rule = '' }) => ({
      field,
      description,
      reason: rule.toUpperCase(),
      localizedMessage: undefined,
    })),
  }).finish();
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
