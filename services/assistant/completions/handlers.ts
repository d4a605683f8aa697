import type { CompletionServiceService } from '#gen/chat4all/assistant/v1/protocols.ts';
import type { HttpRequest, HttpResponse } from '#gen/chat4all/http/v1/http.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { ToolCaller } from '../toolbox/toolbox.ts';
import type { Streams } from '../streams.ts';
import { readCompletionRequest } from './completion-request.ts';
import { modelJson } from './completion-wire.ts';
import { modelNotFound, type Completions } from './completions.ts';

export function completionHandlers(completions: Completions, streams: Streams): Handlers<CompletionServiceService> {
  return {
    async *createCompletion({ body }: HttpRequest, call: UserCall) {
      const request = readCompletionRequest(body);
      const caller = { ...toolCallerOf(call), username: call.caller.username };
      // A completion that isn't streamed counts as well, since it takes as long.
      using _open = streams.open(caller.userId);
      if (!request.stream) {
        const effect = Promise.withResolvers<'effect'>();
        const completion = completions.complete(request, caller, call.signal, () => effect.resolve('effect'));
        // It may fail while the first part is being sent.
        completion.catch(() => {});
        if ((await Promise.race([effect.promise, completion])) === 'effect') yield doNotRetry;
        yield jsonResponse(await completion);
        return;
      }
      let status = 200;
      for await (const event of completions.stream(request, caller, call.signal)) {
        yield { status, headers: status === 200 ? eventStream : [], body: Buffer.from(event) };
        // Only the first part has status and headers.
        status = 0;
      }
    },

    async *listModels({ path }: HttpRequest) {
      const [, name] = /^\/v1\/models\/(.+)$/.exec(path) ?? [];
      const models = completions.models();
      if (name === undefined) {
        yield jsonResponse({ object: 'list', data: models.map(modelJson) });
        return;
      }
      const wanted = decoded(name);
      if (!models.includes(wanted)) throw modelNotFound(wanted);
      yield jsonResponse(modelJson(wanted));
    },
  };
}

function toolCallerOf({ caller: { userId, numId }, credentials, requestId }: UserCall): ToolCaller {
  return { userId, numId, credentials, requestId };
}

const eventStream = [
  { name: 'content-type', value: 'text/event-stream; charset=utf-8' },
  { name: 'cache-control', value: 'no-cache, no-transform' },
  { name: 'x-accel-buffering', value: 'no' },
];

/** OpenAI's clients retry most errors by themselves, which would repeat side effects of tools. */
const doNotRetry: HttpResponse = {
  status: 0,
  headers: [{ name: 'x-should-retry', value: 'false' }],
  body: Buffer.alloc(0),
};

function jsonResponse(value: object): HttpResponse {
  const headers = [{ name: 'content-type', value: 'application/json' }];
  return { status: 200, headers, body: Buffer.from(JSON.stringify(value)) };
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
