import type { Breach } from './breach.ts';
import type { Observations } from './observations.ts';

/** Topics whose events are not about messages. */
const otherTopics: ReadonlySet<string> = new Set(['conversation_changes', 'file_changes']);

/** The bus carried what was accepted, in order, and nothing else; nothing was given up. */
export function checkTopics({ records, leftOnBus, ledger }: Observations, known: ReadonlySet<string>): Breach[] {
  const breaches: Breach[] = [];
  for (const [queue, count] of Object.entries(leftOnBus ?? {})) {
    const rule = queue.includes('dead_letters') ? 'dead letter' : 'topics';
    breaches.push({ rule, text: `${count} batches are left on the bus in ${queue}` });
  }
  if (records === undefined) return breaches;

  const positions = new Map(ledger.messages.map((message) => [message.messageId, message]));
  const seen = new Set<string>();
  const last = new Map<string, number>();
  for (const { topic, type, key, messageId, recipientId, channel, partition, offset } of records) {
    const at = `at offset ${offset} of partition ${partition} of ${topic}`;
    if (topic.endsWith('.dead_letters')) {
      breaches.push({ rule: 'dead letter', messageId, text: `is a dead letter ${at}` });
      continue;
    }
    if (otherTopics.has(topic) || type === 'chat4all.message.v1.MessageRead') continue;
    const message = positions.get(messageId);
    if (message === undefined) {
      breaches.push({ rule: 'forged', messageId, text: `is unknown, and there is an event of it ${at}` });
      continue;
    }
    if (key !== message.conversationId) {
      breaches.push({ rule: 'topics', messageId, text: `its event has the key ${key} ${at}` });
    }
    const id = `${topic} ${messageId} ${recipientId} ${channel}`;
    if (seen.has(id)) continue;
    seen.add(id);
    if (topic === 'message_status') continue;
    // An event may come again, but the first ones come in order.
    const way = `${topic} ${key} ${recipientId}`;
    const before = last.get(way) ?? 0;
    if (message.seq < before) {
      breaches.push({ rule: 'order', messageId, text: `number ${message.seq} comes behind number ${before} ${at}` });
    }
    last.set(way, Math.max(before, message.seq));
  }
  for (const messageId of known) {
    for (const topic of ['message_processing', 'message_changes']) {
      if (!seen.has(`${topic} ${messageId}  `)) {
        breaches.push({ rule: 'topics', messageId, text: `was never on ${topic}` });
      }
    }
  }
  for (const { messageId, recipientId, channel } of ledger.deliveries) {
    if (!seen.has(`${channel}_outgoing ${messageId} ${recipientId} ${channel}`)) {
      breaches.push({ rule: 'topics', messageId, text: `was never on ${channel}_outgoing for ${recipientId}` });
    }
  }
  return breaches;
}
