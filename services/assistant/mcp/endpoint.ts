import {
  createMcpHandler,
  isInitializeRequest,
  isJsonContentType,
  isJSONRPCNotification,
  isLegacyRequest,
  originValidationResponse,
  SUPPORTED_PROTOCOL_VERSIONS,
  type AuthInfo,
  type JSONRPCMessage,
  type McpServer,
} from '@modelcontextprotocol/server';
import { v4 as uuid, validate as isUuid } from 'uuid';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import type { ToolCaller } from '../toolbox/toolbox.ts';
import { Exchange, exchangeLimit, isResponse, messagesOf } from './exchange.ts';
import { resumedStream, silentStream } from './resumption.ts';
import type { McpSession, McpSessions } from './sessions-store.ts';

/** An MCP server over Streamable HTTP, for clients of both eras of the protocol. */
export interface Endpoint {
  /** Answers an HTTP request of the caller. The body of the answer may be a stream. */
  answer(request: Request, caller: ToolCaller): Promise<Response>;
  /** Ends the streams of clients that only listen, who come back to another process. */
  retire(): void;
  /** Aborts requests in flight. */
  close(): Promise<void>;
}

export interface EndpointOptions {
  /** By which name sessions belong to it. */
  name: string;
  /** A server for one request of a caller. */
  serve: (caller: ToolCaller) => McpServer;
  sessions: McpSessions;
  /** Hosts whose pages may call: other origins are refused (the specification's transports, "Security Warning"). */
  origins: readonly string[];
  log: Logger;
}

const limits = {
  /** Requests and streams of a user that are under way at once. */
  perUser: 50,
  /** Bytes of an `initialize` request, which is kept with its session. */
  initialize: 65_536,
  /** Milliseconds after which a request counts as a slow one. */
  long: 200,
  /** Milliseconds between two looks for messages of clients to slow requests. */
  pause: 250,
  /** Milliseconds by which clocks of processes may differ. */
  skew: 5_000,
} as const;
const codes = { badRequest: -32_000, notFound: -32_001, parseError: -32_700 };

/**
 * Serves one MCP server. The revision of 2026-07-28 knows no sessions: each request is answered by itself. Sessions of the revisions
 * of 2025 are in the database, with the events of their streams, so that any process answers any request and a client that was cut off
 * gets the rest.
 */
export function openEndpoint({ name, serve, sessions, origins, log }: EndpointOptions): Endpoint {
  const modern = createMcpHandler(({ authInfo }) => serve(callerOf(authInfo)), {
    legacy: 'reject',
    onerror: (error) => log.debug({ err: error, server: name }, 'An MCP request could not be answered as asked'),
  });
  const exchanges = new Set<Exchange>();
  /** Streams that clients read which have no request under way here. */
  const streams = new Set<AbortController>();
  const underWay = new Map<string, number>();

  // While a request is worked on here, the client may say something to it at another process.
  const replies = repeat('Reading what MCP clients reply', log, async () => {
    if (exchanges.size === 0) return 60_000;
    const long = [...exchanges].filter(({ began }) => Date.now() - began > limits.long);
    if (long.length > 0) {
      const since = new Date(Math.min(...long.map(({ began }) => began)) - limits.skew);
      const found = await sessions.repliesSince([...new Set(long.map(({ sessionId }) => sessionId))], since);
      // One that was read before is not for anybody any more.
      for (const { sessionId, message } of found) take(sessionId, message as JSONRPCMessage);
    }
    return limits.pause;
  });

  /** Gives a message to the request here that it belongs to. @returns whether there is one */
  function take(sessionId: string, message: JSONRPCMessage): boolean {
    return [...exchanges].some((exchange) => exchange.sessionId === sessionId && exchange.take(message));
  }

  async function answerOfSession(request: Request, caller: ToolCaller): Promise<Response> {
    const isPost = request.method === 'POST';
    if (isPost && !isJsonContentType(request.headers.get('content-type'))) {
      return refused(415, codes.badRequest, 'Unsupported Media Type: the Content-Type must be application/json');
    }
    const body = isPost ? await jsonOf(request) : undefined;
    if (body === notJson) return refused(400, codes.parseError, 'Parse error: the body is no JSON');
    const messages = body === undefined ? [] : messagesOf(body);
    const begin = messages.find((message) => isInitializeRequest(message)) as JSONRPCMessage | undefined;
    if (begin !== undefined) {
      if (JSON.stringify(begin).length > limits.initialize) {
        return refused(413, codes.badRequest, 'The initialize request is too large');
      }
      const session = { id: uuid(), initialize: begin };
      await sessions.begin({ ...session, userId: caller.userId, server: name });
      return exchanged(session, request, { caller, body, isNew: true });
    }

    const id = request.headers.get('mcp-session-id');
    if (id === null) return refused(400, codes.badRequest, 'Bad Request: the Mcp-Session-Id header is missing');
    const session = isUuid(id) ? await sessions.find(id.toLowerCase(), caller.userId, name) : undefined;
    if (session === undefined) return refused(404, codes.notFound, 'Session not found');

    if (request.method === 'DELETE') {
      await sessions.end(session.id);
      for (const exchange of exchanges) {
        if (exchange.sessionId === session.id) void exchange.giveUp('The session has ended');
      }
      return new Response(null, { status: 200 });
    }
    const version = request.headers.get('mcp-protocol-version');
    if (version !== null && !SUPPORTED_PROTOCOL_VERSIONS.includes(version)) {
      return refused(400, codes.badRequest, `Bad Request: unsupported protocol version: ${version}`);
    }
    if (request.method === 'GET') {
      if (!request.headers.get('accept')?.includes('text/event-stream')) {
        return refused(406, codes.badRequest, 'Not Acceptable: the client must accept text/event-stream');
      }
      const lastEventId = request.headers.get('last-event-id');
      const stop = new AbortController();
      streams.add(stop);
      stop.signal.addEventListener('abort', () => streams.delete(stop));
      if (lastEventId === null) return silentStream(stop);
      const behind = { sessionId: session.id, lastEventId, patience: exchangeLimit };
      const rest = await resumedStream(sessions, behind, stop);
      if (rest !== undefined) return rest;
      stop.abort();
      return refused(404, codes.notFound, 'There is no such event any more');
    }
    if (messages.length > 0 && messages.every((message) => isJSONRPCNotification(message) || isResponse(message))) {
      for (const message of messages) {
        if (!take(session.id, message) && isOfInterest(message)) await sessions.leave(session.id, message);
      }
      return new Response(null, { status: 202 });
    }
    return exchanged(session, request, { caller, body, isNew: false });
  }

  async function exchanged(
    session: McpSession,
    request: Request,
    { caller, body, isNew }: { caller: ToolCaller; body: unknown; isNew: boolean },
  ): Promise<Response> {
    const exchange = await Exchange.open(session, { server: serve(caller), sessions, isNew });
    exchanges.add(exchange);
    replies.wake();
    void exchange.ended.then(() => exchanges.delete(exchange));
    return exchange.answer(request, body);
  }

  return {
    async answer(request, caller) {
      const rejected = originValidationResponse(request, [...origins]);
      if (rejected !== undefined) return rejected;
      const count = underWay.get(caller.userId) ?? 0;
      if (count >= limits.perUser) {
        return refused(429, codes.badRequest, `You have ${limits.perUser} requests and streams under way: end some`);
      }
      underWay.set(caller.userId, count + 1);
      const leave = () => {
        const left = underWay.get(caller.userId)! - 1;
        if (left === 0) underWay.delete(caller.userId);
        else underWay.set(caller.userId, left);
      };
      try {
        const response = (await isLegacyRequest(request))
          ? await answerOfSession(request, caller)
          : await modern.fetch(request, { authInfo: authInfoOf(caller) });
        return whenRead(response, leave);
      } catch (error) {
        leave();
        throw error;
      }
    },

    retire() {
      for (const stream of streams) stream.abort();
    },

    async close() {
      await Promise.all([...exchanges].map((exchange) => exchange.giveUp('The server is stopping')));
      await Promise.all([modern.close(), replies.stop()]);
    },
  };
}

/** Messages of clients that may belong to a request which another process works on. */
function isOfInterest(message: JSONRPCMessage): boolean {
  return isResponse(message) || ('method' in message && message.method === 'notifications/cancelled');
}

const notJson = Symbol('no JSON');

async function jsonOf(request: Request): Promise<unknown> {
  try {
    return await request.json();
  } catch {
    return notJson;
  }
}

/** A JSON-RPC error that belongs to no request. */
function refused(status: number, code: number, message: string): Response {
  return Response.json({ jsonrpc: '2.0', error: { code, message }, id: null }, { status });
}

/** The same answer, which tells once its body was read or nobody reads it any more. */
function whenRead(response: Response, done: () => void): Response {
  if (response.body === null) {
    done();
    return response;
  }
  const reader = response.body.getReader();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done: isOver, value } = await reader.read();
        if (value !== undefined) controller.enqueue(value);
        if (!isOver) return;
        done();
        controller.close();
      } catch (error) {
        done();
        controller.error(error);
      }
    },
    async cancel(reason) {
      done();
      await reader.cancel(reason);
    },
  });
  return new Response(body, { status: response.status, headers: response.headers });
}

/** How the SDK hands on who calls. The token was checked before, and is none of its business. */
function authInfoOf(caller: ToolCaller): AuthInfo {
  return { token: '', clientId: caller.userId, scopes: [], extra: { caller } };
}

function callerOf(authInfo: AuthInfo | undefined): ToolCaller {
  return authInfo!.extra!['caller'] as ToolCaller;
}
