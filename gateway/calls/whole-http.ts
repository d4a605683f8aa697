import { validateHeaderValue, type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse } from 'node:http';
import { readBody, refuseCompressed } from '../http/request-body.ts';
import { Outgoing } from './call.ts';
import { targetOf } from '../http/request-target.ts';
import { passOn } from './server-stream.ts';
import type { StreamOptions } from './stream.ts';
import { readResponsePart, writeRequest, type HeaderList } from './whole-http-messages.ts';

/** Request headers that are passed on to a backend: none of the connection, of credentials or of the mesh. */
const asked = /^(accept|accept-language|content-type|idempotency-key|last-event-id|origin|user-agent|mcp-[a-z\d-]+)$/;
/** Response headers of a backend that are passed on. */
const answered =
  /^(allow|cache-control|content-type|etag|retry-after|www-authenticate|x-accel-buffering|x-should-retry|(mcp|openai)-[a-z\d-]+)$/;

/**
 * Answers a request with the answer that an RPC streams which takes whole HTTP requests (`whole_http` of chat4all.options.v1). Each
 * piece of it is sent at once.
 *
 * @throws Problem before anything was answered, or to break off what was begun
 */
export async function answerWhole(
  request: IncomingMessage,
  response: ServerResponse,
  options: StreamOptions,
): Promise<void> {
  const { binding, enter } = options;
  const outgoing = new Outgoing(request, response, options);
  if (binding.body !== 'none') refuseCompressed(request);
  const body = binding.body === 'none' ? new Uint8Array() : await readBody(request, response, options);
  const { pathname, query } = targetOf(request.url ?? '');
  // A HEAD is answered with the header of the answer to a GET.
  const method = request.method === 'HEAD' ? 'GET' : (request.method as string);
  const message = writeRequest({ method, path: pathname, query, headers: askedBy(request), body });
  await enter(request, response);
  if (response.destroyed) return;

  await passOn(request, response, options, outgoing, message, (passage) => {
    let hasBegun = false;
    return {
      message(encoded) {
        const part = readResponsePart(encoded);
        if (!hasBegun) {
          const { status } = part;
          if (status === 0 && part.body.length === 0) {
            for (const [name, value] of Object.entries(headersOf(part.headers)))
              response.setHeader(name, value as string);
            return;
          }
          if (status < 200 || status > 599) throw new Error(`${binding.rpcPath} answers with the status ${status}`);
          hasBegun = true;
          passage.begin(status, headersOf(part.headers));
        }
        if (part.body.length > 0) passage.write(part.body);
      },
      end() {
        if (!hasBegun) throw new Error(`${binding.rpcPath} answered nothing at all`);
      },
    };
  });
}

function askedBy({ rawHeaders }: IncomingMessage): HeaderList {
  const headers: [string, string][] = [];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] as string).toLowerCase();
    // Texts of messages are UTF-8, those of headers bytes.
    if (asked.test(name)) headers.push([name, Buffer.from(rawHeaders[at + 1] as string, 'latin1').toString()]);
  }
  return headers;
}

function headersOf(list: HeaderList): OutgoingHttpHeaders {
  const headers: Record<string, string | string[]> = {};
  for (const [name, value] of list) {
    const lower = name.toLowerCase();
    if (!answered.test(lower)) continue;
    validateHeaderValue(lower, value);
    const known = headers[lower];
    headers[lower] = known === undefined ? value : [known, value].flat();
  }
  const type = String(headers['content-type'] ?? '');
  if (type.startsWith('text/event-stream')) {
    headers['cache-control'] = 'no-cache, no-transform';
    headers['x-accel-buffering'] = 'no';
  }
  return headers;
}
