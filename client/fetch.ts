/*
 * How the generated code speaks HTTP, in Node and in browsers: in place of the runtime of the generator, whose functions have
 * the same names here.
 */

/** What a call says beside its request: all that fetch takes, and more. */
export interface InitReq extends Omit<RequestInit, 'method' | 'body'> {
  /** Of the hub, without a slash at the end: `http://localhost:8000`. Not needed by a page that the hub's own origin serves. */
  pathPrefix?: string;
  /** Sent as `X-API-Key`. Where there is an `authorization` with a bearer token, too, that counts. */
  apiKey?: string;
  /**
   * The longest silence, in milliseconds: 30,000 by default, or more where the hub may take more for a call. An answer that is no
   * stream has to be there by then.
   */
  timeout?: number;
  /** In place of the global fetch. */
  fetch?: typeof fetch;
}

interface Sent extends InitReq {
  method: string;
  body?: RequestInit['body'];
}

/** A refusal, as the hub explains it (RFC 9457). */
export interface Problem {
  type: string;
  title: string;
  status: number;
  /** A sentence for people. */
  detail: string;
  /** What programs tell refusals apart by. */
  error_code: string;
  /** The one to look for in the hub's logs. */
  request_id: string;
  /** What is wrong with each wrong field, by its path. */
  field_errors?: Record<string, string[]>;
  /** Seconds after which to try again. */
  retry_after?: number;
}

/** What is wrong with a field. */
export interface Detail {
  /** Its path. */
  field: string;
  /** A sentence for people. */
  message: string;
  /** Which rule it doesn't meet, for programs; undefined where that isn't told. */
  rule?: string;
}

/** An answer in an envelope: of what is under `/api/v1`. */
interface Enveloped {
  data: unknown;
  error?: { code: string; message: string; details?: Detail[] } | null;
  meta?: { request_id?: string; pagination?: object };
}

/** The hub, or something before it, has refused a call. A call that isn't answered at all throws what fetch throws. */
export class RefusedError extends Error {
  override name = 'RefusedError';
  readonly status: number;
  /** What programs tell refusals apart by; undefined if it wasn't the hub that answered. */
  readonly code: string | undefined;
  /** All that is wrong with fields. */
  readonly details: readonly Detail[];
  /** The one to look for in the hub's logs. */
  readonly requestId: string | undefined;
  /** Seconds after which to try again, if it said so. */
  readonly retryAfter: number | undefined;
  /** All that the hub says, where it answers with such. */
  readonly problem: Problem | undefined;

  /** @param retryAfter the header of that name */
  constructor(status: number, body: unknown, retryAfter?: string | null) {
    const problem = isProblem(body) ? body : undefined;
    const { error, meta } = isEnveloped(body) ? body : {};
    const [code, message] = [problem?.error_code ?? error?.code, problem?.detail ?? error?.message];
    super(code === undefined ? `HTTP ${status}` : `${message} (${status} ${code})`);
    this.status = status;
    this.code = code;
    this.details = error?.details ?? detailsIn(problem);
    this.requestId = problem?.request_id ?? meta?.request_id;
    // It may also be a date.
    this.retryAfter = problem?.retry_after ?? (/^\d+$/.test(retryAfter ?? '') ? Number(retryAfter) : undefined);
    this.problem = problem;
  }
}

function isProblem(body: unknown): body is Problem {
  const { detail, error_code: code } = (body ?? {}) as Partial<Problem>;
  return typeof detail === 'string' && typeof code === 'string';
}

function isEnveloped(body: unknown): body is Enveloped {
  const { error } = (body ?? {}) as Partial<Enveloped>;
  return typeof error?.code === 'string' && typeof error.message === 'string';
}

function detailsIn(problem: Problem | undefined): Detail[] {
  const fields = Object.entries(problem?.field_errors ?? {});
  return fields.flatMap(([field, all]) => all.map((message) => ({ field, message })));
}

/** A message that is answered: every field is there, also those that may be missing when it is asked with. */
export type Answered<T> = T extends readonly (infer Item)[]
  ? Answered<Item>[]
  : T extends Uint8Array
    ? never
    : T extends object
      ? { [Name in keyof T]-?: Answered<Exclude<T[Name], undefined>> }
      : T;

/** A part of a list, with what is said of the whole. That is no part of its JSON. */
export type Page<List, Pagination> = List & { readonly pagination: Pagination };

/** At most one of the members. */
export type OneOf<T> =
  | { [Name in keyof T]?: never }
  | { [Name in keyof T]: Pick<T, Name> & { [Other in Exclude<keyof T, Name>]?: never } }[keyof T];

/** A message of any type: its fields, or `value` if its JSON is no object. */
export type Any = { '@type': string; [field: string]: unknown };

/** Calls an RPC. @throws RefusedError, or what fetch throws if there is no answer in time */
export async function fetchReq<Answer>(path: string, init: Sent): Promise<Answer> {
  const text = await fetchText(path, init);
  return (text === '' ? {} : JSON.parse(text)) as Answer;
}

/**
 * Calls an RPC that answers in an envelope.
 *
 * @returns what is in the envelope; a `pagination` beside it becomes a member of that (`Page`)
 * @throws RefusedError, or what fetch throws if there is no answer in time
 */
export async function fetchData<Data>(path: string, init: Sent): Promise<Data> {
  const text = await fetchText(path, init);
  if (text === '') return {} as Data;
  const { data, meta } = JSON.parse(text) as Enveloped;
  if (meta?.pagination !== undefined) Object.defineProperty(data, 'pagination', { value: meta.pagination });
  return data as Data;
}

async function fetchText(path: string, init: Sent): Promise<string> {
  const silence = new Silence(init);
  try {
    const response = await send(path, init, silence);
    return await response.text();
  } finally {
    silence.pause();
  }
}

/** Told of each message of a stream. The next one waits until it is done. */
export type NotifyStreamEntityArrival<Message> = (message: Message) => void | Promise<void>;

/**
 * Calls an RPC that answers with a stream of messages, one in each line. Fulfilled at its end.
 *
 * @throws RefusedError, also in the midst of the stream; or what fetch throws if it breaks off or is silent for too long
 */
export async function fetchStreamingRequest<Answer>(
  path: string,
  notify: NotifyStreamEntityArrival<Answer> | undefined,
  init: Sent,
): Promise<void> {
  const silence = new Silence(init);
  const take = async (line: string) => {
    if (line.trim() === '') return;
    const { result, error } = JSON.parse(line) as { result?: Answer; error?: { status?: number } };
    if (error !== undefined) throw new RefusedError(error.status ?? 500, error);
    // A stream is as slow as whoever reads it.
    silence.pause();
    await notify?.(result as Answer);
    silence.restart();
  };
  try {
    const response = await send(path, init, silence);
    for await (const line of linesOf(response, silence)) await take(line);
  } finally {
    silence.pause();
  }
}

/** An event of a stream, by its type: its id in the stream, and what it tells. */
export type EventOf<Id, Data> = { [Type in keyof Data]: { type: Type; id: Id; data: Data[Type] } }[keyof Data];

/**
 * Calls an RPC that answers with server-sent events (WHATWG HTML, 9.2). It is called when the first event is asked for, and whoever
 * stops asking for them in the midst (`break`) closes the connection.
 *
 * @param idOf makes an id of the text that it is in the stream
 * @throws RefusedError, also for the event `error`; or what fetch throws if the stream breaks off or is silent for too long
 */
export async function* fetchEvents<Event extends { type: string; id: string | number; data: unknown }>(
  path: string,
  idOf: (text: string) => Event['id'],
  init: Sent,
): AsyncGenerator<Event, void> {
  const silence = new Silence(init);
  const headers = new Headers(init.headers);
  headers.set('accept', 'text/event-stream');
  try {
    const response = await send(path, { ...init, headers }, silence);
    let [type, id, data] = ['', '', ''];
    for await (const line of linesOf(response, silence)) {
      // A comment has no name.
      const [, name, value = ''] = /^([^:]*)(?:: ?(.*?))?\r?$/s.exec(line)!;
      if (name === 'event') type = value;
      else if (name === 'id') id = value;
      else if (name === 'data') data += `${value}\n`;
      if (line !== '' && line !== '\r') continue;
      const event = data === '' ? undefined : { type, id: idOf(id), data: JSON.parse(data) as unknown };
      [type, data] = ['', ''];
      if (event === undefined) continue;
      if (event.type === 'error') {
        const error = event.data as { status?: number };
        throw new RefusedError(error.status ?? 500, error);
      }
      // A stream is as slow as whoever reads it.
      silence.pause();
      yield event as Event;
      silence.restart();
    }
  } finally {
    silence.pause();
  }
}

/** The lines of an answer, also a last one that doesn't end. */
async function* linesOf(response: Response, silence: Silence): AsyncGenerator<string> {
  let unfinished = '';
  for await (const text of textOf(response)) {
    silence.restart();
    const lines = (unfinished + text).split('\n');
    unfinished = lines.pop()!;
    yield* lines;
  }
  if (unfinished !== '') yield unfinished;
}

/** Not every browser iterates over streams. */
async function* textOf(response: Response): AsyncGenerator<string> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  const decoder = new TextDecoder();
  try {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      yield decoder.decode(piece.value, { stream: true });
    }
    yield decoder.decode();
  } finally {
    // Whoever stops in the middle wants no more of it.
    void reader.cancel().catch(() => {});
  }
}

/** Sends a request. @throws RefusedError unless the answer is a success */
export async function send(path: string, init: Sent, silence: Silence): Promise<Response> {
  const { pathPrefix = '', apiKey, timeout: _, fetch = globalThis.fetch, headers, ...rest } = init;
  const sent = new Headers(headers);
  if (apiKey !== undefined) sent.set('x-api-key', apiKey);
  if (typeof rest.body === 'string' && !sent.has('content-type')) sent.set('content-type', 'application/json');
  const response = await fetch(`${pathPrefix}${path}`, { ...rest, headers: sent, signal: silence.signal });
  if (response.ok) return response;
  const text = await response.text();
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy in between answers in its own way.
  }
  throw new RefusedError(response.status, body, response.headers.get('retry-after'));
}

/** Ends a call in which nothing happens for too long. */
export class Silence {
  /** Aborted then, or when the caller gives up. */
  readonly signal: AbortSignal;
  readonly #limit: number;
  readonly #aborter = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor({ timeout = 30_000, signal }: Pick<InitReq, 'timeout' | 'signal'>) {
    this.#limit = timeout;
    const { signal: own } = this.#aborter;
    this.signal = signal === undefined || signal === null ? own : AbortSignal.any([own, signal]);
    this.restart();
  }

  /** Something has happened. */
  restart(): void {
    this.pause();
    const late = () => new DOMException(`Nothing has happened for ${this.#limit} ms`, 'TimeoutError');
    this.#timer = setTimeout(() => this.#aborter.abort(late()), this.#limit);
  }

  /** It is somebody else's turn, or the end. */
  pause(): void {
    clearTimeout(this.#timer);
  }
}

/** For JSON.stringify: bytes are base64. */
export function replacer(_: string, value: unknown): unknown {
  return value instanceof Uint8Array ? b64Encode(value) : value;
}

/** Bytes as base64. */
export function b64Encode(bytes: Uint8Array): string {
  let text = '';
  // More arguments than that don't fit on every stack.
  for (let at = 0; at < bytes.length; at += 8_192) text += String.fromCharCode(...bytes.subarray(at, at + 8_192));
  return btoa(text);
}

/** The bytes of base64, such as an answer's. */
export function b64Decode(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/**
 * The part of a path that a field is.
 *
 * @param field its name; of a nested one all names, with dots
 * @param pattern what it looks like: `shelves/*`, where slashes are kept
 * @throws TypeError if it isn't there, or would lead to another path
 */
export function pathValue(request: object, field: string, pattern = '*'): string {
  let value: unknown = request;
  for (const name of field.split('.')) value = (value as Record<string, unknown> | null | undefined)?.[name];
  const text = value === undefined || value === null ? '' : String(value as string | number | boolean);
  const segments = pattern === '*' ? [text] : text.split('/');
  // Browsers and Node take dots for the way back, encoded or not.
  if (segments.some((segment) => segment === '' || segment === '.' || segment === '..')) {
    throw new TypeError(`${field} is part of the path, and can't be ${JSON.stringify(value)}`);
  }
  return segments.map(encodeURIComponent).join('/');
}

/**
 * The query that a request travels in, with its question mark; empty if there is nothing to say.
 *
 * @param elsewhere fields that travel in the path or in the body
 * @param maps paths of fields that are maps: an entry is `name[key]`, and a field of a message `name.field`
 * @throws TypeError if a field has no place in a query: a list of messages
 */
export function query(request: object, elsewhere: readonly string[], maps: readonly string[] = []): string {
  const said = new URLSearchParams();
  const add = (name: string, value: unknown) => {
    if (value === undefined || value === null || elsewhere.includes(name)) return;
    if (value instanceof Uint8Array) said.append(name, b64Encode(value));
    else if (Array.isArray(value)) {
      for (const item of value) {
        if (typeof item === 'object') throw new TypeError(`${name} has no place in a query`);
        said.append(name, String(item));
      }
    } else if (typeof value === 'object') {
      const isMap = maps.includes(name);
      for (const [key, inner] of Object.entries(value)) add(isMap ? `${name}[${key}]` : `${name}.${key}`, inner);
    } else said.append(name, String(value as string | number | boolean));
  };
  for (const [name, value] of Object.entries(request)) add(name, value);
  return said.size === 0 ? '' : `?${said}`;
}
