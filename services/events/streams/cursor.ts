import { HubError } from '#lib/errors.ts';

/** A place in the log, behind an event. */
export interface Cursor {
  /** Of which log. */
  epoch: number;
  /** The id of the last event that was told. */
  position: number;
}

const bytes = 4 + 6;

/** The cursor as clients keep it: base64url of the epoch (4 bytes) and the position (6 bytes). */
export function cursorText({ epoch, position }: Cursor): string {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUInt32BE(epoch);
  buffer.writeUIntBE(position, 4, 6);
  return buffer.toString('base64url');
}

/** @throws HubError INVALID_ARGUMENT `CURSOR_INVALID` */
export function readCursor(text: string): Cursor {
  const buffer = Buffer.from(text, 'base64url');
  // A cursor has one spelling.
  if (buffer.length !== bytes || buffer.toString('base64url') !== text) {
    throw new HubError('INVALID_ARGUMENT', 'CURSOR_INVALID', 'The cursor is none that this hub has given');
  }
  return { epoch: buffer.readUInt32BE(), position: buffer.readUIntBE(4, 6) };
}

/** Why events behind a cursor can't be told. */
export type ResetReason = 'expired' | 'epoch changed' | 'future';

/** Whether all events behind a cursor can be told; why not, if not. */
export function whyReset(
  { epoch, position }: Cursor,
  head: { epoch: number; lastId: number; removedTo: number },
): ResetReason | undefined {
  if (epoch !== head.epoch) return 'epoch changed';
  if (position > head.lastId) return 'future';
  if (position < head.removedTo) return 'expired';
  return undefined;
}
