import test from 'ava';
import { ConnectionError, RefusedError } from './errors.ts';
import { followEvents, type StreamCalls } from './follow.ts';
import type { StreamEventsResponse } from './gen/chat4all/events/v1/events.pb.ts';

type Told = Partial<StreamEventsResponse>;

const at = '2026-01-01T00:00:00Z';
const hello: Told = { cursor: 'c0', event_id: '', hello: { heartbeat: '15s' } };
const event = (number: number): Told => ({
  cursor: `c${number}`,
  event_id: `e${number}`,
  message_read: { conversation_id: 'c', user_id: 'u', seq: number },
});

/** A hub whose streams say what they are told to, one after the other: an error breaks one off. */
function hubOf(
  streams: readonly (readonly (Told | Error)[])[],
): StreamCalls & { cursors: string[]; timeouts: unknown[] } {
  const cursors: string[] = [];
  const timeouts: unknown[] = [];
  return {
    cursors,
    timeouts,
    events: {
      async *streamEvents({ cursor = '' }, { timeout } = {}) {
        const said = streams[cursors.length];
        cursors.push(cursor);
        timeouts.push(timeout);
        for (const each of said ?? [new RefusedError(400, undefined)]) {
          if (each instanceof Error) throw each;
          yield { at, ...each } as StreamEventsResponse;
        }
      },
    },
  };
}

async function told(hub: StreamCalls, cursor?: string): Promise<{ ids: string[]; error: unknown }> {
  const ids: string[] = [];
  try {
    for await (const each of followEvents(hub, { cursor: cursor ?? '' }, {})) {
      ids.push(each.event_id || (each.reset === undefined ? 'hello' : `reset ${each.reset.reason}`));
    }
  } catch (error) {
    return { ids, error };
  }
  return { ids, error: undefined };
}

test('followEvents: goes on from the last cursor whatever ends a stream, and leaves out twins', async (t) => {
  const heartbeat = { cursor: 'c3', event_id: '', heartbeat: {} };
  const reconnect = { cursor: 'c3', event_id: '', reconnect: { after_ms: 1 } };
  const silence = Object.assign(new Error('silent'), { name: 'TimeoutError' });
  const hub = hubOf([
    [hello, event(1), event(2), new ConnectionError('cut')],
    [hello, event(2), event(3), heartbeat, reconnect],
    [new RefusedError(503, undefined)],
    [{ ...hello, cursor: 'c3' }, silence],
    [{ ...hello, cursor: 'c3' }, event(4)],
  ]);
  const { ids, error } = await told(hub, 'c0');
  t.deepEqual(ids, ['hello', 'e1', 'e2', 'e3', 'e4']);
  t.deepEqual(hub.cursors, ['c0', 'c2', 'c3', 'c3', 'c3', 'c4']);
  t.deepEqual(hub.timeouts.slice(0, 3), [45_000, 45_000, 45_000]);
  // A refusal for good is for the caller.
  t.true(error instanceof RefusedError && error.status === 400);
});

test('followEvents: a reset is told, and its cursor is where it goes on', async (t) => {
  const reset: Told = { cursor: 'c9', event_id: '', reset: { reason: 'expired' } };
  const hub = hubOf([[hello, reset, new ConnectionError('cut')]]);
  const { ids } = await told(hub, 'c1');
  t.deepEqual(ids, ['hello', 'reset expired']);
  t.deepEqual(hub.cursors, ['c1', 'c9']);
});

test('followEvents: ends with the reason of its signal, also while it waits', async (t) => {
  const abort = new AbortController();
  const hub = hubOf(Array.from({ length: 50 }, () => [new ConnectionError('away')]));
  setTimeout(() => abort.abort(new Error('enough')), 50);
  const following = (async () => {
    for await (const _ of followEvents(hub, {}, { signal: abort.signal }));
  })();
  await t.throwsAsync(following, { message: 'enough' });
});
