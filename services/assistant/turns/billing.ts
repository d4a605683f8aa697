/** Checks who may use the assistant, and counts the usage. */
export interface Billing {
  /** @throws HubError PERMISSION_DENIED `SUBSCRIPTION_REQUIRED` or `TOKEN_LIMIT_EXCEEDED`; UNAVAILABLE if nobody can say */
  reserve(caller: { userId: string; requestId: string }): Promise<Bill>;
}

/** A reservation for an answer. */
export interface Bill {
  /** @param status how it ended; undefined if no model was called: then it leaves no trace. Doesn't throw */
  settle(used: {
    tokens: number;
    status: 'success' | 'error' | 'timeout' | undefined;
    /** Milliseconds. */
    duration: number;
  }): Promise<void>;
}
