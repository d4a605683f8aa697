import { hubDate } from '#lib/clock.ts';
import { innermostText } from '#lib/errors.ts';
import { counter, durationHistogram } from '#lib/metrics.ts';
import { isLate, openPinnedConnections, retryAfterOf, type PinnedAnswer } from '#lib/pinned-connections.ts';
import { EndpointRefused, type Endpoints } from '#lib/public-endpoint.ts';
import type { Payload } from './payload.ts';
import { signatureHeaders } from './signature.ts';

/** Where to send, and with which signatures. */
export interface Target {
  url: string;
  secret: Buffer;
  /** Signs as well until `oldSecretUntil`. */
  oldSecret: Buffer | null;
  oldSecretUntil: Date | null;
}

/** How one request has ended. */
export interface Sent {
  at: Date;
  durationMs: number;
  isDelivered: boolean;
  /** Whether the endpoint says that it is gone for ever. */
  isGone: boolean;
  /** 0 if there was no answer. */
  statusCode: number;
  /** Why it failed, for its owner; empty if it did not. */
  error: string;
  /** Milliseconds that the endpoint wants to be left alone for. */
  retryAfterMs: number | undefined;
}

/** Sends events over HTTP. */
export interface Sender {
  /** One request. Never rejects: whatever goes wrong is a failure of the endpoint, unless `signal` is aborted. */
  send(target: Target, payload: Payload, signal: AbortSignal): Promise<Sent>;
  close(): Promise<void>;
}

export interface SenderOptions {
  endpoints: Pick<Endpoints, 'locate'>;
  /** Milliseconds for a request with its answer. */
  timeoutMs: number;
}

/** Of an answer so much is read, which keeps the connection for the next request. A longer one is broken off. */
const maxAnswerBytes = 16 * 1024;
const maxHosts = 256;
const connectionsPerHost = 16;

const sent = counter('webhook_attempts_total', 'Requests that were sent to webhooks, by how they ended', {
  outcome: ['delivered', 'failed'],
});
const took = durationHistogram('webhook_duration_seconds', 'From the request to a webhook to the end of its answer');

export function openSender({ endpoints, timeoutMs }: SenderOptions): Sender {
  const connections = openPinnedConnections({ timeout: timeoutMs, maxHosts, connectionsPerHost });

  async function request(target: Target, payload: Payload, signal: AbortSignal): Promise<PinnedAnswer> {
    const destination = await endpoints.locate(target.url);
    const at = hubDate();
    const { secret, oldSecret, oldSecretUntil } = target;
    const isOldValid = oldSecret !== null && oldSecretUntil !== null && oldSecretUntil > at;
    const answer = await connections.post(destination, {
      headers: {
        'user-agent': 'chat4all-webhooks/1',
        'content-type': 'application/json',
        ...signatureHeaders({ id: payload.eventId, at, body: payload.body }, [
          secret,
          ...(isOldValid ? [oldSecret] : []),
        ]),
      },
      body: payload.body,
      signal,
    });
    // Nobody wants it. Its failure is none of the delivery: the status has been told.
    await answer.body.dump({ limit: maxAnswerBytes, signal }).catch(() => {});
    return answer;
  }

  return {
    async send(target, payload, signal) {
      const at = hubDate();
      const began = performance.now();
      const limit = AbortSignal.timeout(timeoutMs);
      const ended = (how: Partial<Sent>): Sent => {
        const durationMs = Math.round(performance.now() - began);
        took.observe(durationMs / 1_000);
        sent.inc({ outcome: how.isDelivered === true ? 'delivered' : 'failed' });
        return {
          at,
          durationMs,
          isDelivered: false,
          isGone: false,
          statusCode: 0,
          error: '',
          retryAfterMs: undefined,
          ...how,
        };
      };
      try {
        const { statusCode, headers } = await request(target, payload, AbortSignal.any([limit, signal]));
        if (statusCode >= 200 && statusCode < 300) return ended({ isDelivered: true, statusCode });
        const isRedirect = statusCode >= 300 && statusCode < 400;
        return ended({
          statusCode,
          isGone: statusCode === 410,
          error: isRedirect ? `Answered with ${statusCode}: redirects are not followed` : `Answered with ${statusCode}`,
          retryAfterMs: retryAfterOf(headers),
        });
      } catch (error) {
        return ended({ error: whyOf(error, limit, timeoutMs) });
      }
    },
    close: () => connections.close(),
  };
}

const maxErrorLength = 200;

function whyOf(error: unknown, limit: AbortSignal, timeoutMs: number): string {
  if (limit.aborted || isLate(error)) return `No answer within ${timeoutMs / 1_000} s`;
  // Which addresses a name has inside is nothing for its owner, who may not be the one who runs that network.
  if (error instanceof EndpointRefused) return 'The address of the host is not a public one';
  return innermostText(error).slice(0, maxErrorLength);
}
