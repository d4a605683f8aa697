import type { Dispatcher, Pool } from 'undici';
import type { HubError } from '#lib/errors.ts';
import { backoffMs } from '#lib/backoff.ts';
import { pauseFor } from '#lib/retry.ts';
import type { Destination } from '../catalog/endpoint.ts';
import { isShallow, toolTimeout, toolUnavailable } from '../tools.ts';

export interface UpstreamOptions {
  /** Milliseconds for all tries of a call together. */
  timeout: number;
  /** Bytes that an answer may have. */
  responseLimit: number;
}

/** What a tool is asked. */
export interface Question {
  /** JSON. */
  body: string;
  requestId: string;
  /** Aborted when nobody can use the answer any more. */
  signal: AbortSignal;
}

/** What a tool answered: a value of JSON; or that it won't work on this, which is no failure of the tool. */
export type Answer = { value: unknown } | { declined: HubError };

/** A tool has failed: it can't be reached, isn't in time, or answers with an error or with what is no answer. */
export class ToolFailure extends Error {
  readonly status: 'error' | 'timeout';
  readonly shown: HubError;

  constructor(status: 'error' | 'timeout', shown: HubError) {
    super(shown.message, { cause: shown.cause });
    this.status = status;
    this.shown = shown;
  }
}

/** A try that failed, and may go well another time. */
class Retryable extends Error {
  readonly outcome: ToolFailure | HubError;
  /** Milliseconds that the tool wants to be left alone for. */
  readonly pause: number | undefined;

  constructor(outcome: ToolFailure | HubError, pause?: number) {
    super(outcome.message);
    this.outcome = outcome;
    this.pause = pause;
  }
}

/** Asks tools over HTTP. */
export interface Upstream {
  /**
   * POSTs to a tool, again where that may help, at one of the addresses that were checked and at no other.
   *
   * @throws ToolFailure
   */
  ask(destination: Destination, question: Question): Promise<Answer>;
  close(): Promise<void>;
}

const mostTries = 3;
const backoff = { firstMs: 200, maxMs: 400 };
const longestConnect = 5_000;
/** Connections to so many tools are kept, and of each so many at once: others wait for one. */
const mostPools = 256;
const mostConnections = 256;
/** Deeper ones would not fit into a message (protobuf's parsers stop at 100 levels, of which each level here takes three). */
const mostLevels = 30;

/** Loaded for the first call: it takes 30 MB, more than all that the service has of its own. */
const load = () => import('undici');

export function openUpstream({ timeout, responseLimit }: UpstreamOptions): Upstream {
  const pools = new Map<string, Pool>();

  /** Connections are shared by calls for the same host that was found at the same addresses. */
  async function poolFor({ url, addresses }: Destination): Promise<Pool> {
    const { Pool: PoolOfUndici } = await load();
    const key = [url.origin, ...addresses.toSorted()].join(' ');
    const pool = pools.get(key) ?? openPool(PoolOfUndici, url.origin, addresses, timeout);
    pools.delete(key);
    pools.set(key, pool);
    if (pools.size > mostPools) {
      const [oldest, unused] = pools.entries().next().value as [string, Pool];
      pools.delete(oldest);
      void unused.close().catch(() => {});
    }
    return pool;
  }

  return {
    async ask(destination, question) {
      const limit = AbortSignal.timeout(timeout);
      const signal = AbortSignal.any([limit, question.signal]);
      const giveUp = performance.now() + timeout;
      for (let tries = 1; ; tries += 1) {
        try {
          return await attempt(await poolFor(destination), destination.url, question, signal, responseLimit);
        } catch (error) {
          if (limit.aborted || isLate(error)) throw late(timeout, error);
          if (question.signal.aborted) throw unreachable(error);
          if (!(error instanceof Retryable)) throw error;
          const pause = error.pause ?? backoffMs(backoff, tries);
          if (tries < mostTries && performance.now() + pause < giveUp) {
            await pauseFor(pause, signal);
            continue;
          }
          if (error.outcome instanceof ToolFailure) throw error.outcome;
          return { declined: error.outcome };
        }
      }
    },

    async close() {
      await Promise.all([...pools.values()].map((pool) => pool.destroy().catch(() => {})));
    },
  };
}

function openPool(PoolOfUndici: typeof Pool, origin: string, addresses: readonly string[], timeout: number): Pool {
  const found = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
  return new PoolOfUndici(origin, {
    connect: {
      timeout: Math.min(longestConnect, timeout),
      autoSelectFamily: true,
      lookup(_host, { all }, callback) {
        if (all) callback(null, found);
        else callback(null, found[0]!.address, found[0]!.family);
      },
    },
    connections: mostConnections,
    pipelining: 1,
    allowH2: false,
    headersTimeout: timeout,
    bodyTimeout: timeout,
    keepAliveTimeout: 10_000,
    keepAliveMaxTimeout: 60_000,
  });
}

async function attempt(
  pool: Pool,
  url: URL,
  { body, requestId }: Question,
  signal: AbortSignal,
  responseLimit: number,
): Promise<Answer> {
  let response: Dispatcher.ResponseData;
  let text: string;
  try {
    response = await pool.request({
      method: 'POST',
      path: `${url.pathname}${url.search}`,
      headers: {
        'user-agent': 'chat4all-tools/1',
        accept: 'application/json',
        'content-type': 'application/json',
        'x-request-id': requestId,
      },
      body,
      signal,
    });
    text = await readText(response, response.statusCode < 300 ? responseLimit : 0);
  } catch (error) {
    if (error instanceof ToolFailure || isLate(error)) throw error;
    throw new Retryable(unreachable(error));
  }
  return answerOf(response, text);
}

function answerOf({ statusCode, headers }: Dispatcher.ResponseData, text: string): Answer {
  if (statusCode >= 500) {
    const pause = retryAfterOf(headers);
    throw new Retryable(new ToolFailure('error', unavailable(`The tool answered with ${statusCode}`, pause)), pause);
  }
  if (statusCode === 429) {
    const pause = retryAfterOf(headers);
    throw new Retryable(unavailable('The tool has too much to do', pause), pause);
  }
  if (statusCode >= 400) return { declined: unavailable(`The tool refused the call with ${statusCode}`) };
  if (statusCode >= 300) return { declined: unavailable(`The tool answered with a redirect, ${statusCode}`) };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw notJson(error);
  }
  if (isShallow(value, mostLevels)) return { value };
  const why = `The tool answered with JSON of more than ${mostLevels} levels`;
  throw new ToolFailure('error', toolUnavailable(why));
}

/** @param limit of its bytes; 0 if nobody wants it */
async function readText({ body, headers }: Dispatcher.ResponseData, limit: number): Promise<string> {
  if (limit === 0) {
    // It isn't waited for: a short one leaves the connection as it is, any other ends it.
    body.dump({ limit: 64 * 1024 }).catch(() => {});
    return '';
  }
  const tooLarge = () => new ToolFailure('error', toolUnavailable(`The tool answered with more than ${limit} bytes`));
  const pieces: Buffer[] = [];
  let size = 0;
  if (Number(headers['content-length'] ?? 0) > limit) {
    body.destroy();
    throw tooLarge();
  }
  for await (const piece of body as AsyncIterable<Buffer>) {
    size += piece.length;
    // Leaving the loop destroys the rest.
    if (size > limit) throw tooLarge();
    pieces.push(piece);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(pieces));
  } catch (error) {
    throw notJson(error);
  }
}

function notJson(cause: unknown): ToolFailure {
  return new ToolFailure('error', toolUnavailable('The tool answered with what is no JSON', { cause }));
}

/** Milliseconds that a Retry-After header asks for, in seconds or as a date (RFC 9110, 10.2.3); undefined without one. */
function retryAfterOf(headers: Dispatcher.ResponseData['headers']): number | undefined {
  const header = headers['retry-after'];
  const text = Array.isArray(header) ? header[0] : header;
  if (text === undefined) return undefined;
  if (/^\d+$/.test(text.trim())) return Number(text) * 1_000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

/** What callers are told at most of how long a tool wants to be left alone: seconds. */
const longestRetryAfter = 86_400;

function unavailable(why: string, pause?: number): HubError {
  const retryAfter = pause === undefined ? 1 : Math.min(longestRetryAfter, Math.max(1, Math.ceil(pause / 1_000)));
  return toolUnavailable(why, { retryAfter });
}

function isLate(error: unknown): boolean {
  const { code } = error as { code?: unknown };
  return code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT';
}

function unreachable(cause: unknown): ToolFailure {
  return new ToolFailure('error', toolUnavailable("The tool can't be reached", { cause }));
}

function late(timeout: number, cause: unknown): ToolFailure {
  const shown = toolTimeout(timeout / 1_000);
  return new ToolFailure('timeout', Object.assign(shown, { cause }));
}
