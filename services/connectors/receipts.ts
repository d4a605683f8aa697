import { topics } from '#gen/events.ts';
import type { Bus } from '#lib/bus/bus.ts';
import { hubDate } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import type { Connector, Receipt } from './connector.ts';
import type { SettledDelivery } from './deliveries-store.ts';
import { printable } from './delivery.ts';
import { countEnded, endReport } from './reports.ts';
import type { Store } from './store.ts';

export interface ReceivingOptions {
  connector: Pick<Connector, 'name' | 'title'>;
  store: Pick<Store, 'recordReported'>;
  publish: Bus['publish'];
  log: Logger;
}

/**
 * Makes the listener for a network's reports: records how deliveries ended, and publishes that on `message_status`. For a repeated or late
 * report the outcome that stands is published once more. The failure of an earlier round is not published again, since a later one has
 * begun.
 */
export function receiving({ connector: { name, title }, store, publish, log }: ReceivingOptions) {
  return async (receipts: readonly Receipt[]): Promise<void> => {
    const now = hubDate();
    const ends = receipts.filter(({ status }) => status !== 'sent');
    if (ends.length === 0) return;
    const standing: SettledDelivery[] = [];
    const unknown: Receipt[] = [];
    // One round after another: the reports on two rounds of a delivery are different reports.
    const rounds = [...Map.groupBy(ends, ({ replay = 0 }) => replay)].toSorted(([a], [b]) => a - b);
    for (const [replay, receipts] of rounds) {
      const firsts = new Map(receipts.toReversed().map((receipt) => [idOf(receipt), receipt]));
      const settled = await store.recordReported(
        [...firsts.values()].map(({ status, reason, ...receipt }) => ({
          ...receipt,
          replay,
          channel: name,
          delivered: status !== 'failed',
          error: status === 'failed' ? printable(reason) || `${title} could not deliver it` : '',
          endedAt: now,
        })),
      );
      const known = new Set(settled.map(idOf));
      unknown.push(...[...firsts.values()].filter((receipt) => !known.has(idOf(receipt))));
      standing.push(...settled);
    }
    // A repeated report finds an outcome with an earlier time, which isn't counted again.
    for (const delivery of standing) if (delivery.endedAt.getTime() === now.getTime()) countEnded(delivery);
    if (unknown.length > 0) {
      log.warn(
        { receipts: unknown },
        `${title} reports of deliveries that it was not given, or failures of earlier rounds`,
      );
    }
    await publish(
      topics.messageStatus,
      standing.map(({ conversationId, callId, ...delivery }) => endReport({ conversationId, callId }, delivery)),
    );
  };
}

function idOf({ messageId, recipientId }: { messageId: string; recipientId: string }): string {
  return `${messageId}/${recipientId}`;
}
