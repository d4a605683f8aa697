import { AsyncLocalStorage } from 'node:async_hooks';

/** What a client may choose as the id of its request. */
export const requestIdPattern = /^[A-Za-z0-9._:-]{1,128}$/;

/** What belongs to the call or event being worked on, wherever the code is. */
export interface CallContext {
  /** The client's request id, or the one made for it. */
  requestId: string;
  /** UUID of the message that the work is about, once known: shown in every log line from then on. */
  messageId?: string;
  /** Whom the work is for, of whom there are limits: a user's id, or the address (`clientOf`) of somebody unknown. */
  client?: string | undefined;
  /** When the caller stops waiting, in milliseconds since the epoch. */
  deadline?: number;
  /** Whether the caller said nothing of that: then it is how long we give it. */
  isDeadlineOurs?: boolean;
}

const storage = new AsyncLocalStorage<CallContext>();

/** Runs `work` with `context` as the current one. */
export function withContext<T>(context: CallContext, work: () => T): T {
  return storage.run(context, work);
}

/** Runs `work` as belonging to no call or event, though one asks for it. */
export function withoutContext<T>(work: () => T): T {
  return storage.exit(work);
}

/** The context of the current call or event, if there is one. */
export function currentContext(): CallContext | undefined {
  return storage.getStore();
}
