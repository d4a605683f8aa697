import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { written } from '#lib/encode.ts';

/*
 * HTTP requests and answers as messages (chat4all.http.v1).
 */

export const httpRequest = 'chat4all.http.v1.HttpRequest';
export const httpResponse = 'chat4all.http.v1.HttpResponse';

/** Names in lower case with their values; what occurs several times is there as often. */
export type HeaderList = readonly (readonly [name: string, value: string])[];

export interface WholeRequest {
  method: string;
  /** Percent-encoded, without the query. */
  path: string;
  query: string;
  headers: HeaderList;
  body: Uint8Array;
}

export function writeRequest({ method, path, query, headers, body }: WholeRequest): Buffer {
  return written((writer) => {
    const text = (number: number, value: string) => {
      if (value !== '') writer.tag(number, WireType.LengthDelimited).string(value);
    };
    text(1, method);
    text(2, path);
    text(3, query);
    for (const [name, value] of headers) {
      writer.tag(4, WireType.LengthDelimited).fork();
      text(1, name);
      text(2, value);
      writer.join();
    }
    if (body.length > 0) writer.tag(5, WireType.LengthDelimited).bytes(body);
  });
}

/** A part of an answer. */
export interface ResponsePart {
  /** 0 in all parts but the one that begins the answer. */
  status: number;
  headers: HeaderList;
  body: Uint8Array;
}

export function readResponsePart(encoded: Uint8Array): ResponsePart {
  const reader = new BinaryReader(encoded);
  const headers: [string, string][] = [];
  let [status, body] = [0, new Uint8Array()];
  while (reader.pos < reader.len) {
    const [number, wire] = reader.tag();
    if (number === 1) status = reader.int32();
    else if (number === 2) headers.push(readHeader(reader.bytes()));
    else if (number === 3) body = reader.bytes() as Uint8Array<ArrayBuffer>;
    else reader.skip(wire, number);
  }
  return { status, headers, body };
}

function readHeader(encoded: Uint8Array): [string, string] {
  const reader = new BinaryReader(encoded);
  const header: [string, string] = ['', ''];
  while (reader.pos < reader.len) {
    const [number, wire] = reader.tag();
    if (number === 1) header[0] = reader.string();
    else if (number === 2) header[1] = reader.string();
    else reader.skip(wire, number);
  }
  return header;
}
