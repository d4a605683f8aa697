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

/** What goes over the wire for an error: status code, text, and its details as google.rpc.Status (AIP-193). */
export function toStatus(error: HubError): Partial<StatusObject> {
  const code = status[error.kind];
  const details: Any[] = [
    pack('google.rpc.ErrorInfo', ErrorInfo.encode({ reason: error.reason, domain, metadata: {} }).finish()),
  ];
  if (error.fields.length > 0) {
    details.push(pack('google.rpc.BadRequest', encodeViolations(thatFit(error.fields))));
  }
  if (error.retryAfter !== undefined) {
    const seconds = Math.floor(error.retryAfter);
    const retryDelay = { seconds: BigInt(seconds), nanos: Math.round((error.retryAfter - seconds) * 1e9) };
    details.push(pack('google.rpc.RetryInfo', RetryInfo.encode({ retryDelay }).finish()));
  }
  const { length } = error.message;
  const message = length > longestMessage ? `${error.message.slice(0, longestMessage).toWellFormed()}…` : error.message;
  const metadata = new Metadata();
  metadata.set(detailsKey, Buffer.from(Status.encode({ code, message, details }).finish()));
  return { code, details: message, metadata };
}

/** The error that a call ended with, as the other side meant it. */
export function fromServiceError(error: ServiceError): HubError {
  const kind = (status[error.code] ?? 'INTERNAL') as ErrorKind;
  let reason: string = kind;
  let fields: FieldViolation[] = [];
  let retryAfter = kind === 'UNAVAILABLE' ? 1 : undefined;
  const [encoded] = error.metadata?.get(detailsKey) ?? [];
  if (encoded instanceof Buffer) {
    for (const { typeUrl, value } of Status.decode(encoded).details) {
      if (typeUrl === `${typePrefix}google.rpc.ErrorInfo`) reason = ErrorInfo.decode(value).reason;
      if (typeUrl === `${typePrefix}google.rpc.BadRequest`) fields = decodeViolations(value);
      if (typeUrl === `${typePrefix}google.rpc.RetryInfo`) {
        const { seconds, nanos } = RetryInfo.decode(value).retryDelay ?? { seconds: 1n, nanos: 0 };
        retryAfter = Number(seconds) + nanos / 1e9;
      }
    }
  }
  return new HubError(kind, reason, error.details, { fields, retryAfter, cause: error });
}

/**
 * Trailers of more than 64 KiB end the connection, with all other calls on it, in place of the call. So much is told of an error at
 * most, both of which a client may have made long: bytes of wrong fields, which travel in base64, and UTF-16 code units of the
 * message, which travels twice, once in up to nine bytes each.
 */
const mostViolations = 32 * 1024;
const longestMessage = 1_000;

function thatFit(fields: readonly FieldViolation[]): readonly FieldViolation[] {
  let size = 0;
  const end = fields.findIndex(({ field, description, rule = '' }) => {
    // With the tags and lengths around them.
    size += Buffer.byteLength(field) + Buffer.byteLength(description) + rule.length + 18;
    return size > mostViolations;
  });
  return end === -1 ? fields : fields.slice(0, end);
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
