import { setTimeout as sleep } from 'node:timers/promises';
import { MeteringServiceService, ResponseStatus } from '#gen/chat4all/tools/v1/tools.ts';
import { backoffMs } from '#lib/backoff.ts';
import { ConfigError, flag, type Config } from '#lib/config.ts';
import { withContext } from '#lib/context.ts';
import { HubError, isTransient } from '#lib/errors.ts';
import type { Identities } from '#lib/identity.ts';
import type { Logger } from '#lib/log.ts';
import { connect, serviceAddress, type Connection } from '#lib/rpc/client.ts';
import type { transportSettings } from '#lib/rpc/transport.ts';
import type { Billing } from './turns/billing.ts';

/** Settings of what answers cost. */
export const billingSettings = {
  ASSISTANT_BILLING: flag()
    .default(false)
    .describe('whether answers need a subscription, and count as tokens of the tool `assistant`'),
  TOOLS_ADDRESS: serviceAddress()
    .optional()
    .describe('host:port of the tools service; needed with ASSISTANT_BILLING=true'),
};

export interface BillingOptions {
  config: Config<typeof billingSettings & typeof transportSettings>;
  identities: Identities;
  log: Logger;
  /** Milliseconds that an answer may take. */
  limit: number;
}

/** How long to wait between two attempts to write down what an answer has used. */
const settleBackoff = { firstMs: 100, maxMs: 2_000, jitter: 0 };
/** When these attempts end. The reservation lasts longer. */
const settleLimitMs = 20_000;
const maxInt32 = 2 ** 31 - 1;

const statuses = {
  success: ResponseStatus.RESPONSE_STATUS_SUCCESS,
  error: ResponseStatus.RESPONSE_STATUS_ERROR,
  timeout: ResponseStatus.RESPONSE_STATUS_TIMEOUT,
};

/** Bills answers as the settings say: not at all, or as work that the tools service counts. @throws ConfigError */
export function openBilling({ config, identities, log, limit }: BillingOptions): Billing & { close(): void } {
  if (!config.ASSISTANT_BILLING) {
    return { reserve: async () => ({ settle: async () => {} }), close() {} };
  }
  if (config.TOOLS_ADDRESS === undefined) {
    throw new ConfigError(['TOOLS_ADDRESS is required with ASSISTANT_BILLING=true']);
  }
  const tools = connect(MeteringServiceService, {
    config,
    target: 'tools',
    address: config.TOOLS_ADDRESS,
    identities,
  });
  return { ...billingBy(tools, { log, limit }), close: () => tools.close() };
}

/** @param limit milliseconds that an answer may take */
export function billingBy(
  tools: Pick<Connection<MeteringServiceService>, 'reserveTokens' | 'settleTokens'>,
  { log, limit }: { log: Logger; limit: number },
): Billing {
  return {
    async reserve({ userId, requestId }) {
      const { reservationId } = await tools.reserveTokens({ userId, requestId, seconds: Math.ceil(limit / 1_000) });
      return {
        async settle({ tokens, status, duration }) {
          const settlement = {
            reservationId,
            userId,
            status: status === undefined ? ResponseStatus.RESPONSE_STATUS_UNSPECIFIED : statuses[status],
            tokens: BigInt(status === 'success' ? tokens : 0),
            durationMs: Math.min(duration, maxInt32),
          };
          const giveUp = performance.now() + settleLimitMs;
          for (let failures = 1; ; failures += 1) {
            try {
              // The call that the answer was for may have ended, and its deadline with it.
              await withContext({ requestId }, () => tools.settleTokens(settlement));
              return;
            } catch (error) {
              const pause = backoffMs(settleBackoff, failures);
              if (isTransient(error) && performance.now() + pause < giveUp) {
                await sleep(pause);
                continue;
              }
              const reason = error instanceof HubError ? error.reason : undefined;
              log.error({ err: error, reason, requestId, tokens }, 'What an answer has used could not be counted');
              return;
            }
          }
        },
      };
    },
  };
}
