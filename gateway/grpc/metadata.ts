import type { IncomingHttpHeaders } from 'node:http';
import { Metadata } from '@grpc/grpc-js';

/** Metadata as it is sent: lower-case names, and what ends in `-bin` in base64. Its own members alone count. */
export type CallMetadata = Record<string, string | string[]>;

/** Metadata for grpc-js's client. */
export function toMetadata(sent: CallMetadata): Metadata {
  return Metadata.fromHttp2Headers(sent);
}

/** Metadata from grpc-js's client, as HTTP/2 had it. */
export function fromMetadata(received: Metadata | undefined): IncomingHttpHeaders {
  const headers: IncomingHttpHeaders = {};
  for (const [key, values] of Object.entries(received?.toHttp2Headers() ?? {})) {
    headers[key] = (Array.isArray(values) ? values : [values]).map(String);
  }
  return headers;
}

/** The same, with a single value as it is. */
export function plain(received: Metadata): IncomingHttpHeaders {
  const headers = fromMetadata(received);
  for (const [key, value] of Object.entries(headers)) {
    if (Array.isArray(value) && value.length === 1) headers[key] = value[0];
  }
  return headers;
}
