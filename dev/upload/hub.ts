import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConnectionError, send, type Answer, type Request } from './http.ts';

/** The hub has refused a call. Its text is what the hub said, for people. */
export class Refusal extends Error {
  override name = 'Refusal';
  readonly status: number;
  /** Stable name of the reason; empty if it wasn't a hub that answered. */
  readonly code: string;
  /** Seconds after which it is worth trying again, if that was said. */
  readonly retryAfter: number | undefined;

  constructor({ status, headers, body }: Answer) {
    const problem = problemOf(body);
    super(problem.text || `Status ${status}`);
    this.status = status;
    this.code = problem.code;
    const seconds = Number(headers['retry-after']);
    this.retryAfter = Number.isFinite(seconds) ? seconds : undefined;
  }
}

/** What an error's body says: problem+json as the hub has it, or the XML of an S3. */
function problemOf(body: string): { text: string; code: string } {
  const inXml = (name: string) => new RegExp(`<${name}>([^<]*)</${name}>`).exec(body)?.[1] ?? '';
  try {
    const problem = JSON.parse(body) as Partial<Problem>;
    const wrong = Object.entries(problem.field_errors ?? {}).map(([field, texts]) => `  ${field} ${texts.join(', ')}`);
    return { text: [problem.detail ?? '', ...wrong].join('\n').trim(), code: problem.error_code ?? '' };
  } catch {
    return { text: inXml('Message'), code: inXml('Code') };
  }
}

interface Problem {
  detail: string;
  error_code: string;
  field_errors: Record<string, string[]>;
}

export interface Credentials {
  username: string;
  password: string;
}

export interface ConnectOptions {
  /** Of the gateway, without a slash at the end. */
  url: string;
  credentials: Credentials;
  /** Told why a call has to be repeated, and in how many milliseconds. */
  onWait: (reason: string, wait: number) => void;
}

export interface CallOptions {
  json?: object;
  /** In place of `json`. It can be read only once, so that the call can't be repeated as it is. */
  body?: Readable;
  /** Of the body. */
  headers?: Request['headers'];
  /** Milliseconds without a byte after which there will be no answer; 30,000 by default. */
  idle?: number;
  /** Gives up the call. */
  signal?: AbortSignal;
}

/** A hub as one user, who is logged in and stays so. */
export interface Hub {
  userId: string;
  /**
   * Does a call once, and returns the JSON of a success.
   *
   * @param path with the query
   * @throws Refusal, ConnectionError
   */
  once<Body>(method: string, path: string, options?: CallOptions): Promise<Body>;
  /** Does a call as `patiently` does. */
  call<Body>(method: string, path: string, options?: Omit<CallOptions, 'body'>): Promise<Body>;
  /** Does something again and again while it fails for reasons that pass, for five minutes. */
  patiently<Result>(attempt: () => Promise<Result>, signal?: AbortSignal): Promise<Result>;
}

interface Login {
  token: string;
  user_id: string;
  expires_in: number;
}

/** A hub that is restarted comes back in this time. Milliseconds. */
const patience = 5 * 60_000;
const shortestWait = 250;
const longestWait = 10_000;
const usualIdle = 30_000;
const never = new AbortController().signal;
/** A token that ends this soon is renewed before it is used. Milliseconds. */
const renewBefore = 60_000;

/**
 * Logs in.
 *
 * @throws Refusal, ConnectionError at once: whoever is wrong about the hub or the password needn't wait for it
 */
export async function connect({ url, credentials, onWait }: ConnectOptions): Promise<Hub> {
  let login = await logIn();
  let renewing: Promise<void> | undefined;

  async function logIn(): Promise<Login & { until: number }> {
    const login = await ask<Login>('POST', '/auth/token', { json: credentials });
    return { ...login, until: performance.now() + login.expires_in * 1_000 - renewBefore };
  }

  async function ask<Body>(method: string, path: string, options: CallOptions): Promise<Body> {
    const { json, idle = usualIdle, signal = never } = options;
    const text = json === undefined ? undefined : Buffer.from(JSON.stringify(json));
    const about: Request['headers'] =
      text === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': text.length };
    const headers = { ...about, ...options.headers };
    const answer = await send({ method, url: new URL(url + path), headers, body: text ?? options.body, idle, signal });
    const { body } = successOf(answer);
    return (body === '' ? undefined : JSON.parse(body)) as Body;
  }

  /** Of several calls that need a new token, one gets it for all. */
  function renew(): Promise<void> {
    renewing ??= logIn()
      .then((renewed) => void (login = renewed))
      .finally(() => (renewing = undefined));
    return renewing;
  }

  async function once<Body>(method: string, path: string, options: CallOptions = {}): Promise<Body> {
    if (performance.now() > login.until) await renew();
    const { token } = login;
    try {
      const headers = { ...options.headers, Authorization: `Bearer ${token}` };
      return await ask<Body>(method, path, { ...options, headers });
    } catch (error) {
      // Whoever repeats it has a new one then.
      if (error instanceof Refusal && error.code === 'TOKEN_EXPIRED' && login.token === token) await renew();
      throw error;
    }
  }

  async function patiently<Result>(attempt: () => Promise<Result>, signal = never): Promise<Result> {
    let giveUp: number | undefined;
    for (let failures = 0; ; failures++) {
      try {
        return await attempt();
      } catch (error) {
        if (!passes(error)) throw error;
        const wait = waitAfter(error, failures);
        giveUp ??= performance.now() + patience;
        if (performance.now() + wait > giveUp) throw error;
        if (wait > 0) onWait((error as Error).message, wait);
        await sleep(wait, undefined, { signal });
      }
    }
  }

  return {
    userId: login.user_id,
    once,
    call: (method, path, options = {}) => patiently(() => once(method, path, options), options.signal),
    patiently,
  };
}

/** @throws Refusal unless it is a success */
export function successOf(answer: Answer): Answer {
  if (answer.status >= 200 && answer.status < 300) return answer;
  throw new Refusal(answer);
}

const passingStatuses = new Set([408, 429, 502, 503, 504]);
/** Reasons with another status that pass as well: bytes that were garbled on their way are sent again. */
const passingCodes = new Set(['TOKEN_EXPIRED', 'UPLOAD_COMPLETING', 'CHUNK_DIGEST_MISMATCH']);
/** Passes only if the user does something about it. */
const lastingCodes = new Set(['TOO_MANY_UPLOADS']);

/** Whether it is worth trying again after this. */
function passes(error: unknown): boolean {
  if (error instanceof ConnectionError) return true;
  if (!(error instanceof Refusal) || lastingCodes.has(error.code)) return false;
  return passingStatuses.has(error.status) || passingCodes.has(error.code);
}

/** Milliseconds. What the hub says is the least; the rest is spread, so that not all come back at once. */
function waitAfter(error: unknown, failures: number): number {
  if (error instanceof Refusal && error.code === 'TOKEN_EXPIRED' && failures === 0) return 0;
  const least = error instanceof Refusal ? (error.retryAfter ?? 0) * 1_000 : 0;
  const most = Math.min(longestWait, shortestWait * 2 ** failures);
  return least + most * (0.5 + Math.random() / 2);
}
