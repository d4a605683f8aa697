import {
  isJSONRPCErrorResponse,
  isJSONRPCNotification,
  isJSONRPCRequest,
  isJSONRPCResultResponse,
  WebStandardStreamableHTTPServerTransport,
  type EventStore,
  type JSONRPCMessage,
  type McpServer,
  type RequestId,
  type TransportSendOptions,
} from '@modelcontextprotocol/server';
import { v4 as uuid } from 'uuid';
import type { McpSession, McpSessions } from './sessions-store.ts';

/** The time limit for the requests of one POST, in milliseconds. */
export const exchangeTimeoutMs = 120_000;

/** The code of the JSON-RPC error for a request that was given up. */
const givenUp = -32_001;

/**
 * One HTTP request of a session of the 2025 protocol, with a server of its own, for which the stored `initialize` request of the client is
 * replayed. So any process can answer any request, and keeps no state between two of them.
 *
 * The requests of the POST are completed even if the client disconnects: it may come back for the rest of the stream.
 */
export class Exchange {
  readonly sessionId: string;
  readonly began = Date.now();
  /** Fulfilled once all its work has ended. */
  readonly ended: Promise<void>;
  readonly #transport: ExchangeTransport;
  readonly #server: McpServer;
  readonly #timer: NodeJS.Timeout;
  #end: () => void = () => {};

  private constructor(sessionId: string, transport: ExchangeTransport, server: McpServer) {
    this.sessionId = sessionId;
    this.#transport = transport;
    this.#server = server;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#end = resolve;
    this.#timer = setTimeout(() => void this.giveUp('The request took too long'), exchangeTimeoutMs);
    transport.onanswered = () => void this.#close();
  }

  /** Prepares the server for a request of the session: replays the handshake, except for the first request. */
  static async open(
    { id, initialize }: McpSession,
    { server, sessions, isNew }: { server: McpServer; sessions: McpSessions; isNew: boolean },
  ): Promise<Exchange> {
    const transport = new ExchangeTransport(id, sessions);
    await server.connect(transport);
    const exchange = new Exchange(id, transport, server);
    if (!isNew) await transport.agree(initialize as JSONRPCMessage);
    return exchange;
  }

  /** Answers the request. Its answer may be a stream that goes on for a while. */
  async answer(request: Request, parsedBody: unknown): Promise<Response> {
    this.#transport.expect(messagesOf(parsedBody));
    const response = await this.#transport.handleRequest(request, parsedBody === undefined ? {} : { parsedBody });
    // Refused, or with nothing to be worked on.
    if (response.headers.get('content-type') !== 'text/event-stream') await this.#close();
    return response;
  }

  /** Accepts a message of the client for a request in flight here. @returns whether there is one */
  take(message: JSONRPCMessage): boolean {
    return this.#transport.take(message);
  }

  /** Answers all open requests with an error, and ends. */
  async giveUp(why: string): Promise<void> {
    await this.#transport.refuseOpen(why);
    await this.#close();
  }

  async #close(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#server.close();
    this.#end();
  }
}

/** The messages of a body: one, or a batch of them as in the protocol of March 2025. */
export function messagesOf(body: unknown): JSONRPCMessage[] {
  return (Array.isArray(body) ? body : [body]) as JSONRPCMessage[];
}

export function isResponse(message: JSONRPCMessage): message is JSONRPCMessage & { id: RequestId } {
  return isJSONRPCResultResponse(message) || isJSONRPCErrorResponse(message);
}

/**
 * The SDK's transport, with events that are kept in the database. Requests of the server to the client have ids that no other exchange
 * of the session uses, by which the answers find back.
 */
class ExchangeTransport extends WebStandardStreamableHTTPServerTransport {
  readonly #prefix = `${uuid()}:`;
  readonly #open: Set<RequestId>;
  readonly #agreement: { isGoingOn: boolean };
  onanswered: () => void = () => {};

  constructor(sessionId: string, sessions: McpSessions) {
    const open = new Set<RequestId>();
    const agreement = { isGoingOn: false };
    super({
      sessionIdGenerator: () => sessionId,
      eventStore: storeOf(sessionId, { sessions, open, agreement }),
      retryInterval: 1_000,
    });
    this.#open = open;
    this.#agreement = agreement;
  }

  /** Repeats the handshake of the session for this server. */
  async agree(initialize: JSONRPCMessage): Promise<void> {
    this.#agreement.isGoingOn = true;
    const headers = { accept: 'application/json, text/event-stream', 'content-type': 'application/json' };
    const request = new Request('http://session.invalid/', { method: 'POST', headers, body: '{}' });
    const response = await this.handleRequest(request, { parsedBody: initialize });
    await response.text();
    this.#agreement.isGoingOn = false;
    if (!response.ok) throw new Error(`A session that was begun can't be gone on with: ${response.status}`);
  }

  expect(messages: readonly JSONRPCMessage[]): void {
    for (const message of messages) if (isJSONRPCRequest(message)) this.#open.add(message.id);
  }

  take(message: JSONRPCMessage): boolean {
    if (isResponse(message)) {
      const { id } = message;
      if (typeof id !== 'string' || !id.startsWith(this.#prefix)) return false;
      this.onmessage?.({ ...message, id: Number(id.slice(this.#prefix.length)) });
      return true;
    }
    if (!isJSONRPCNotification(message) || message.method !== 'notifications/cancelled') return false;
    const { requestId } = message.params as { requestId?: RequestId };
    if (requestId === undefined || !this.#open.has(requestId)) return false;
    this.onmessage?.(message);
    // A cancelled request gets no answer.
    this.#settle(requestId);
    return true;
  }

  async refuseOpen(why: string): Promise<void> {
    for (const id of Array.from(this.#open)) {
      // It may have been answered, or the session may have ended meanwhile.
      await this.send({ jsonrpc: '2.0', id, error: { code: givenUp, message: why } }).catch(() => {});
    }
  }

  override async send(message: JSONRPCMessage, options?: TransportSendOptions): Promise<void> {
    const sent = isJSONRPCRequest(message) ? { ...message, id: `${this.#prefix}${String(message.id)}` } : message;
    // Every message belongs to a request, and is sent on that request's stream.
    const relatedRequestId = options?.relatedRequestId ?? [...this.#open][0];
    await super.send(sent, relatedRequestId === undefined ? options : { ...options, relatedRequestId });
    if (isResponse(message) && !this.#agreement.isGoingOn) this.#settle(message.id);
  }

  #settle(id: RequestId): void {
    if (this.#open.delete(id) && this.#open.size === 0) this.onanswered();
  }
}

function storeOf(
  sessionId: string,
  {
    sessions,
    open,
    agreement,
  }: { sessions: McpSessions; open: ReadonlySet<RequestId>; agreement: { isGoingOn: boolean } },
): EventStore {
  return {
    async storeEvent(streamId, message) {
      // The agreement is stored already.
      if (agreement.isGoingOn) return '';
      const isBeginning = Object.keys(message).length === 0;
      const isLast = !isBeginning && isResponse(message) && open.size === 1 && open.has(message.id);
      const id = await sessions.append({ sessionId, streamId, message: isBeginning ? null : message, isLast });
      return id === undefined ? '' : String(id);
    },
    // Clients that reconnect are answered from the database, whichever process has their request.
    replayEventsAfter: () => Promise.reject(new Error('Events are not replayed by an exchange')),
  };
}
