import { fromBinary, ScalarType, toJson, type DescEnum, type DescField, type DescMessage } from '@bufbuild/protobuf';
import { reflect, type ReflectMessage } from '@bufbuild/protobuf/reflect';
import { StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import { registry } from '#lib/rpc/schema.ts';
import { encode } from '#lib/encode.ts';

/** An event as a webhook is sent it. */
export interface Payload {
  /** Its UUID: the header `webhook-id`. */
  eventId: string;
  /** Such as `message.accepted`. */
  type: string;
  /** JSON. */
  body: string;
}

const responseType = registry.getMessage('chat4all.events.v1.StreamEventsResponse') as DescMessage;

/** The event of a StreamEventsResponse. `data` is what `GET /v1/events` has for it. */
export function payloadOf(event: StreamEventsResponse): Payload {
  const message = reflect(responseType, fromBinary(responseType, encode(StreamEventsResponse, event)));
  const [kind] = responseType.oneofs.map((oneof) => message.oneofCase(oneof));
  return payload(event.eventId, (kind?.name ?? 'unknown').replace('_', '.'), event.at ?? new Date(0), jsonOf(message));
}

/** What a webhook is sent to try it. */
export function pingPayload(eventId: string, at: Date): Payload {
  return payload(eventId, 'ping', at, {});
}

function payload(eventId: string, type: string, at: Date, data: unknown): Payload {
  return { eventId, type, body: JSON.stringify({ type, timestamp: at.toISOString(), data }) };
}

/** Types that proto3 JSON has a form of its own for. */
const wellKnown = /^google\.protobuf\.(Timestamp|Duration|FieldMask|Struct|ListValue|Value|Any|\w+Value)$/;

/**
 * A message in the hub's form of JSON, as the gateway writes it: fields with their proto names, all of them there, null where they are
 * unset; of a oneof only the one that is set; enums by short names in lower case; 64-bit numbers as numbers.
 */
function jsonOf(message: ReflectMessage): unknown {
  if (wellKnown.test(message.desc.typeName)) return toJson(message.desc, message.message, { registry });
  const json: Record<string, unknown> = {};
  for (const field of message.desc.fields) {
    if (field.oneof !== undefined && field.oneof.fields.length > 1 && !message.isSet(field)) continue;
    json[field.name] = fieldJson(message, field);
  }
  return json;
}

function fieldJson(message: ReflectMessage, field: DescField): unknown {
  switch (field.fieldKind) {
    case 'list':
      return [...message.get(field)].map((item) => {
        if (field.listKind === 'enum') return enumJson(field.enum, item as number);
        return field.listKind === 'message' ? jsonOf(item as ReflectMessage) : scalarJson(field.scalar, item);
      });
    case 'map':
      return Object.fromEntries(
        [...message.get(field)].map(([key, item]) => {
          if (field.mapKind === 'enum') return [String(key), enumJson(field.enum, item as number)];
          const value = field.mapKind === 'message' ? jsonOf(item as ReflectMessage) : scalarJson(field.scalar, item);
          return [String(key), value];
        }),
      );
    case 'message':
      return message.isSet(field) ? jsonOf(message.get(field)) : null;
    case 'enum':
      return enumJson(field.enum, message.get(field));
    case 'scalar':
      // One that is `optional` and unset.
      if (field.oneof !== undefined || field.proto.proto3Optional) {
        if (!message.isSet(field)) return null;
      }
      return scalarJson(field.scalar, message.get(field));
  }
}

function enumJson(desc: DescEnum, number: number): unknown {
  const value = desc.value[number];
  if (value === undefined) return number;
  if (number === 0 && /(^|_)UNSPECIFIED$/.test(value.name)) return null;
  return value.name.slice(desc.sharedPrefix?.length ?? 0).toLowerCase();
}

function scalarJson(scalar: ScalarType, value: unknown): unknown {
  // Positions and sizes are far below what a double holds.
  if (typeof value === 'bigint') return Number(value);
  return scalar === ScalarType.BYTES ? Buffer.from(value as Uint8Array).toString('base64') : value;
}
