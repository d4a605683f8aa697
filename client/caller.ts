import { connected, RefusedError, type Enveloped } from './errors.ts';
import { isTransient, pause, RetryBudget, waitAfter } from './retries.ts';
import { eventsOf, linesOf, piecesOf } from './streams.ts';
import { toHttp, type Rule } from './wire.ts';

export type { Reply } from './errors.ts';

/** The options of a client. */
export interface ClientOptions {
  /** The URL of the hub: `http://localhost:8000`. A page from the hub's own origin needs none. */
  baseUrl?: string;
  /**
   * Returns an access token, such as that of `auth.issueToken` or `account.login`. Called before the first call that needs a token, and again
   * when a call gets a 401; that call is then repeated once. Concurrent calls share one token, and one renewal.
   */
  token?: () => string | undefined | Promise<string | undefined>;
  /** An API key, sent as `X-API-Key`. If there is a token as well, the hub uses the token. */
  apiKey?: string;
  /** Headers for all calls. */
  headers?: RequestInit['headers'];
  /** How often a call is retried at most; 3 by default. Only calls that are safe to repeat are retried. */
  retries?: number;
  /** Replaces the global `fetch`. */
  fetch?: typeof fetch;
}

/** The options of a call. */
export interface CallOptions {
  /** Cancels the call, which then throws the signal's reason. */
  signal?: AbortSignal | undefined;
  /**
   * Timeout in milliseconds for the call with its retries; for a stream or a body, how long nothing may arrive. By default 30,000, or a
   * little more than the hub's own limit for the RPC if that is longer.
   */
  timeout?: number | undefined;
  /** Headers for this call; they override the client's. */
  headers?: RequestInit['headers'];
  /** Overrides the client's `retries`. */
  retries?: number | undefined;
}

/** What the caller needs to know of an RPC. */
export interface Rpc extends Rule {
  /** Whether it takes no credentials. */
  isPublic?: boolean;
  /** Whether it is safe to repeat: `idempotency_level` in the proto. */
  isRepeatable?: boolean;
  /** Whether its response comes in an envelope. */
  isEnveloped?: boolean;
  /** Whether the ids of its events are numbers. */
  hasNumericIds?: boolean;
  /** The default timeout in milliseconds, if it is not the usual one. */
  timeout?: number;
}

/** An HTTP request. */
export interface HttpRequest {
  verb: string;
  /** The path with its query, or a URL of another server. */
  path: string;
  body?: RequestInit['body'] | undefined;
  headers?: Headers;
  isPublic?: boolean | undefined;
  isRepeatable?: boolean | undefined;
}

const usualTimeout = 30_000;
const usualRetries = 3;

/** Makes calls to a hub: credentials, timeouts, retries and decoding for all methods of the client. */
export class Caller {
  readonly #options: ClientOptions;
  readonly #baseUrl: string;
  readonly #budget = new RetryBudget();
  #token: Promise<string | undefined> | undefined;

  /** @throws TypeError if `baseUrl` is not an http or https URL */
  constructor(options: ClientOptions) {
    const { baseUrl = '' } = options;
    if (baseUrl !== '' && !/^https?:\/\/[^/?#\s]+[^?#\s]*$/.test(baseUrl)) {
      throw new TypeError(`baseUrl must be the http or https URL of a hub, and not ${JSON.stringify(baseUrl)}`);
    }
    this.#options = options;
    this.#baseUrl = baseUrl.replace(/\/+$/, '');
  }

  /**
   * Calls an RPC that has a single response. An envelope is removed; its `pagination` becomes a property of the data (`wire.Page`).
   *
   * @throws RefusedError, ConnectionError, a DOMException called TimeoutError, or the reason of the signal
   */
  async reply<Value>(rpc: Rpc, request: object, options: CallOptions = {}): Promise<Value> {
    const watchdog = new Watchdog(options.timeout ?? rpc.timeout ?? usualTimeout, options.signal);
    try {
      const text = await this.#retrying(rpc, watchdog, options, async () => {
        const response = await this.#once(httpRequest(rpc, request, options), watchdog);
        return connected(response.text(), watchdog.signal);
      });
      const json = (text === '' ? {} : JSON.parse(text)) as Enveloped;
      if (rpc.isEnveloped !== true || text === '') return json as Value;
      if (json.meta?.pagination === undefined) return json.data as Value;
      return Object.defineProperty(json.data, 'pagination', { value: json.meta.pagination }) as Value;
    } finally {
      watchdog.stop();
    }
  }

  /**
   * Calls an RPC that streams messages as lines of JSON. The request is sent when the iteration starts; leaving the loop closes the
   * connection.
   *
   * @throws the same errors as `reply`, also in the middle of the stream
   */
  async *lines<Message>(rpc: Rpc, request: object, options: CallOptions = {}): AsyncGenerator<Message, void> {
    for await (const { line, watchdog } of this.#stream(rpc, request, options)) {
      if (line.trim() === '') continue;
      const json = JSON.parse(line) as { result?: Message; error?: { status?: number } };
      if (json.error !== undefined) throw new RefusedError(json.error.status ?? 500, json.error);
      // Events are whole messages, without a `result` around them.
      yield* watchdog.yielding('result' in json ? json.result! : (json as Message));
    }
  }

  /** Like `lines`, for server-sent events. The event `error` is thrown. */
  async *events<Event extends { type: string; id: string | number; data: unknown }>(
    rpc: Rpc,
    request: object,
    options: CallOptions = {},
  ): AsyncGenerator<Event, void> {
    const headers = new Headers(options.headers);
    headers.set('accept', 'text/event-stream');
    let current: Watchdog | undefined;
    const lines = this.#stream(rpc, request, { ...options, headers });
    async function* texts(): AsyncGenerator<string> {
      for await (const { line, watchdog } of lines) {
        current = watchdog;
        yield line;
      }
    }
    for await (const { type, id, data: text } of eventsOf(texts())) {
      const data = JSON.parse(text) as unknown;
      if (type === 'error') {
        throw new RefusedError((data as { status?: number }).status ?? 500, data);
      }
      yield* current!.yielding({ type, id: rpc.hasNumericIds === true ? Number(id) : id, data } as Event);
    }
  }

  /**
   * Sends a request whose body, or whose response, is bytes.
   *
   * @returns a successful response. Its body fails with a TimeoutError if nothing arrives for `timeout` milliseconds
   * @throws the same errors as `reply`
   */
  async send(http: HttpRequest, options: CallOptions = {}): Promise<Response> {
    const watchdog = new Watchdog(options.timeout ?? usualTimeout, options.signal);
    try {
      const headers = new Headers(options.headers);
      http.headers?.forEach((value, name) => headers.set(name, value));
      const response = await this.#retrying(http, watchdog, options, () => this.#once({ ...http, headers }, watchdog));
      const { status, statusText, body } = response;
      const pieces = body === null ? null : watchdog.bodyOf(piecesOf(response, watchdog.signal));
      return new Response(pieces, { status, statusText, headers: response.headers });
    } finally {
      watchdog.stop();
    }
  }

  async *#stream(
    rpc: Rpc,
    request: object,
    options: CallOptions,
  ): AsyncGenerator<{ line: string; watchdog: Watchdog }> {
    const watchdog = new Watchdog(options.timeout ?? usualTimeout, options.signal);
    try {
      const response = await this.#retrying(rpc, watchdog, options, () =>
        this.#once(httpRequest(rpc, request, options), watchdog),
      );
      for await (const line of linesOf(watchdog.watching(piecesOf(response, watchdog.signal))))
        yield { line, watchdog };
    } finally {
      watchdog.stop();
    }
  }

  /** Makes an attempt, and retries transient failures if the RPC is safe to repeat. */
  async #retrying<Result>(
    { isRepeatable }: Pick<Rpc, 'isRepeatable'>,
    watchdog: Watchdog,
    { retries = this.#options.retries ?? usualRetries }: CallOptions,
    attempt: () => Promise<Result>,
  ): Promise<Result> {
    for (let failures = 1; ; failures += 1) {
      try {
        const result = await attempt();
        this.#budget.refund();
        return result;
      } catch (error) {
        if (!isTransient(error) || !this.#budget.spend() || isRepeatable !== true || failures > retries) throw error;
        const wait = waitAfter(error, failures);
        if (wait >= watchdog.remaining()) throw error;
        await pause(wait, watchdog.signal);
      }
    }
  }

  /** Sends a request; after a 401 once more, with a new token. */
  async #once(http: HttpRequest, watchdog: Watchdog): Promise<Response> {
    const { token: ask, apiKey } = this.#options;
    const needsToken = ask !== undefined && http.isPublic !== true;
    const asked = needsToken ? (this.#token ??= this.#ask(ask)) : undefined;
    const token = asked && (await watchdog.during(asked));
    const response = await this.#fetch(http, watchdog, token, apiKey);
    if (response.ok) return response;
    const isStream = http.body instanceof ReadableStream;
    if (response.status !== 401 || token === undefined || !needsToken || isStream)
      throw await refusalOf(response, watchdog.signal);
    await response.body?.cancel();
    if (this.#token === asked) this.#token = this.#ask(ask);
    const repeated = await this.#fetch(http, watchdog, await watchdog.during(this.#token!), apiKey);
    if (repeated.ok) return repeated;
    throw await refusalOf(repeated, watchdog.signal);
  }

  /** Asks for a token. If that fails, the next call asks again. */
  #ask(ask: NonNullable<ClientOptions['token']>): Promise<string | undefined> {
    const asked = (async () => ask())();
    asked.catch(() => {
      if (this.#token === asked) this.#token = undefined;
    });
    return asked;
  }

  async #fetch(
    { verb, path, body, headers, isPublic }: HttpRequest,
    watchdog: Watchdog,
    token?: string,
    apiKey?: string,
  ) {
    const { fetch = globalThis.fetch } = this.#options;
    const isElsewhere = /^https?:/.test(path);
    const all = new Headers(isElsewhere ? undefined : this.#options.headers);
    headers?.forEach((value, name) => all.set(name, value));
    if (apiKey !== undefined && isPublic !== true) all.set('x-api-key', apiKey);
    if (token !== undefined) all.set('authorization', `Bearer ${token}`);
    const url = isElsewhere ? path : `${this.#baseUrl}${path}`;
    const streamed = body instanceof ReadableStream ? { duplex: 'half' as const } : {};
    const init = {
      method: verb,
      headers: all,
      signal: watchdog.signal,
      ...(body !== undefined && { body }),
      ...streamed,
    };
    return connected(fetch(url, init), watchdog.signal);
  }
}

function httpRequest(rpc: Rpc, request: object, options: CallOptions): HttpRequest {
  const { path, body } = toHttp(rpc, request);
  const headers = new Headers(options.headers);
  if (body !== undefined && !headers.has('content-type')) headers.set('content-type', 'application/json');
  return { verb: rpc.verb, path, body, headers, isPublic: rpc.isPublic };
}

async function refusalOf(response: Response, signal: AbortSignal): Promise<RefusedError> {
  const text = await connected(response.text(), signal);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    // Proxies respond with their own error pages.
  }
  return new RefusedError(response.status, body, response.headers.get('retry-after'));
}

/** Aborts a call that takes too long, or a stream on which nothing arrives for too long. */
class Watchdog {
  /** Aborted by the timeout, or by the caller's own signal. */
  readonly signal: AbortSignal;
  readonly #limit: number;
  readonly #aborter = new AbortController();
  #since = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(limit: number, signal: AbortSignal | undefined) {
    this.#limit = limit;
    const { signal: own } = this.#aborter;
    this.signal = signal === undefined ? own : AbortSignal.any([own, signal]);
    this.restart();
  }

  /** Starts the time anew: something has arrived. */
  restart(): void {
    this.stop();
    this.#since = performance.now();
    const late = () => new DOMException(`No response within ${this.#limit} ms`, 'TimeoutError');
    this.#timer = setTimeout(() => this.#aborter.abort(late()), this.#limit);
  }

  /** Stops the time: the reader is busy, or the call has ended. */
  stop(): void {
    clearTimeout(this.#timer);
  }

  /** Milliseconds until the timeout. */
  remaining(): number {
    return this.#limit - (performance.now() - this.#since);
  }

  /** Passes pieces on; each restarts the time. */
  async *watching<Piece>(pieces: AsyncIterable<Piece>): AsyncGenerator<Piece> {
    for await (const piece of pieces) {
      this.restart();
      yield piece;
    }
  }

  /** A body of these pieces. The time runs only while the reader waits for one. */
  bodyOf(pieces: AsyncGenerator<Uint8Array<ArrayBuffer>>): ReadableStream<Uint8Array<ArrayBuffer>> {
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>) => {
      this.restart();
      try {
        const piece = await pieces.next();
        if (piece.done === true) controller.close();
        else controller.enqueue(piece.value);
      } finally {
        this.stop();
      }
    };
    return new ReadableStream(
      { pull, cancel: async () => void (await pieces.return(undefined)) },
      { highWaterMark: 0 },
    );
  }

  /** Yields a value; the time doesn't run while the reader has it. */
  *yielding<Value>(value: Value): Generator<Value> {
    this.stop();
    yield value;
    this.restart();
  }

  /** Waits for a promise that can't be aborted. */
  during<Value>(promise: Promise<Value>): Promise<Value> {
    const { signal } = this;
    return new Promise((resolve, reject) => {
      // oxlint-disable-next-line typescript/prefer-promise-reject-errors -- the caller's own reason
      const end = () => reject(signal.reason);
      if (signal.aborted) end();
      signal.addEventListener('abort', end, { once: true });
      void promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', end));
    });
  }
}
