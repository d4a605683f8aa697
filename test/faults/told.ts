import { createHash } from 'node:crypto';

/** A message of a stream of events as JSON: what has happened stands under its name, such as `message_accepted`. */
export interface EventJson {
  cursor: string;
  event_id: string;
  [name: string]: unknown;
}

/** An event as somebody was told it, or what was said about the stream itself. */
export interface Told {
  /** The name of what has happened; or `opened`, where another stream or another page begins. */
  type: string;
  /** Behind which place of the log one goes on. Of `opened`, what the hub said at its beginning. */
  cursor: string;
  /** Empty where it is about the stream. */
  eventId: string;
  /** Of all that was said but the cursor. Of `opened`, the cursor that was asked for. */
  digest: string;
}

const aroundEvents: ReadonlySet<string> = new Set(['cursor', 'event_id', 'at']);

/** The name of what has happened. */
export function typeOf(json: EventJson): string {
  return Object.keys(json).find((name) => !aroundEvents.has(name) && json[name] !== undefined) ?? '';
}

export function opened(asked: string, cursor: string): Told {
  return { type: 'opened', cursor, eventId: '', digest: asked };
}

/** Remembers what was told, so that the same event takes memory once, however many are told it. */
export function openMemory(): (json: EventJson) => Told {
  const known = new Map<string, Told>();
  return (json) => {
    const { cursor, event_id: eventId, ...rest } = json;
    const digest = createHash('sha256').update(JSON.stringify(rest)).digest('base64').slice(0, 16);
    const before = known.get(eventId);
    if (before?.cursor === cursor && before.digest === digest) return before;
    const told = { type: typeOf(json), cursor, eventId, digest };
    known.set(eventId, told);
    return told;
  };
}

/** A place in a log, behind the event that has this id there. */
export interface Place {
  /** Of which log. */
  epoch: number;
  position: number;
}

/** What a cursor says, read without the code of the services. */
export function placeOf(cursor: string): Place {
  const bytes = Buffer.from(cursor, 'base64url');
  return bytes.length === 10
    ? { epoch: bytes.readUInt32BE(0), position: bytes.readUIntBE(4, 6) }
    : { epoch: -1, position: -1 };
}

export function cursorAt({ epoch, position }: Place): string {
  const bytes = Buffer.alloc(10);
  bytes.writeUInt32BE(epoch, 0);
  bytes.writeUIntBE(position, 4, 6);
  return bytes.toString('base64url');
}
