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
 * Makes what takes a network's reports: records how deliveries ended, and says so on `message_status`. A report that comes
 * again, too late or after a later one finds what stands, and only has that said once more. That an earlier round failed is not said
 * again: a later one has begun since.
 */
export function receiving({ connector: { name, title }, store, publish, log }: ReceivingOptions) {
  return async (receipts: readonly Receipt[]): Promise<void> => {
    const now = hubDate();
    const ends = receipts.filter(({ status }) => status !== 'sent');
    if (ends.length === 0) return;
    const standing: SettledDelivery[] = [];
    const unknown: Receipt[] = [];
    // One round after the other: what is said of one and of the next are two reports of the same delivery.
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
    // Of a report that comes again, the time that stands is another.
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
