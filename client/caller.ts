import { connected, RefusedError, type Enveloped } from './errors.ts';
import { passes, pause, RetryBudget, waitAfter } from './retries.ts';
import { eventsOf, linesOf, piecesOf } from './streams.ts';
import { placed, type Rule } from './wire.ts';

export type { Reply } from './errors.ts';

/** What a client is made with. */
export interface ClientOptions {
  /** Of the hub: `http://localhost:8000`. Not needed by a page that the hub's own origin serves. */
  baseUrl?: string;
  /**
   * A token of the user who calls, as `auth.issueToken` or `account.login` gives it. It is asked for before the first call that needs one, and
   * again once a call was answered with 401, which is then repeated. Of several calls that need a new one, one asks for all.
   */
  token?: () => string | undefined | Promise<string | undefined>;
  /** An API key, sent as `X-API-Key`. Where there is a token, too, that counts. */
  apiKey?: string;
  /** Headers of each call. */
  headers?: RequestInit['headers'];
  /** How often one call may be repeated; 3 by default. Only calls are whose repetition does no harm. */
  retries?: number;
  /** In place of the global fetch. */
  fetch?: typeof fetch;
}

/** What a call says beside its request. */
export interface CallOptions {
  /** Gives up the call, which then throws the signal's reason. */
  signal?: AbortSignal | undefined;
  /**
   * Milliseconds that the call may take, with its repetitions; of a stream and of a body: the longest silence. 30,000 by default, or
   * as long as the hub itself may take where that is longer.
   */
  timeout?: number | undefined;
  /** Headers of this call, in place of those with the same names that all have. */
  headers?: RequestInit['headers'];
  /** How often this call may be repeated, in place of what its client says. */
  retries?: number | undefined;
}

/** What there is to know of an RPC to call it. */
export interface Rpc extends Rule {
  /** Whether it needs no credentials. */
  isPublic?: boolean;
  /** Whether a repetition does no harm. */
  isRepeatable?: boolean;
  /** Whether its answers come in an envelope. */
  isEnveloped?: boolean;
  /** Whether the ids of its events are numbers. */
  hasNumbers?: boolean;
  /** Milliseconds that it may take, if that is longer than usual. */
  timeout?: number;
}

/** An HTTP request, in the hands of a caller. */
export interface Sent {
  verb: string;
  /** With its query; or a whole URL that needs no credentials. */
  path: string;
  body?: RequestInit['body'] | undefined;
  headers?: Headers;
  isPublic?: boolean | undefined;
  isRepeatable?: boolean | undefined;
}

const usualTimeout = 30_000;
const usualRetries = 3;

/** Calls a hub as one user: what all methods of a client are made of. */
export class Caller {
  readonly #options: ClientOptions;
  readonly #baseUrl: string;
  readonly #budget = new RetryBudget();
  #token: Promise<string | undefined> | undefined;

  /** @throws TypeError if `baseUrl` is no URL of a server */
  constructor(options: ClientOptions) {
    const { baseUrl = '' } = options;
    if (baseUrl !== '' && !/^https?:\/\/[^/?#\s]+[^?#\s]*$/.test(baseUrl)) {
      throw new TypeError(`baseUrl must be the http or https URL of a hub, and not ${JSON.stringify(baseUrl)}`);
    }
    this.#options = options;
    this.#baseUrl = baseUrl.replace(/\/+$/, '');
  }

  /**
   * Calls an RPC with one answer. Of one in an envelope this is what is in the envelope; a `pagination` beside it becomes a member of that
   * (`wire.Page`).
   *
   * @throws RefusedError; ConnectionError; a TimeoutError if there is no answer in time; what the signal says
   */
  async reply<Value>(rpc: Rpc, request: object, options: CallOptions = {}): Promise<Value> {
    const watch = new Watch(options.timeout ?? rpc.timeout ?? usualTimeout, options.signal);
    try {
      const text = await this.#repeating(rpc, watch, options, async () => {
        const response = await this.#once(sentBy(rpc, request, options), watch);
        return connected(response.text(), watch.signal);
      });
      const json = (text === '' ? {} : JSON.parse(text)) as Enveloped;
      if (rpc.isEnveloped !== true || text === '') return json as Value;
      if (json.meta?.pagination === undefined) return json.data as Value;
      return Object.defineProperty(json.data, 'pagination', { value: json.meta.pagination }) as Value;
    } finally {
      watch.pause();
    }
  }

  /**
   * Calls an RPC that answers with a stream of messages, one in each line. It is called when the first one is asked for, and whoever
   * stops asking for them (`break`) closes the connection.
   *
   * @throws as `reply`, also in the midst of the stream
   */
  async *lines<Message>(rpc: Rpc, request: object, options: CallOptions = {}): AsyncGenerator<Message, void> {
    for await (const { line, watch } of this.#stream(rpc, request, options)) {
      if (line.trim() === '') continue;
      const json = JSON.parse(line) as { result?: Message; error?: { status?: number } };
      if (json.error !== undefined) throw new RefusedError(json.error.status ?? 500, json.error);
      // Events are whole messages.
      yield* watch.handing('result' in json ? json.result! : (json as Message));
    }
  }

  /** As `lines`, of an RPC that answers with server-sent events. The event `error` is thrown. */
  async *events<Event extends { type: string; id: string | number; data: unknown }>(
    rpc: Rpc,
    request: object,
    options: CallOptions = {},
  ): AsyncGenerator<Event, void> {
    const headers = new Headers(options.headers);
    headers.set('accept', 'text/event-stream');
    let current: Watch | undefined;
    const lines = this.#stream(rpc, request, { ...options, headers });
    async function* texts(): AsyncGenerator<string> {
      for await (const { line, watch } of lines) {
        current = watch;
        yield line;
      }
    }
    for await (const { type, id, data: text } of eventsOf(texts())) {
      const data = JSON.parse(text) as unknown;
      if (type === 'error') {
        throw new RefusedError((data as { status?: number }).status ?? 500, data);
      }
      yield* current!.handing({ type, id: rpc.hasNumbers === true ? Number(id) : id, data } as Event);
    }
  }

  /**
   * Sends a request whose body or answer are bytes.
   *
   * @returns a success, whose body breaks off with a TimeoutError if nothing comes for `timeout` milliseconds
   * @throws as `reply`
   */
  async send(sent: Sent, options: CallOptions = {}): Promise<Response> {
    const watch = new Watch(options.timeout ?? usualTimeout, options.signal);
    try {
      const headers = new Headers(options.headers);
      sent.headers?.forEach((value, name) => headers.set(name, value));
      const response = await this.#repeating(sent, watch, options, () => this.#once({ ...sent, headers }, watch));
      const { status, statusText, body } = response;
      const pieces = body === null ? null : watch.overBody(piecesOf(response, watch.signal));
      return new Response(pieces, { status, statusText, headers: response.headers });
    } finally {
      watch.pause();
    }
  }

  async *#stream(rpc: Rpc, request: object, options: CallOptions): AsyncGenerator<{ line: string; watch: Watch }> {
    const watch = new Watch(options.timeout ?? usualTimeout, options.signal);
    try {
      const response = await this.#repeating(rpc, watch, options, () =>
        this.#once(sentBy(rpc, request, options), watch),
      );
      for await (const line of linesOf(watch.over(piecesOf(response, watch.signal)))) yield { line, watch };
    } finally {
      watch.pause();
    }
  }

  /** Tries something, and again while it fails for reasons that pass, if it may be repeated. */
  async #repeating<Result>(
    { isRepeatable }: Pick<Rpc, 'isRepeatable'>,
    watch: Watch,
    { retries = this.#options.retries ?? usualRetries }: CallOptions,
    attempt: () => Promise<Result>,
  ): Promise<Result> {
    for (let failures = 1; ; failures += 1) {
      try {
        const result = await attempt();
        this.#budget.refund();
        return result;
      } catch (error) {
        if (!passes(error) || !this.#budget.spend() || isRepeatable !== true || failures > retries) throw error;
        const wait = waitAfter(error, failures);
        if (wait >= watch.left()) throw error;
        await pause(wait, watch.signal);
      }
    }
  }

  /** Sends a request, with a new token once more if the one it had is not taken any more. */
  async #once(sent: Sent, watch: Watch): Promise<Response> {
    const { token: ask, apiKey } = this.#options;
    const needsToken = ask !== undefined && sent.isPublic !== true;
    const asked = needsToken ? (this.#token ??= this.#ask(ask)) : undefined;
    const token = asked && (await watch.during(asked));
    const response = await this.#fetch(sent, watch, token, apiKey);
    if (response.ok) return response;
    const isStream = sent.body instanceof ReadableStream;
    if (response.status !== 401 || token === undefined || !needsToken || isStream)
      throw await refusalOf(response, watch.signal);
    await response.body?.cancel();
    if (this.#token === asked) this.#token = this.#ask(ask);
    const repeated = await this.#fetch(sent, watch, await watch.during(this.#token!), apiKey);
    if (repeated.ok) return repeated;
    throw await refusalOf(repeated, watch.signal);
  }

  /** What can't be had is asked for again the next time. */
  #ask(ask: NonNullable<ClientOptions['token']>): Promise<string | undefined> {
    const asked = (async () => ask())();
    asked.catch(() => {
      if (this.#token === asked) this.#token = undefined;
    });
    return asked;
  }

  async #fetch({ verb, path, body, headers, isPublic }: Sent, watch: Watch, token?: string, apiKey?: string) {
    const { fetch = globalThis.fetch } = this.#options;
    const isElsewhere = /^https?:/.test(path);
    const all = new Headers(isElsewhere ? undefined : this.#options.headers);
    headers?.forEach((value, name) => all.set(name, value));
    if (apiKey !== undefined && isPublic !== true) all.set('x-api-key', apiKey);
    if (token !== undefined) all.set('authorization', `Bearer ${token}`);
    const url = isElsewhere ? path : `${this.#baseUrl}${path}`;
    const streamed = body instanceof ReadableStream ? { duplex: 'half' as const } : {};
    const init = { method: verb, headers: all, signal: watch.signal, ...(body !== undefined && { body }), ...streamed };
    return connected(fetch(url, init), watch.signal);
  }
}

function sentBy(rpc: Rpc, request: object, options: CallOptions): Sent {
  const { path, body } = placed(rpc, request);
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
    // A proxy in between answers in its own way.
  }
  return new RefusedError(response.status, body, response.headers.get('retry-after'));
}

/** Ends a call that takes too long, or in which nothing happens for too long. */
class Watch {
  /** Aborted then, or when the caller gives up. */
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

  /** Something has happened. */
  restart(): void {
    this.pause();
    this.#since = performance.now();
    const late = () => new DOMException(`Nothing has happened for ${this.#limit} ms`, 'TimeoutError');
    this.#timer = setTimeout(() => this.#aborter.abort(late()), this.#limit);
  }

  /** It is somebody else's turn, or the end. */
  pause(): void {
    clearTimeout(this.#timer);
  }

  /** Milliseconds until it ends the call. */
  left(): number {
    return this.#limit - (performance.now() - this.#since);
  }

  /** What comes restarts it. */
  async *over<Piece>(pieces: AsyncIterable<Piece>): AsyncGenerator<Piece> {
    for await (const piece of pieces) {
      this.restart();
      yield piece;
    }
  }

  /** The same as a body. Only while a piece is waited for, it matters that nothing comes. */
  overBody(pieces: AsyncGenerator<Uint8Array<ArrayBuffer>>): ReadableStream<Uint8Array<ArrayBuffer>> {
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>) => {
      this.restart();
      try {
        const piece = await pieces.next();
        if (piece.done === true) controller.close();
        else controller.enqueue(piece.value);
      } finally {
        this.pause();
      }
    };
    return new ReadableStream(
      { pull, cancel: async () => void (await pieces.return(undefined)) },
      { highWaterMark: 0 },
    );
  }

  /** Hands something to the reader, who may take any time for it. */
  *handing<Value>(value: Value): Generator<Value> {
    this.pause();
    yield value;
    this.restart();
  }

  /** Waits for what knows no signal. */
  during<Value>(promise: Promise<Value>): Promise<Value> {
    const { signal } = this;
    return new Promise((resolve, reject) => {
      // oxlint-disable-next-line typescript/prefer-promise-reject-errors -- whatever the caller gave up with
      const end = () => reject(signal.reason);
      if (signal.aborted) end();
      signal.addEventListener('abort', end, { once: true });
      void promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', end));
    });
  }
}
