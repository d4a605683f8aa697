import type { HubError } from '#lib/errors.ts';
import { backoffMs } from '#lib/backoff.ts';
import {
  isLate,
  openPinnedConnections,
  retryAfterOf,
  type PinnedAnswer,
  type PinnedConnections,
} from '#lib/pinned-connections.ts';
import type { Destination } from '#lib/public-endpoint.ts';
import { pauseFor } from '#lib/retry.ts';
import { isShallow, toolTimeout, toolUnavailable } from '../tools.ts';

export interface UpstreamOptions {
  /** For all attempts of a call together, in milliseconds. */
  timeout: number;
  /** Bytes that an answer may have. */
  responseLimit: number;
}

/** A request to a tool. */
export interface Question {
  /** JSON. */
  body: string;
  requestId: string;
  /** Aborted when the answer is of no use any more. */
  signal: AbortSignal;
}

/** The answer of a tool: a JSON value; or its refusal of the input, which is no failure of the tool. */
export type Answer = { value: unknown } | { declined: HubError };

/** A failure of a tool: it is unreachable, too slow, or answers with an error or invalid JSON. */
export class ToolFailure extends Error {
  readonly status: 'error' | 'timeout';
  readonly shown: HubError;

  constructor(status: 'error' | 'timeout', shown: HubError) {
    super(shown.message, { cause: shown.cause });
    this.status = status;
    this.shown = shown;
  }
}

/** A failed attempt that may be retried. */
class Retryable extends Error {
  readonly outcome: ToolFailure | HubError;
  /** The tool's Retry-After, in milliseconds. */
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
   * POSTs to a tool, with retries, only at the addresses that were checked.
   *
   * @throws ToolFailure
   */
  ask(destination: Destination, question: Question): Promise<Answer>;
  close(): Promise<void>;
}

const maxAttempts = 3;
const backoff = { firstMs: 200, maxMs: 400 };
/** The maximum number of hosts with connections, and of connections to each; further calls wait for one. */
const maxHosts = 256;
const maxConnections = 256;
/** The maximum nesting of an answer: protobuf's parsers stop at 100 levels, of which each level of JSON takes three. */
const maxLevels = 30;

export function openUpstream({ timeout, responseLimit }: UpstreamOptions): Upstream {
  const connections = openPinnedConnections({ timeout, maxHosts, connectionsPerHost: maxConnections });

  return {
    async ask(destination, question) {
      const limit = AbortSignal.timeout(timeout);
      const signal = AbortSignal.any([limit, question.signal]);
      const giveUp = performance.now() + timeout;
      for (let tries = 1; ; tries += 1) {
        try {
          return await attempt(connections, destination, question, signal, responseLimit);
        } catch (error) {
          if (limit.aborted || isLate(error)) throw late(timeout, error);
          if (question.signal.aborted) throw unreachable(error);
          if (!(error instanceof Retryable)) throw error;
          const pause = error.pause ?? backoffMs(backoff, tries);
          if (tries < maxAttempts && performance.now() + pause < giveUp) {
            await pauseFor(pause, signal);
            continue;
          }
          if (error.outcome instanceof ToolFailure) throw error.outcome;
          return { declined: error.outcome };
        }
      }
    },

    close: () => connections.close(),
  };
}

async function attempt(
  connections: PinnedConnections,
  destination: Destination,
  { body, requestId }: Question,
  signal: AbortSignal,
  responseLimit: number,
): Promise<Answer> {
  let response: PinnedAnswer;
  let text: string;
  try {
    response = await connections.post(destination, {
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

function answerOf({ statusCode, headers }: PinnedAnswer, text: string): Answer {
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
  if (isShallow(value, maxLevels)) return { value };
  const why = `The tool answered with JSON of more than ${maxLevels} levels`;
  throw new ToolFailure('error', toolUnavailable(why));
}

/** @param limit maximum bytes; 0 to discard the body */
async function readText({ body, headers }: PinnedAnswer, limit: number): Promise<string> {
  if (limit === 0) {
    // Not awaited: a short body keeps the connection usable, a longer one ends it.
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
    // Leaving the loop destroys the stream.
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

/** The maximum Retry-After for callers, in seconds. */
const maxRetryAfter = 86_400;

function unavailable(why: string, pause?: number): HubError {
  const retryAfter = pause === undefined ? 1 : Math.min(maxRetryAfter, Math.max(1, Math.ceil(pause / 1_000)));
  return toolUnavailable(why, { retryAfter });
}

function unreachable(cause: unknown): ToolFailure {
  return new ToolFailure('error', toolUnavailable("The tool can't be reached", { cause }));
}

function late(timeout: number, cause: unknown): ToolFailure {
  const shown = toolTimeout(timeout / 1_000);
  return new ToolFailure('timeout', Object.assign(shown, { cause }));
}
