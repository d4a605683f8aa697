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
import { Exchange, exchangeTimeoutMs, isResponse, messagesOf } from './exchange.ts';
import { resumedStream, silentStream } from './resumption.ts';
import type { McpSession, McpSessions } from './sessions-store.ts';

/** An MCP server over Streamable HTTP, for the protocol revisions with and without sessions. */
export interface Endpoint {
  /** Answers an HTTP request of the caller. The body of the answer may be a stream. */
  answer(request: Request, caller: ToolCaller): Promise<Response>;
  /** Ends the streams of clients that only listen; they reconnect to another process. */
  retire(): void;
  /** Aborts requests in flight. */
  close(): Promise<void>;
}

export interface EndpointOptions {
  /** The name under which its sessions are stored. */
  name: string;
  /** A server for one request of a caller. */
  serve: (caller: ToolCaller) => McpServer;
  sessions: McpSessions;
  /** Hosts whose pages may call; other origins are refused (MCP specification, Transports, "Security Warning"). */
  origins: readonly string[];
  log: Logger;
}

const limits = {
  /** Maximum concurrent requests and streams of a user. */
  perUser: 50,
  /** Maximum size of an `initialize` request, which is stored with its session. */
  initialize: 65_536,
  /** A request counts as slow after this, in milliseconds. */
  long: 200,
  /** How often messages of clients for slow requests are looked for, in milliseconds. */
  pause: 250,
  /** The tolerated difference between clocks of processes, in milliseconds. */
  skew: 5_000,
} as const;
const codes = { badRequest: -32_000, notFound: -32_001, parseError: -32_700 };

/**
 * Serves one MCP server. The revision of 2026-07-28 has no sessions: each request stands alone. Sessions of the revisions of 2025 are
 * stored in the database with the events of their streams, so that any process can answer any request, and a client that was disconnected
 * gets the rest.
 */
export function openEndpoint({ name, serve, sessions, origins, log }: EndpointOptions): Endpoint {
  const modern = createMcpHandler(({ authInfo }) => serve(callerOf(authInfo)), {
    legacy: 'reject',
    onerror: (error) => log.debug({ err: error, server: name }, 'An MCP request could not be answered as asked'),
  });
  const exchanges = new Set<Exchange>();
  /** Streams to clients without a request in flight here. */
  const streams = new Set<AbortController>();
  const underWay = new Map<string, number>();

  // While a request is in flight here, the client may send a message for it to another process.
  const replies = repeat('Reading what MCP clients reply', log, async () => {
    if (exchanges.size === 0) return 60_000;
    const long = [...exchanges].filter(({ began }) => Date.now() - began > limits.long);
    if (long.length > 0) {
      const since = new Date(Math.min(...long.map(({ began }) => began)) - limits.skew);
      const found = await sessions.repliesSince([...new Set(long.map(({ sessionId }) => sessionId))], since);
      // A message that was read before has no recipient any more.
      for (const { sessionId, message } of found) take(sessionId, message as JSONRPCMessage);
    }
    return limits.pause;
  });

  /** Passes a message to its request, if that is in flight here. @returns whether it is */
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
      const behind = { sessionId: session.id, lastEventId, patienceMs: exchangeTimeoutMs };
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

/** Whether a message may belong to a request in flight at another process. */
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

/** The same answer; calls `done` once its body was read or cancelled. */
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

/** The caller in the SDK's form. The token was verified before, and isn't passed on. */
function authInfoOf(caller: ToolCaller): AuthInfo {
  return { token: '', clientId: caller.userId, scopes: [], extra: { caller } };
}

function callerOf(authInfo: AuthInfo | undefined): ToolCaller {
  return authInfo!.extra!['caller'] as ToolCaller;
}
