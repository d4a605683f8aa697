import { effect, signal } from '@preact/signals';
import { isRefused } from '#client';
import type { StreamEventsResponse } from '#client/events';
import { client, LoggedOutError, standing } from './session.ts';

/**
 * What happens in the hub, as it happens. Each tab follows one stream of events. Whoever shows something loads it once the stream has begun
 * (`isLive`), so that nothing is missed in between, and loads it anew when `epoch` changes: events were missed then that can't be told.
 */

/** Whether the stream has begun: what is loaded from now on misses nothing. */
export const isLive = signal(false);
/** Changes when all that is shown has to be loaded anew. */
export const epoch = signal(0);

type Listener = (event: StreamEventsResponse) => void;
const listeners = new Set<Listener>();

/** Calls back with each event. @returns ends that */
export function onEvent(listener: Listener): () => void {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

/** Where to go on after the stream was closed. */
let cursor = '';

async function follow(signal: AbortSignal): Promise<void> {
  for await (const event of client.followEvents({ cursor, ephemeral: true }, { signal })) {
    if (event.cursor !== '') cursor = event.cursor;
    if (event.reset !== undefined) epoch.value += 1;
    isLive.value = true;
    for (const listener of listeners) listener(event);
  }
}

/** For how long a tab that nobody sees keeps its stream: browsers allow six connections to a server. */
const unseenLimit = 60_000;

/** Follows the events while somebody is logged in. Called once. */
export function startLive(): void {
  let current: AbortController | undefined;
  let unseen: ReturnType<typeof setTimeout> | undefined;

  const stop = () => {
    current?.abort();
    current = undefined;
  };
  const start = () => {
    if (current !== undefined || standing.peek() !== 'in') return;
    const own = (current = new AbortController());
    follow(own.signal).catch((error: unknown) => {
      if (own.signal.aborted) return;
      current = undefined;
      if (error instanceof LoggedOutError) return;
      // A cursor that the hub does not know is as good as none.
      if (isRefused(error, 'CURSOR_INVALID')) {
        cursor = '';
        epoch.value += 1;
      }
      setTimeout(start, 5_000);
    });
  };

  effect(() => {
    if (standing.value === 'in') start();
    else stop();
  });
  document.addEventListener('visibilitychange', () => {
    clearTimeout(unseen);
    if (document.visibilityState === 'visible') start();
    else unseen = setTimeout(stop, unseenLimit);
  });
  // A page that is left may be kept for the way back, with its stream open: after six of them nothing would be loaded any more.
  window.addEventListener('pagehide', stop);
  window.addEventListener('pageshow', start);
}
