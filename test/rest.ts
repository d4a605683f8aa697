import assert from 'node:assert/strict';
import { once } from 'node:events';
import http, { type IncomingMessage } from 'node:http';
import { createClient, type Client, type ClientOptions, type Problem } from '../client/client.ts';
import type { IssueTokenResponse } from '../client/gen/chat4all/auth/v1/auth.pb.ts';
import type { Effect, ListEffectsResponse } from '../client/gen/chat4all/connectors/v1/connectors.pb.ts';
import type {
  Conversation,
  ListConversationsResponse,
} from '../client/gen/chat4all/conversation/v1/conversation.pb.ts';
import type {
  GetMessageResponse,
  ListMessagesResponse,
  Message,
  MessageStatus,
} from '../client/gen/chat4all/message/v1/message.pb.ts';
import type { ListAttemptsResponse } from '../client/gen/chat4all/connectors/v1/connectors.pb.ts';
import type { GetRouteResponse } from '../client/gen/chat4all/router/v1/router.pb.ts';
import { openConformity, type Conformity, type OpenApi } from './conformity.ts';

/** Answers, as the client has them. */
export type Token = IssueTokenResponse;
export type ConversationPage = ListConversationsResponse;
export type Status = MessageStatus;
export type MessagePage = ListMessagesResponse;
export type MessageDetails = GetMessageResponse;
export type Route = GetRouteResponse;
export type AttemptList = ListAttemptsResponse;
export type EffectPage = ListEffectsResponse;
export type { Conversation, Effect, Message, Problem };

/** Bytes that are sent as they are: all at once, or piece by piece and then in chunked encoding unless a header says how many. */
export type RawBody = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

export interface Call {
  /** Sent as JSON. */
  json?: unknown;
  /** Sent as it is, in place of `json`. */
  body?: string | RawBody;
  headers?: Record<string, string>;
  /** Milliseconds; 30,000 by default. */
  timeout?: number;
  /** Cuts the connection. */
  signal?: AbortSignal;
}

export interface Answer {
  status: number;
  headers: Headers;
  /** The JSON of the body. */
  body: unknown;
  requestId: string;
}

/** An answer whose body is still to be read. */
export interface RawAnswer {
  status: number;
  headers: Headers;
  body: IncomingMessage;
}

/**
 * The REST API as one user, or nobody, calls it. Each response is checked for what the contract says of all of them, and for
 * what the gateway's own OpenAPI document says of it.
 */
export interface Rest {
  /** Whatever comes back. Throws only if nothing does, or if it breaks the contract. */
  call(method: string, path: string, call?: Call): Promise<Answer>;
  /** Whatever comes back, with its body as it comes. Throws only if nothing does; an error isn't looked at. */
  raw(method: string, path: string, call?: Call): Promise<RawAnswer>;
  /** The body of a success. */
  get<Body>(path: string): Promise<Body>;
  /** The body of a success. */
  post<Body>(path: string, json: unknown): Promise<Body>;
  /** The problem of a refusal with this status. */
  refused(status: number, method: string, path: string, call?: Call): Promise<Problem & { headers: Headers }>;
  /** The client, as this user: its answers are checked as well, but for bytes, and it repeats nothing. */
  client: Client;
  /** What it is made with. */
  clientOptions: ClientOptions;
}

const requestIdPattern = /^[A-Za-z0-9._:-]{1,128}$/;
const codePattern = /^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$/;

/**
 * @param url of the gateway, without a slash at the end
 * @param logOf what the services wrote about a request, to be shown when it fails unexpectedly
 */
export function openRest(url: string, token?: string, logOf: (requestId: string) => string = () => ''): Rest {
  function headersOf({ json, headers = {} }: Call): Headers {
    const sent = new Headers(headers);
    if (token !== undefined && !sent.has('authorization')) sent.set('authorization', `Bearer ${token}`);
    if (json !== undefined && !sent.has('content-type')) sent.set('content-type', 'application/json');
    return sent;
  }

  function raw(method: string, path: string, given: Call = {}): Promise<RawAnswer> {
    const headers = Object.fromEntries(headersOf(given));
    const body = given.json === undefined ? given.body : JSON.stringify(given.json);
    return exchange(method, `${url}${path}`, { ...given, body, headers });
  }

  async function textOf(method: string, path: string, given: Call) {
    const { json, body, timeout = 30_000 } = given;
    if (body !== undefined && typeof body !== 'string') {
      const { status, headers, body: answer } = await raw(method, path, given);
      return { status, headers, text: (await readWhole(answer)).toString() };
    }
    const response = await fetch(`${url}${path}`, {
      method,
      headers: headersOf(given),
      body: json === undefined ? body : JSON.stringify(json),
      signal: AbortSignal.timeout(timeout),
    });
    return { status: response.status, headers: response.headers, text: await response.text() };
  }

  async function checked(method: string, path: string, given: Call): Promise<Answer & { text: string }> {
    const { status, headers, text } = await textOf(method, path, given);
    const what = `${method} ${path}: ${status} ${text.slice(0, 1_000)}`;
    const requestId = headers.get('x-request-id') ?? '';
    assert.match(requestId, requestIdPattern, `X-Request-ID of ${what}`);
    const answer = {
      status,
      headers,
      text,
      body: text === '' ? undefined : (JSON.parse(text) as unknown),
      requestId,
    };
    assert.notEqual(answer.status, 500, `${what}\n${logOf(requestId)}`);
    const fault = (await conformityOf(url))?.fault(method, path, answer);
    assert.equal(fault, undefined, what);
    if (answer.status >= 400) checkProblem(answer, what);
    else if (text !== '') assert.equal(headers.get('content-type'), 'application/json', what);
    return answer;
  }

  async function call(method: string, path: string, given: Call = {}): Promise<Answer> {
    const { text: _, ...answer } = await checked(method, path, given);
    return answer;
  }

  const clientFetch: typeof fetch = async (target, init = {}) => {
    const { method = 'GET', body } = init;
    const path = (target as string).slice(url.length);
    const headers = headersOf({ headers: Object.fromEntries(new Headers(init.headers)) });
    const isJson = (body === undefined || body === null || typeof body === 'string') && !path.endsWith('/content');
    // A stream of events has no end that could be waited for.
    const isEndless = /^\/v1\/events(\/by-ticket)?(\?|$)/.test(path);
    if (!isJson || isEndless) return fetch(target, { ...init, headers });
    const given = { ...(body && { body }), headers: Object.fromEntries(headers) };
    const { status, headers: answered, text } = await checked(method, path, given);
    return new Response(text === '' ? null : text, { status, headers: answered });
  };

  async function success(method: string, path: string, given?: Call): Promise<unknown> {
    const answer = await call(method, path, given);
    if (answer.status < 300) return answer.body;
    throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}\n${logOf(answer.requestId)}`);
  }

  const clientOptions = { baseUrl: url, fetch: clientFetch, retries: 0 };
  return {
    call,
    raw,
    client: createClient(clientOptions),
    clientOptions,
    get: async <Body>(path: string) => (await success('GET', path)) as Body,
    post: async <Body>(path: string, json: unknown) => (await success('POST', path, { json })) as Body,
    async refused(status, method, path, given) {
      const { body, ...answer } = await call(method, path, given);
      assert.equal(answer.status, status, `${method} ${path}: ${JSON.stringify(body).slice(0, 1_000)}`);
      return { ...(body as Problem), headers: answer.headers };
    },
  };
}

const conformities = new Map<string, Promise<Conformity | undefined>>();

/** The check against the document of the gateway at a URL; undefined while that can't be had. */
export function conformityOf(url: string): Promise<Conformity | undefined> {
  let conformity = conformities.get(url);
  if (conformity === undefined) {
    conformity = fetch(`${url}/openapi.json`, { signal: AbortSignal.timeout(30_000) })
      .then(async (response) => (response.ok ? openConformity((await response.json()) as OpenApi) : undefined))
      .catch(() => undefined);
    conformities.set(url, conformity);
    void conformity.then((found) => found ?? conformities.delete(url));
  }
  return conformity;
}

/**
 * Sends a request on a connection of its own, at the pace of the server, and stops sending once there is an answer. With
 * `expect: 100-continue` the body waits until it is asked for.
 *
 * @param url of any server: the URL may be the permission
 */
export async function exchange(
  method: string,
  url: string,
  { body, headers = {}, timeout = 30_000, signal }: Omit<Call, 'json'> = {},
): Promise<RawAnswer> {
  const signals = [AbortSignal.timeout(timeout), ...(signal === undefined ? [] : [signal])];
  const length = typeof body === 'string' || body instanceof Uint8Array ? Buffer.byteLength(body) : undefined;
  const request = http.request(url, {
    method,
    agent: false,
    headers: { ...(length !== undefined && { 'content-length': String(length) }), ...headers },
    signal: AbortSignal.any(signals),
  });
  let answer: IncomingMessage | undefined;
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', (response) => {
      answer = response;
      resolve(response);
    });
    // Stays on: what happens to the connection after the answer is seen by whoever reads that.
    request.on('error', reject);
  });
  const send = async () => {
    if (new Headers(headers).get('expect') === '100-continue') {
      request.flushHeaders();
      await Promise.race([once(request, 'continue'), answered]);
    }
    const whole = length !== undefined;
    for await (const piece of whole ? [body as Uint8Array] : (body as AsyncIterable<Uint8Array>)) {
      if (answer !== undefined) return;
      if (!request.write(piece)) await Promise.race([once(request, 'drain'), answered]);
    }
    request.end();
  };
  if (body === undefined) request.end();
  else await Promise.race([send(), answered]);
  const response = await answered;
  response.once('close', () => request.destroy());
  return { status: response.statusCode!, headers: headersIn(response), body: response };
}

function headersIn({ headersDistinct }: IncomingMessage): Headers {
  return new Headers(Object.entries(headersDistinct).flatMap(([name, all]) => all!.map((one) => [name, one] as const)));
}

export async function readWhole(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of body) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** What the contract says of every error. */
export function checkProblem({ status, headers, body, requestId }: Answer, what: string): void {
  assert.equal(headers.get('content-type'), 'application/problem+json', what);
  const problem = body as Problem;
  for (const member of ['type', 'title', 'detail', 'error_code'] as const) {
    assert.ok(typeof problem[member] === 'string' && problem[member] !== '', `${member} of ${what}`);
  }
  assert.equal(problem.status, status, what);
  assert.equal(problem.request_id, requestId, what);
  assert.match(problem.error_code, codePattern, what);
  if (problem.field_errors !== undefined) {
    const descriptions = Object.values(problem.field_errors);
    assert.ok(descriptions.length > 0 && descriptions.every((each) => Array.isArray(each) && each.length > 0), what);
  }
  const retryAfter = headers.get('retry-after');
  assert.equal(problem.retry_after, retryAfter === null ? undefined : Number(retryAfter), `retry_after of ${what}`);
  if (status === 429 || status === 503) assert.ok((problem.retry_after ?? 0) >= 1, `retry_after of ${what}`);
  if (status === 401) assert.equal(headers.get('www-authenticate'), 'Bearer', what);
  if (status === 403) assert.match(problem.detail, /^Access denied/, what);
  if (status === 405) assert.ok(headers.get('allow'), `Allow of ${what}`);
}
