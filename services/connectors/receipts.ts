import type { Bus } from '#lib/bus/bus.ts';
import type { Logger } from '#lib/log.ts';
import type { Connector, Receipt } from './connector.ts';
import { printable } from './delivery.ts';
import { countEnded, reportOf, statusTopic } from './events.ts';
import type { Store } from './store.ts';

export interface ReceivingOptions {
  connector: Pick<Connector, 'name' | 'title'>;
  store: Pick<Store, 'recordReported'>;
  publish: Bus['publish'];
  log: Logger;
}

/**
 * Makes what takes a network's reports: records how deliveries ended, and says so on `message_status`. A report that comes
 * again, too late or after a later one finds what stands, and only has that said once more.
 */
export function receiving({ connector: { name, title }, store, publish, log }: ReceivingOptions) {
  return async (receipts: readonly Receipt[]): Promise<void> => {
    const now = new Date();
    const ends = receipts.filter(({ status }) => status !== 'sent');
    const firsts = new Map(ends.toReversed().map((receipt) => [idOf(receipt), receipt]));
    if (firsts.size === 0) return;
    const standing = await store.recordReported(
      [...firsts.values()].map(({ status, reason, ...receipt }) => ({
        ...receipt,
        channel: name,
        delivered: status !== 'failed',
        error: status === 'failed' ? printable(reason) || `${title} could not deliver it` : '',
        endedAt: now,
      })),
    );
    // Of a report that comes again, the time that stands is another.
    for (const delivery of standing) if (delivery.endedAt.getTime() === now.getTime()) countEnded(delivery);
    if (standing.length < firsts.size) {
      const known = new Set(standing.map(idOf));
      const unknown = [...firsts.values()].filter((receipt) => !known.has(idOf(receipt)));
      log.warn({ receipts: unknown }, `${title} reports of deliveries that it was not given`);
    }
    await publish(
      statusTopic,
      standing.map(({ conversationId, requestId, ...delivery }) =>
        reportOf({ key: conversationId, requestId }, delivery),
      ),
    );
  };
}

function idOf({ messageId, recipientId }: { messageId: string; recipientId: string }): string {
  return `${messageId}/${recipientId}`;
}
