import type { KafkaMessage } from 'kafkajs';
import type { BusEvent, DeadLetter, ReceivedEvent } from './bus.ts';

/** An event as a record of Kafka: its value and key as they are, the rest in headers. */
export function toMessage(event: BusEvent) {
  const headers: Record<string, string> = { id: event.id, type: event.type, request_id: event.requestId };
  if (event.traceparent !== undefined) headers['traceparent'] = event.traceparent;
  if (event.deadLetter !== undefined) headers['dead_letter'] = JSON.stringify(event.deadLetter);
  const { buffer, byteOffset, byteLength } = event.value;
  return { key: event.key, value: Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength), headers };
}

export function toEvent(topic: string, partition: number, message: KafkaMessage): ReceivedEvent {
  const header = (name: string) => message.headers?.[name]?.toString();
  const deadLetter = readDeadLetter(header('dead_letter'));
  const traceparent = header('traceparent');
  return {
    id: header('id') ?? '',
    type: header('type') ?? '',
    // What others publish may have no key, or a longer one than ours; it must still fit among the dead letters.
    key: message.key?.toString().slice(0, 255) || 'none',
    value: message.value ?? Buffer.alloc(0),
    requestId: header('request_id') ?? '',
    topic,
    partition,
    ...(traceparent === undefined ? {} : { traceparent }),
    ...(deadLetter === undefined ? {} : { deadLetter }),
  };
}

/** Undefined for what isn't ours: an event that can't be taken would hold its partition up for ever. */
function readDeadLetter(text: string | undefined): DeadLetter | undefined {
  try {
    return text === undefined ? undefined : (JSON.parse(text) as DeadLetter);
  } catch {
    return undefined;
  }
}

/** Bytes of a record in memory, about. */
export function sizeOf(message: KafkaMessage): number {
  return (message.value?.byteLength ?? 0) + 200;
}
