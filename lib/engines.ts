import { ConfigError, duration } from './config.ts';
import { innermostText, isTransient } from './errors.ts';
import type { Logger } from './log.ts';
import { retryUntilDone } from './retry.ts';
import { ending, StartError } from './starting.ts';

/** Settings of every process that needs an engine: PostgreSQL, Kafka, an S3. */
export const engineSettings = {
  START_PATIENCE: duration({ min: 0, max: 3_600_000 })
    .default(30_000)
    .describe(
      'how long a process that starts waits for PostgreSQL, Kafka and the S3; then it ends, to be started again',
    ),
};

export interface Engine {
  /** The setting that holds the engine's address. */
  setting: string;
  /** The engine's kind and address for people, without secrets. */
  what: string;
  /**
   * Fulfilled if the engine answers and accepts our credentials.
   *
   * @throws HubError that is transient while the engine is unavailable; ConfigError, or any other error, if trying again is of no use
   */
  ask(): Promise<void>;
}

const backoff = { firstMs: 500, maxMs: 500, jitter: 0 };

/** host:port of the URL of a PostgreSQL. */
export function placeOf(url: string): string {
  const { host, searchParams } = new URL(url);
  return host || searchParams.get('host') || 'its socket';
}

/** Codes of errors that waiting doesn't mend: the server speaks another protocol, or its certificate is not trusted. */
const otherwise =
  /^(HPE_|EPROTO$|ERR_SSL_|ERR_TLS_|CERT_|DEPTH_ZERO_SELF_SIGNED_CERT$|SELF_SIGNED_CERT_IN_CHAIN$|UNABLE_TO_)/;

function isOtherwise(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return otherwise.test(String((error as { code?: unknown }).code)) || isOtherwise(error.cause);
}

/**
 * Waits at the start of a process until an engine is available, with one line in the log. An engine that refuses us, or is something else,
 * is an error at once.
 *
 * @param patienceMs how long to wait; if undefined, an unavailable engine is an error at once, which is thrown as `ask` threw it
 * @throws ConfigError if the engine refuses us; StartError if it stays unavailable. Both name the setting
 */
export async function awaitEngine(
  { setting, what, ask }: Engine,
  { log, patienceMs }: { log: Logger; patienceMs: number | undefined },
): Promise<void> {
  const giveUpAt = performance.now() + (patienceMs ?? 0);
  let wasAway = false;
  const isThere = await retryUntilDone(ask, {
    backoff,
    signal: ending.signal,
    onFailure(error) {
      if (error instanceof ConfigError) throw error;
      const why = innermostText(error);
      if (!isTransient(error) || isOtherwise(error)) throw new ConfigError([`${setting}: ${what} refuses: ${why}`]);
      if (patienceMs === undefined) throw error;
      if (performance.now() >= giveUpAt) {
        throw new StartError(`${setting}: ${what} is not there, and was not for ${patienceMs / 1_000} s: ${why}`);
      }
      if (!wasAway) log.warn(`${setting}: ${what} is not there: waiting for up to ${patienceMs / 1_000} s: ${why}`);
      wasAway = true;
    },
  });
  if (!isThere) throw ending.signal.reason;
  if (wasAway) log.info(`${what} is there`);
}
