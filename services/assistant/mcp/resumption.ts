import type { McpSessions } from './sessions-store.ts';

const headers = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
};
const encoder = new TextEncoder();
/** Milliseconds between two comment lines that show that the connection is alive, and between two looks for events. */
const pauses = { alive: 15_000, look: 200 } as const;

/**
 * The rest of a session's stream after an event, from the database, whichever process has or had the request.
 *
 * @param stop ends the stream
 * @param patienceMs how long after that event the stream may still go on
 * @returns undefined if the session has no such event
 */
export async function resumedStream(
  sessions: McpSessions,
  { sessionId, lastEventId, patienceMs }: { sessionId: string; lastEventId: string; patienceMs: number },
  stop: AbortController,
): Promise<Response | undefined> {
  if (!/^\d{1,18}$/.test(lastEventId)) return undefined;
  let after = BigInt(lastEventId);
  const found = await sessions.streamOf(sessionId, after);
  if (found === undefined) return undefined;
  const until = found.createdAt.getTime() + patienceMs;

  async function* pieces(): AsyncGenerator<string> {
    let shownAlive = Date.now();
    while (!stop.signal.aborted) {
      const events = await sessions.eventsAfter(sessionId, found!.streamId, after);
      for (const { id, message, isLast } of events) {
        after = id;
        if (message !== null) yield `event: message\nid: ${id}\ndata: ${JSON.stringify(message)}\n\n`;
        if (isLast) return;
      }
      if (events.length > 0) continue;
      if (Date.now() > until) return;
      if (Date.now() - shownAlive >= pauses.alive) {
        shownAlive = Date.now();
        yield ': keepalive\n\n';
      }
      await pause(pauses.look, stop.signal);
    }
  }
  return streamOf(pieces(), stop);
}

/**
 * The stream for what a server says unasked: nothing, as all that ours say belongs to a request.
 *
 * @param stop ends the stream
 */
export function silentStream(stop: AbortController): Response {
  async function* pieces(): AsyncGenerator<string> {
    while (!stop.signal.aborted) {
      yield ': keepalive\n\n';
      await pause(pauses.alive, stop.signal);
    }
  }
  return streamOf(pieces(), stop);
}

function streamOf(pieces: AsyncGenerator<string>, stop: AbortController): Response {
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await pieces.next();
          if (!done) return controller.enqueue(encoder.encode(value));
          controller.close();
        } catch (error) {
          controller.error(error);
        }
        stop.abort();
      },
      cancel() {
        stop.abort();
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { headers });
}

/** Waits so long, or until it is stopped. */
function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener('abort', end);
    if (signal.aborted) end();
  });
}
