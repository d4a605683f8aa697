import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { written } from '#lib/encode.ts';
import type { Binding } from '../rules/bindings.ts';

/** A google.api.HttpBody: a body of any type, which travels as it is. */
export interface HttpBody {
  contentType: string;
  data: Uint8Array;
}

export const httpBody = 'google.api.HttpBody';

export function readHttpBody(bytes: Uint8Array): HttpBody {
  const reader = new BinaryReader(bytes);
  const body: HttpBody = { contentType: '', data: new Uint8Array() };
  while (reader.pos < reader.len) {
    const [number, wire] = reader.tag();
    if (number === 1) body.contentType = reader.string();
    else if (number === 2) body.data = reader.bytes();
    else reader.skip(wire, number);
  }
  return body;
}

export function writeHttpBody({ contentType, data }: HttpBody): Uint8Array {
  return written((writer) => {
    if (contentType !== '') writer.tag(1, WireType.LengthDelimited).string(contentType);
    if (data.length > 0) writer.tag(2, WireType.LengthDelimited).bytes(data);
  });
}

/** The HttpBody that an answer is, or is to show a field of; undefined if it is of another type. */
export function answeredBody({ output, responseBody }: Binding, bytes: Uint8Array): HttpBody | undefined {
  if (responseBody === undefined) return output.typeName === httpBody ? readHttpBody(bytes) : undefined;
  const { shape, value, number } = responseBody;
  if (shape !== 'single' || value.kind !== 'message' || value.message.typeName !== httpBody) return undefined;
  const reader = new BinaryReader(bytes);
  let inner: Uint8Array = new Uint8Array();
  while (reader.pos < reader.len) {
    const [found, wire] = reader.tag();
    if (found === number && wire === WireType.LengthDelimited) inner = reader.bytes();
    else reader.skip(wire, found);
  }
  return readHttpBody(inner);
}
