import { Kafka, logLevel } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TopicRecord } from './observations.ts';

/** Milliseconds without a record after which a topic that has an end that isn't reached can't be read. */
const silenceLimit = 30_000;

/** Reads all topics of a Kafka from their beginnings to the ends that they have now, as somebody who has never seen the hub. */
export async function readTopics(brokers: string): Promise<TopicRecord[]> {
  const kafka = new Kafka({ clientId: 'checker', brokers: [brokers], logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  const topics = (await admin.listTopics()).filter((topic) => !topic.startsWith('__'));
  /** First offset that is not to be read, by topic and partition. */
  const ends = new Map<string, number>();
  for (const topic of topics) {
    for (const { partition, high, low } of await admin.fetchTopicOffsets(topic)) {
      if (Number(high) > Number(low)) ends.set(`${topic} ${partition}`, Number(high));
    }
  }
  const records: TopicRecord[] = [];
  const open = new Set(ends.keys());
  if (open.size > 0) {
    const groupId = `checker-${randomUUID()}`;
    const consumer = kafka.consumer({ groupId });
    await consumer.connect();
    await consumer.subscribe({ topics, fromBeginning: true });
    let lastSign = Date.now();
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ topic, partition, message }) => {
        lastSign = Date.now();
        const offset = Number(message.offset);
        const place = `${topic} ${partition}`;
        const end = ends.get(place) ?? 0;
        if (offset >= end - 1) open.delete(place);
        if (offset >= end) return;
        const header = (name: string) => message.headers?.[name]?.toString() ?? '';
        const type = header('type');
        for (const ids of idsIn(type, message.value ?? Buffer.alloc(0))) {
          records.push({
            topic,
            partition,
            offset,
            key: message.key?.toString() ?? '',
            type,
            ...ids,
            requestId: header('request_id'),
            at: Number(message.timestamp),
          });
        }
      },
    });
    while (open.size > 0) {
      if (Date.now() - lastSign > silenceLimit) throw new Error(`Can't be read to the end: ${[...open].join(', ')}`);
      await sleep(50);
    }
    await consumer.disconnect();
    await admin.deleteGroups([groupId]).catch(() => {});
  }
  await admin.disconnect();
  return records.toSorted((one, other) => one.partition - other.partition || one.offset - other.offset);
}

/** Numbers of the fields that say what an event is about, by its type. */
const fields: Record<string, { message: number; recipient?: number; recipients?: number; channel?: number }> = {
  'chat4all.message.v1.MessageAccepted': { message: 1 },
  'chat4all.router.v1.DeliveryRequested': { message: 1, recipient: 5, recipients: 11, channel: 6 },
  'chat4all.message.v1.MessageRouted': { message: 1 },
  'chat4all.message.v1.MessageRejected': { message: 1 },
  'chat4all.message.v1.DeliveryEnded': { message: 1, recipient: 2, channel: 3 },
  'chat4all.message.v1.DeliveryAttempted': { message: 1, recipient: 2, channel: 3 },
};

/** What an event is about; if it is for several recipients, once for each of them. */
function idsIn(type: string, value: Buffer): Pick<TopicRecord, 'messageId' | 'recipientId' | 'channel'>[] {
  const { message = 1, recipient, recipients, channel } = fields[type] ?? {};
  const texts = textsOf(value);
  const text = (field: number | undefined) => (field === undefined ? '' : (texts.get(field)?.[0] ?? ''));
  const several = recipients === undefined ? undefined : texts.get(recipients);
  const about = { messageId: text(message), channel: text(channel) };
  return (several ?? [text(recipient)]).map((recipientId) => ({ ...about, recipientId }));
}

/** The length-delimited values of each field of a protobuf message, as texts. */
function textsOf(value: Buffer): Map<number, string[]> {
  const texts = new Map<number, string[]>();
  let at = 0;
  const varint = () => {
    let result = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = value[at++];
      if (byte === undefined) throw new Error('no protobuf message');
      result += (byte & 0x7f) * factor;
      if (byte < 0x80) return result;
    }
  };
  while (at < value.length) {
    const tag = varint();
    const [field, wire] = [Math.floor(tag / 8), tag % 8];
    if (wire === 0) varint();
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else {
      const length = varint();
      texts.set(field, [...(texts.get(field) ?? []), value.toString('utf8', at, at + length)]);
      at += length;
    }
  }
  return texts;
}
