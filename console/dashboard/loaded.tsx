import { signal, type ReadonlySignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { Failed, Loading } from '../shell/components.tsx';
import { wordsFor } from '../shell/errors.ts';
import { isReachable, standing } from '../shell/session.ts';

/** What a view has to load before it can show it. */
export interface Loaded<Value> {
  /** What was loaded last; undefined until something was. */
  value: ReadonlySignal<Value | undefined>;
  /** Why the last attempt has failed; undefined if it has not. */
  error: ReadonlySignal<unknown>;
  isLoading: ReadonlySignal<boolean>;
  /** Loads it anew. What is there stays until then. */
  load(): Promise<void>;
}

/**
 * Loads something when a view is shown, when one of the inputs has changed, and, where it has failed, when the hub is back.
 *
 * @param ask is given a signal that is aborted when the answer is not wanted any more
 */
export function useLoaded<Value>(
  ask: (signal: AbortSignal) => Promise<Value>,
  inputs: readonly unknown[] = [],
): Loaded<Value> {
  const newest = useRef(ask);
  newest.current = ask;
  const loaded = useMemo(() => {
    const value = signal<Value | undefined>(undefined);
    const error = signal<unknown>(undefined);
    const isLoading = signal(false);
    let current: AbortController | undefined;
    return {
      value,
      error,
      isLoading,
      async load() {
        current?.abort();
        const own = (current = new AbortController());
        isLoading.value = true;
        error.value = undefined;
        try {
          const found = await newest.current(own.signal);
          if (!own.signal.aborted) value.value = found;
        } catch (failure) {
          if (!own.signal.aborted) error.value = failure;
        } finally {
          if (!own.signal.aborted) isLoading.value = false;
        }
      },
      stop() {
        current?.abort();
      },
    };
  }, []);
  useEffect(() => {
    void loaded.load();
    return loaded.stop;
  }, inputs);
  const isBack = isReachable.value && standing.value === 'in';
  useEffect(() => {
    if (isBack && loaded.error.peek() !== undefined) void loaded.load();
  }, [isBack]);
  return loaded;
}

/** Shows what was loaded, and until then that it is on its way, or why it is not. */
export function Shown<Value>({
  of: { value, error, isLoading, load },
  what,
  children,
}: {
  of: Loaded<Value>;
  /** Behind `Loading` and `Can’t load`: `your API keys`. */
  what: string;
  children: (value: Value) => ComponentChildren;
}) {
  const again = () => void load();
  if (value.value === undefined) {
    if (error.value !== undefined) return <Failed what={what} error={error.value} again={again} />;
    return <Loading what={what} />;
  }
  return (
    <div class="stack shown" aria-busy={isLoading.value}>
      {error.value !== undefined && (
        <p class="notice bad" role="alert">
          This may be out of date. {wordsFor(error.value)}
          <button type="button" class="button" onClick={again}>
            Try again
          </button>
        </p>
      )}
      {children(value.value)}
    </div>
  );
}
