import type { CallMetadata } from '../grpc/metadata.ts';
import { Problem } from '../http/problem.ts';

/**
 * Decides what becomes metadata of a call: one allow-list for every dialect and every transport. What it lets through can be sent by our
 * HTTP/2 client and by grpc-js's, on a connection that is shared with other clients' calls. Neither checks it: a server counts a
 * malformed request against the connection, and grpc-js closes a connection on which Node refuses to send something.
 */

/** The names of gRPC (gRPC over HTTP/2, Custom-Metadata). */
const namePattern = /^[0-9a-z_.-]+$/;
/** Text values: printable ASCII. */
const textPattern = /^[ -~]*$/;
/** Values of `-bin` names: base64, padded or not. */
const binaryPattern = /^[A-Za-z0-9+/]*(={0,2})$/;
/**
 * Names that are not for metadata: those of the connection, which HTTP/2 forbids (RFC 9113, 8.2.2), those that say how the message is
 * framed or where it goes (RFC 9113, 8.1.1 and 8.3.1), gRPC's own, and one that is no member of an object.
 */
const forbidden =
  /^(connection|keep-alive|proxy-connection|transfer-encoding|upgrade|te|trailer|http2-settings|content-length|host|content-type|user-agent|grpc-.*|__proto__)$/;
/**
 * Fields that have one value in HTTP. Node sends none of them twice: it throws, upon which grpc-js gives up its connection. As in
 * Node's HTTP/1.1 the first one counts.
 */
const singleValued = new Set(
  `access-control-allow-credentials access-control-max-age access-control-request-method age authorization content-encoding
  content-language content-location content-md5 content-range date dnt etag expires from if-match if-modified-since if-none-match
  if-range if-unmodified-since last-modified location max-forwards proxy-authorization range referer retry-after tk
  upgrade-insecure-requests x-content-type-options`.split(/\s+/),
);

/** Whether a text can be a value of metadata: printable ASCII without spaces at its ends, which HTTP/2 forbids (RFC 9113, 8.2.1). */
export function isText(value: string): boolean {
  return textPattern.test(value) && !value.startsWith(' ') && !value.endsWith(' ');
}

/** Adds a value of which it is known that it can be one. */
export function addValue(to: CallMetadata, name: string, value: string): void {
  const known = to[name];
  // A member that every object inherits is no value.
  if (known === undefined || !Object.hasOwn(to, name)) to[name] = value;
  else if (singleValued.has(name)) return;
  else if (typeof known === 'string') to[name] = [known, value];
  else known.push(value);
}

/** How names and values that clients choose become metadata. */
export class AllowList {
  readonly #reserved: RegExp;
  readonly #refusesMalformed: boolean;

  /**
   * @param reserved names that the gateway itself says to backends, and a client can't say in its place
   * @param malformed what becomes of a name or a text that gRPC doesn't take: the request is refused, or that is left out
   */
  constructor(reserved: RegExp, malformed: 'refused' | 'left out') {
    this.#reserved = reserved;
    this.#refusesMalformed = malformed === 'refused';
  }

  /**
   * Adds what a client sent under a header, unless the name is reserved or forbidden.
   *
   * @throws Problem 400 that names the header
   */
  add(to: CallMetadata, name: string, value: string, header: string): void {
    if (forbidden.test(name) || this.#reserved.test(name)) return;
    if (!namePattern.test(name)) {
      this.#malformed(`The header ${header} has a name that can't be passed on as gRPC metadata`);
    } else if (name.endsWith('-bin')) {
      if (!isBase64(value)) throw malformed(`The header ${header} must be base64`);
      addValue(to, name, value);
    } else if (isText(value)) {
      addValue(to, name, value);
    } else {
      this.#malformed(`The header ${header} can't be passed on as gRPC metadata: it is not printable ASCII`);
    }
  }

  #malformed(detail: string): void {
    if (this.#refusesMalformed) throw malformed(detail);
  }
}

function isBase64(text: string): boolean {
  const match = binaryPattern.exec(text);
  if (match === null) return false;
  return text.length % 4 === 0 || (match[1] === '' && text.length % 4 !== 1);
}

function malformed(detail: string): Problem {
  return new Problem(400, 'MALFORMED_HEADER', detail);
}

/** How many values metadata may have: a server in Node accepts 128 fields, those of gRPC and HTTP/2 included. */
const maxValues = 100;
/** Bytes that metadata may have if the server announces no limit: Node sends no more than 64 KiB. */
const maxMetadataBytes = 48 * 1024;
/** What HTTP/2 counts for each field beside its text (RFC 9113, 6.5.2), and the most that the fields of gRPC and HTTP/2 themselves take. */
const fieldOverhead = 32;
const ownFields = 1_024;

/**
 * Refuses metadata that the server would not accept.
 *
 * @param maxHeaderListSize the server's SETTINGS_MAX_HEADER_LIST_SIZE; Infinity if it announced none
 * @throws Problem 431
 */
export function requireFits(metadata: CallMetadata, maxHeaderListSize: number): void {
  let [values, bytes] = [0, 0];
  for (const name in metadata) {
    const given = metadata[name] as string | string[];
    if (typeof given === 'string') {
      values += 1;
      bytes += name.length + given.length + fieldOverhead;
    } else {
      values += given.length;
      for (const value of given) bytes += name.length + value.length + fieldOverhead;
    }
  }
  const maxBytes = Math.min(maxMetadataBytes, maxHeaderListSize - ownFields);
  if (values <= maxValues && bytes <= maxBytes) return;
  const what =
    values > maxValues ? `${values} values, and it takes ${maxValues}` : `${bytes} bytes, and it takes ${maxBytes}`;
  throw new Problem(431, 'HEADERS_TOO_LARGE', `What goes to the backend of the headers has ${what}`);
}
