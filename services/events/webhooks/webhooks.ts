import { v5 as uuidOf } from 'uuid';
import { WebhookPauseReason } from '#gen/chat4all/events/v1/events.ts';
import type { WebhooksServiceService } from '#gen/chat4all/events/v1/webhooks.ts';
import { hubDate, hubTime } from '#lib/clock.ts';
import type { Database } from '#lib/database.ts';
import { maxTimerMs } from '#lib/deadline.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, sweep } from '#lib/loop.ts';
import { counter } from '#lib/metrics.ts';
import type { Endpoints } from '#lib/public-endpoint.ts';
import type { Checks, Handlers } from '#lib/rpc/server.ts';
import type { Appended, LogStore } from '../log/log-store.ts';
import type { Processes } from '../processes.ts';
import { webhookPausedEntry } from '../wire.ts';
import { openAttemptsStore } from './attempts-store.ts';
import { openDeliveries, type Deliveries } from './deliveries.ts';
import { openEndpointsStore } from './endpoints-store.ts';
import { webhookChecks, webhookHandlers } from './handlers.ts';
import { usualSchedule, type Schedule } from './schedule.ts';
import { openSender } from './sender.ts';
import { openWorkStore, type Work } from './work-store.ts';

export interface WebhooksOptions {
  database: Database;
  log: LogStore;
  /** Appends to the log. */
  writing: Pick<LogStore, 'append'>;
  /** Called when the log has grown. */
  grown(appended: Appended): void;
  processes: Pick<Processes, 'webhook'>;
  /** Where endpoints may be. */
  endpoints: Endpoints;
  /** How long attempts are kept, in milliseconds. */
  retention: number;
  logger: Logger;
  schedule?: Schedule;
}

export interface Webhooks extends Pick<Deliveries, 'grown' | 'heard' | 'stop'> {
  /** Users were disabled: their webhooks are paused. May be told more than once. */
  disabled(userIds: readonly string[]): void;
  handlers: Handlers<WebhooksServiceService>;
  checks: Checks<WebhooksServiceService>;
}

/** Ids of events that tell of a pause are made in here, so that the same pause has the same id. */
const pauseNamespace = '6f1d9a54-0c52-4b0e-9d0a-2f7b8f0c3e61';

const paused = counter('webhook_pauses_total', 'Webhooks that were paused, since their endpoint fails or is gone', {
  reason: ['failing', 'gone'],
});

const sweepBatch = 1_000;
const sweepEveryMs = 60_000;

/** Webhooks: what users have of them, and their delivery. */
export function openWebhooks(options: WebhooksOptions): Webhooks {
  const { database, log, writing, processes, endpoints, retention, logger, schedule = usualSchedule } = options;
  const attempts = openAttemptsStore(database);
  const sender = openSender({ endpoints, timeoutMs: schedule.timeoutMs });

  async function stopped(work: Work, why: 'failing' | 'gone', failingSince: Date | null): Promise<void> {
    const { id: webhookId, userId, url, updatedAt } = work;
    const isFailing = why === 'failing';
    const reason = isFailing
      ? WebhookPauseReason.WEBHOOK_PAUSE_REASON_FAILING
      : WebhookPauseReason.WEBHOOK_PAUSE_REASON_GONE;
    const pause = { webhookId, url, reason, failingSince: isFailing ? (failingSince ?? undefined) : undefined };
    // One event, though the process may be killed before the endpoint is paused, and another one tell it again.
    const eventId = uuidOf(`${webhookId} ${why} ${updatedAt.getTime()}`, pauseNamespace);
    options.grown(await writing.append([webhookPausedEntry(eventId, userId, hubDate(), pause)]));
    paused.inc({ reason: why });
    logger.warn({ endpoint: webhookId, why }, 'A webhook does not work: nothing is sent to it any more');
  }

  const deliveries = openDeliveries({
    store: openWorkStore(database),
    log,
    sender,
    schedule,
    processes,
    logger,
    stopped,
  });
  const sweeping = sweep('Old attempts of webhooks', logger, { batchSize: sweepBatch, everyMs: sweepEveryMs }, (most) =>
    attempts.sweep(new Date(hubTime() - retention), most),
  );

  const ofUsers = openEndpointsStore(database);
  function changed(endpointId: string): void {
    deliveries.heard(endpointId);
    // What is lost, the process that works on it finds when it renews its lease.
    processes.webhook(endpointId).catch(() => {});
  }
  let disabledIds: string[] = [];
  const pausing = repeat('Pausing the webhooks of users who were disabled', logger, async () => {
    const some = disabledIds;
    if (some.length > 0) for (const endpointId of await ofUsers.pauseAllOf(some)) changed(endpointId);
    // Others may have come meanwhile.
    disabledIds = disabledIds.slice(some.length);
    return maxTimerMs;
  });

  return {
    disabled(userIds) {
      disabledIds = [...disabledIds, ...userIds];
      pausing.wake();
    },
    handlers: webhookHandlers({ endpoints: ofUsers, attempts, log, sender, changed }),
    checks: webhookChecks(endpoints),
    grown: deliveries.grown,
    heard: deliveries.heard,
    async stop() {
      await Promise.all([deliveries.stop(), sweeping.stop(), pausing.stop()]);
      await sender.close();
    },
  };
}
