import pg from 'pg';
import { mayConnect } from './connections.ts';
import type { Logger } from './log.ts';

/** What LISTEN may take where `connection` says nothing of it: a server that is frozen must not leave us without notifications for good. */
const queryTimeoutMs = 5_000;

/**
 * LISTENs on a channel of PostgreSQL, over a connection of its own that is reopened when it is lost. Calls `wake` with the payload of each
 * notification, and without a payload whenever notifications may have been missed.
 */
export async function listen(
  connection: pg.ClientConfig,
  channel: string,
  wake: (said?: string) => void,
  log: Logger,
): Promise<{ close(): Promise<void> }> {
  let closed = false;
  let client: pg.Client | undefined;
  let timer: NodeJS.Timeout | undefined;

  async function connect(): Promise<void> {
    const next = new pg.Client({ query_timeout: queryTimeoutMs, ...connection });
    client = next;
    next.on('error', (error) => log.debug({ err: error }, 'notifications were interrupted'));
    next.on('end', again);
    next.on('notification', ({ payload }) => wake(payload));
    try {
      await next.connect();
      await next.query(`listen "${channel}"`);
      wake();
    } catch {
      again();
      await next.end().catch(() => {});
    }
  }

  function again(): void {
    if (closed || timer !== undefined) return;
    timer = setTimeout(() => {
      timer = undefined;
      void connect();
    }, 1_000);
  }

  const forget = mayConnect(1);
  await connect();
  return {
    async close() {
      closed = true;
      forget();
      clearTimeout(timer);
      await client?.end().catch(() => {});
    },
  };
}
