import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { PromptMessage, Provider } from '../services/assistant/provider/provider.ts';

/** A request of OpenAI's Chat Completions API, as a provider gets it. */
export interface CompletionCall {
  headers: IncomingHttpHeaders;
  body: {
    model: string;
    messages: { role: string; content: string | null; tool_calls?: WireToolCall[]; tool_call_id?: string }[];
    tools?: { function: { name: string; description: string; parameters: Record<string, unknown> } }[];
    stream?: boolean;
    [member: string]: unknown;
  };
  /** When it came, as performance.now() tells. */
  cameAt: number;
  /** Aborted when the client goes before the answer has ended. */
  gone: AbortSignal;
}

interface WireToolCall {
  id: string;
  function: { name: string; arguments: string };
}

/** What a server does with a call. */
export type Answering = (response: ServerResponse, call: CompletionCall) => void | Promise<void>;

/** A server that speaks Chat Completions as a test tells it to. */
export interface ModelServer {
  /** What clients take as their base URL. */
  url: string;
  /** The calls so far, the first one first. */
  calls: CompletionCall[];
  /** Answers calls from now on. */
  on(answering: Answering): void;
  stop(): Promise<void>;
}

export async function startModelServer(answering: Answering = saying('Hello!')): Promise<ModelServer> {
  const calls: CompletionCall[] = [];
  let answer = answering;
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const gone = new AbortController();
    response.on('close', () => response.writableFinished || gone.abort());
    response.on('error', () => {});
    try {
      const body = JSON.parse(await text(request)) as CompletionCall['body'];
      const call = { headers: request.headers, body, cameAt: performance.now(), gone: gone.signal };
      calls.push(call);
      await answer(response, call);
    } catch (error) {
      // Whoever reads it sees what went wrong in the test's own server.
      if (!gone.signal.aborted) response.destroy(error as Error);
    }
  };
  const server = createServer((request, response) => void serve(request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    calls,
    on(answering) {
      answer = answering;
    },
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

/** A chunk of a streamed completion. */
export function chunk(delta: object, finishReason: string | null = null): object {
  return {
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1_764_000_000,
    model: 'test',
    choices: [{ index: 0, delta, finish_reason: finishReason }],
  };
}

export function usageChunk(promptTokens: number, completionTokens: number): object {
  const usage = {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
  return { ...chunk({}), choices: [], usage };
}

export function beginEvents(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
}

export function sendEvent(response: ServerResponse, value: object): void {
  response.write(`data: ${JSON.stringify(value)}\n\n`);
}

/** Answers with such chunks, then ends as it should. */
export function streaming(chunks: readonly object[]): Answering {
  return (response) => {
    beginEvents(response);
    for (const each of chunks) sendEvent(response, each);
    response.end('data: [DONE]\n\n');
  };
}

/** Says a text, in pieces of some characters. */
export function saying(text: string): Answering {
  const pieces = text.match(/.{1,7}/gsu) ?? [];
  return streaming([
    chunk({ role: 'assistant', content: '' }),
    ...pieces.map((content) => chunk({ content })),
    chunk({}, 'stop'),
    usageChunk(11, pieces.length),
  ]);
}

/** Wants tools called. */
export function calling(...wanted: readonly { id: string; name: string; arguments: string }[]): Answering {
  return streaming([
    chunk({
      role: 'assistant',
      content: null,
      tool_calls: wanted.map(({ id, name, arguments: given }, index) => ({
        index,
        id,
        type: 'function',
        function: { name, arguments: given },
      })),
    }),
    chunk({}, 'tool_calls'),
    usageChunk(11, 5),
  ]);
}

/** Answers as a model of ours does. */
export function answeringAs(provider: Provider): Answering {
  return async (response, { body, gone }) => {
    const { tools = [], messages } = body;
    const prompt = {
      messages: messages.map(promptMessage),
      tools: tools.map(({ function: tool }) => tool),
      options: body,
    };
    beginEvents(response);
    let index = 0;
    for await (const event of provider.complete(prompt, gone)) {
      if (event.kind === 'text') sendEvent(response, chunk({ content: event.delta }));
      if (event.kind === 'toolRequest') {
        const { id, name, arguments: given } = event.request;
        const call = { index: index++, id, type: 'function', function: { name, arguments: given } };
        sendEvent(response, chunk({ tool_calls: [call] }));
      }
      if (event.kind === 'finish') {
        sendEvent(response, chunk({}, event.reason === 'toolRequests' ? 'tool_calls' : event.reason));
        sendEvent(response, usageChunk(event.usage.inputTokens, event.usage.outputTokens));
      }
    }
    response.end('data: [DONE]\n\n');
  };
}

function promptMessage(message: CompletionCall['body']['messages'][number]): PromptMessage {
  const content = message.content ?? '';
  if (message.role === 'tool') return { role: 'tool', content, toolRequestId: message.tool_call_id ?? '' };
  if (message.role !== 'assistant') return { role: message.role === 'system' ? 'system' : 'user', content };
  const toolRequests = (message.tool_calls ?? []).map(({ id, function: { name, arguments: given } }) => ({
    id,
    name,
    arguments: given,
  }));
  return { role: 'assistant', content, toolRequests };
}
