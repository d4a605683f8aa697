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
  /** The setting that says where it is. */
  setting: string;
  /** What it is and where, for people; without secrets. */
  what: string;
  /**
   * Whether it is there, and takes us.
   *
   * @throws HubError that is transient while it is away; ConfigError, or any other error, if trying again is of no use
   */
  ask(): Promise<void>;
}

const backoff = { firstMs: 500, maxMs: 500, jitter: 0 };

/** host:port of the URL of a PostgreSQL. */
export function placeOf(url: string): string {
  const { host, searchParams } = new URL(url);
  return host || searchParams.get('host') || 'its socket';
}

/** Codes of what speaks another protocol, or shows a certificate that we don't take: waiting doesn't change it. */
const otherwise =
  /^(HPE_|EPROTO$|ERR_SSL_|ERR_TLS_|CERT_|DEPTH_ZERO_SELF_SIGNED_CERT$|SELF_SIGNED_CERT_IN_CHAIN$|UNABLE_TO_)/;

function isOtherwise(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return otherwise.test(String((error as { code?: unknown }).code)) || isOtherwise(error.cause);
}

/**
 * Waits at the start of a process until an engine is there. All of them are treated alike: what is away is waited for, with one line in
 * the log; what refuses us, or is something else, ends the process at once.
 *
 * @param patience milliseconds; what is away then is given up. Not given, that fails at once, as `ask` does
 * @throws ConfigError if it refuses us; StartError if it stays away. Both name the setting
 */
export async function awaitEngine(
  { setting, what, ask }: Engine,
  { log, patience }: { log: Logger; patience: number | undefined },
): Promise<void> {
  const giveUpAt = performance.now() + (patience ?? 0);
  let wasAway = false;
  const isThere = await retryUntilDone(ask, {
    backoff,
    signal: ending.signal,
    onFailure(error) {
      if (error instanceof ConfigError) throw error;
      const why = innermostText(error);
      if (!isTransient(error) || isOtherwise(error)) throw new ConfigError([`${setting}: ${what} refuses: ${why}`]);
      if (patience === undefined) throw error;
      if (performance.now() >= giveUpAt) {
        throw new StartError(`${setting}: ${what} is not there, and was not for ${patience / 1_000} s: ${why}`);
      }
      if (!wasAway) log.warn(`${setting}: ${what} is not there: waiting for up to ${patience / 1_000} s: ${why}`);
      wasAway = true;
    },
  });
  if (!isThere) throw ending.signal.reason;
  if (wasAway) log.info(`${what} is there`);
}
