import { AsyncLocalStorage } from 'node:async_hooks';
import type { Span } from '@opentelemetry/api';

/** A valid request id from a client. */
export const requestIdPattern = /^[A-Za-z0-9._:-]{1,128}$/;

/** The context of the call or event being worked on, available to all code that works on it (AsyncLocalStorage). */
export interface CallContext {
  /** The client's request id, or the one made for it. */
  requestId: string;
  /** UUID of the message that the work is about, once known: shown in every log line from then on. */
  messageId?: string;
  /** The client that limits count this work for: a user's id, or the address (`clientOf`) of an unknown caller. */
  client?: string | undefined;
  /** When the caller stops waiting, in milliseconds since the epoch. */
  deadline?: number;
  /** Whether the caller set no deadline, so that `deadline` is our own default. */
  isDeadlineOurs?: boolean;
}

/** The spans of the work that is being done, where it is traced (`lib/tracing.ts`). */
export interface ActiveSpans {
  /** What new spans are below. */
  span: Span;
  /** Where the work serves several traces: the span of each of them, by trace id. */
  ofTraces?: ReadonlyMap<string, Span>;
}

const storage = new AsyncLocalStorage<CallContext>();
const spans = new AsyncLocalStorage<ActiveSpans>();

/** Runs `work` with `context` as the current one. */
export function withContext<T>(context: CallContext, work: () => T): T {
  return storage.run(context, work);
}

/** Runs `work` without a context: it serves several calls or events, not only the current one. */
export function withoutContext<T>(work: () => T): T {
  return storage.exit(() => spans.exit(work));
}

/** The context of the current call or event, if there is one. */
export function currentContext(): CallContext | undefined {
  return storage.getStore();
}

/** Runs `work` below these spans. */
export function withActiveSpans<T>(active: ActiveSpans, work: () => T): T {
  return spans.run(active, work);
}

/** The spans of the current work; undefined if it is not traced. */
export function activeSpans(): ActiveSpans | undefined {
  return spans.getStore();
}
