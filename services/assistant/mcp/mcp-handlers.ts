import type { McpServiceService } from '#gen/chat4all/assistant/v1/protocols.ts';
import type { HttpRequest, HttpResponse } from '#gen/chat4all/http/v1/http.ts';
import { invalidFields } from '#lib/errors.ts';
import type { UserStreamCall } from '#lib/rpc/call.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { Endpoint } from './endpoint.ts';

export function mcpHandlers({ tasks, hub }: { tasks: Endpoint; hub: Endpoint }): Handlers<McpServiceService> {
  return {
    serveTasks: (request, call) => answered(tasks, request, call),
    serveHub: (request, call) => answered(hub, request, call),
  };
}

async function* answered(endpoint: Endpoint, request: HttpRequest, call: UserStreamCall): AsyncGenerator<HttpResponse> {
  const { caller, requestId, credentials, signal } = call;
  const { status, headers, body } = await endpoint.answer(webRequest(request, signal), {
    userId: caller.userId,
    numId: caller.numId,
    credentials,
    requestId,
  });
  const noBody = Buffer.alloc(0);
  yield { status, headers: [...headers].map(([name, value]) => ({ name, value })), body: noBody };
  if (body === null) return;
  for await (const piece of body) yield { status: 0, headers: [], body: Buffer.from(piece) };
}

/** Converts to a web-standard Request. Only the path of its URL is the client's: the SDK reads nothing else. */
function webRequest({ method, path, query, headers, body }: HttpRequest, signal: AbortSignal): Request {
  // A gRPC client may leave it out.
  if (method === '') throw invalidFields([{ field: 'method', description: 'must be the method of an HTTP request' }]);
  const url = new URL(`http://chat4all.invalid${path}`);
  url.search = query;
  const hasBody = method !== 'GET' && method !== 'HEAD' && method !== 'DELETE';
  return new Request(url, {
    method,
    headers: headers.map(({ name, value }): [string, string] => [name, value]),
    signal,
    ...(hasBody ? { body } : {}),
  });
}
