import type { CallOptions } from './caller.ts';
import { RefusedError } from './errors.ts';
import type { StreamEventsRequest, StreamEventsResponse } from './gen/chat4all/events/v1/events.pb.ts';
import { isTransient, pause, waitAfter } from './retries.ts';

/** Which events to follow, and from where on. */
export type FollowRequest = Omit<StreamEventsRequest, 'last_event_id'>;

/** What `followEvents` needs of the client. */
export interface StreamCalls {
  events: {
    streamEvents(request: StreamEventsRequest, options?: CallOptions): AsyncIterable<StreamEventsResponse>;
  };
}

/** Until the hub has said how often its streams are heard of. */
const firstSilence = 45_000;
/** A stream that isn't heard of for so many of its periods is dead. */
const missedHeartbeats = 3;
/** The ids of so many events are kept, to recognise one that comes again after a reconnection. */
const rememberedIds = 1_000;

/**
 * Follows the events of the caller: opens a stream, opens another one from the last cursor whenever it ends, breaks or falls silent, and
 * leaves out what comes twice. It ends when the signal is aborted, with the signal's reason, or when nobody asks for more (`break`).
 *
 * Yields the events, and `hello` and `reset`: after a `reset` the state has to be loaded anew. The cursor of what was yielded last is where
 * another program may go on.
 *
 * @throws RefusedError if the hub refuses for good, for example the token
 */
export async function* followEvents(
  client: StreamCalls,
  request: FollowRequest,
  { signal = new AbortController().signal, ...options }: CallOptions,
): AsyncGenerator<StreamEventsResponse, void> {
  let cursor = request.cursor ?? '';
  let silence = firstSilence;
  let failures = 0;
  let isFirst = true;
  const seen = new Set<string>();
  for (;;) {
    let wait = 0;
    try {
      const stream = client.events.streamEvents(
        { ...request, cursor },
        { ...options, signal, timeout: silence, retries: 0 },
      );
      for await (const told of stream) {
        failures = 0;
        if (told.cursor !== '') cursor = told.cursor;
        if (told.hello !== undefined) {
          silence = missedHeartbeats * millisecondsOf(told.hello.heartbeat);
          if (!isFirst) continue;
          isFirst = false;
        }
        if (told.heartbeat !== undefined) continue;
        if (told.reconnect !== undefined) {
          wait = told.reconnect.after_ms;
          break;
        }
        if (told.event_id !== '') {
          if (seen.has(told.event_id)) continue;
          seen.add(told.event_id);
          if (seen.size > rememberedIds) seen.delete(seen.values().next().value!);
        }
        yield told;
      }
    } catch (error) {
      signal.throwIfAborted();
      const isSilent = error instanceof Error && error.name === 'TimeoutError';
      if (!isSilent && !isTransient(error) && !(error instanceof RefusedError && error.status >= 500)) throw error;
      failures += 1;
      wait = waitAfter(error, failures);
    }
    await pause(wait, signal);
  }
}

/** @param duration such as `15s` or `0.5s`, as JSON has it */
function millisecondsOf(duration: string | null): number {
  const seconds = Number.parseFloat(duration ?? '');
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1_000 : firstSilence / missedHeartbeats;
}
