import { columns, type Database } from '#lib/database.ts';
import { HubError, isTransient } from '#lib/errors.ts';
import { backoffMs } from '#lib/backoff.ts';
import { pauseFor } from '#lib/retry.ts';
import { Rounds } from '#lib/rounds.ts';
import type { StoredMessage } from './store.ts';
import { acceptedEventOf } from './wire.ts';

/** A message to be kept. */
export interface NewMessage extends Omit<StoredMessage, 'seq' | 'status' | 'updatedAt' | 'replay'> {
  fingerprint: Buffer;
  /** When what is still open is failed. */
  expiresAt: Date;
  requestId: string;
}

/** A message, and the event that tells the bus of it. */
interface Kept extends NewMessage {
  event: Buffer;
}

/** One statement keeps so many messages at most, with events of so many bytes. Beside its event a message has its text once more. */
const mostInRound = 200;
const mostBytesInRound = 1024 * 1024;
/** While one round is committed another one is written. */
const roundsAtOnce = 2;
/**
 * A conversation that another round, or another process, is just writing to is left out of a round, so that nobody else waits for it. Its
 * messages come again with a later round: after a pause, until they give up.
 */
const busy = { backoff: { firstMs: 3, maxMs: 60, jitter: 2 / 3 }, giveUp: 2_000 };
/** Milliseconds that a statement waits for the lock of another one at most: on a new conversation, or on the id of the same message. */
const longestLock = 1_000;

type Outcome = 'new' | 'known' | 'busy';

/** What is kept of messages that are accepted: those that come at the same time in one statement, and so by one commit. */
export function openAcceptance(database: Database) {
  const rounds = new Rounds<Kept, Outcome>((messages) => insert(database, messages), {
    items: mostInRound,
    size: { of: ({ event }) => event.length, max: mostBytesInRound },
    atOnce: roundsAtOnce,
    mayBeOfOneItem: (error) => !isTransient(error),
  });

  /**
   * Whether this very message was accepted before.
   *
   * @throws HubError ALREADY_EXISTS `MESSAGE_ID_REUSED` if the id belongs to a message with another fingerprint
   */
  async function accepted(messageId: string, fingerprint: Buffer): Promise<boolean> {
    const [found] = await database.sql<{ fingerprint: Buffer }>(
      'select fingerprint from messages where message_id = $1',
      [messageId],
    );
    if (found === undefined) return false;
    if (found.fingerprint.equals(fingerprint)) return true;
    throw new HubError('ALREADY_EXISTS', 'MESSAGE_ID_REUSED', 'The message_id was used for another message');
  }

  async function keep(message: Kept): Promise<Outcome> {
    const giveUp = performance.now() + busy.giveUp;
    for (let tries = 1; ; tries += 1) {
      const outcome = await rounds.do(message).catch((error: unknown): Outcome => {
        // Two calls with one new id at once, at two processes: the second one waited for the first, and finds its message.
        if (isUniqueViolation(error)) return 'known';
        throw error;
      });
      if (outcome !== 'busy') return outcome;
      if (performance.now() > giveUp) {
        const text = 'Too many write to the conversation at the moment: try again';
        throw new HubError('UNAVAILABLE', 'CONVERSATION_BUSY', text, { retryAfter: 1 });
      }
      await pauseFor(backoffMs(busy.backoff, tries));
    }
  }

  return {
    accepted,

    /**
     * Keeps a message, with its place in the conversation and its event for the bus: all of it or nothing. It is committed once this is
     * fulfilled. A message that is there already is left as it is.
     *
     * @returns whether it is new
     * @throws HubError ALREADY_EXISTS `MESSAGE_ID_REUSED` if the id belongs to a message with another fingerprint; UNAVAILABLE
     *   `CONVERSATION_BUSY` if others were writing to the conversation for 2 s
     */
    async append(message: NewMessage): Promise<boolean> {
      const event = Buffer.from(acceptedEventOf({ ...message, replay: 0 }));
      const outcome = await keep({ ...message, event });
      if (outcome === 'new') return true;
      if (await accepted(message.messageId, message.fingerprint)) return false;
      throw new HubError('ABORTED', 'MESSAGE_ID_IN_USE', 'The message_id is being used by another call: try again');
    },
  };
}

/** @returns what became of each message; one is known if there was one with its id already, or earlier among them */
async function insert(database: Database, messages: readonly Kept[]): Promise<Outcome[]> {
  const firsts = new Map(messages.toReversed().map((message) => [message.messageId, message]));
  const rows = messages
    .filter((message) => firsts.get(message.messageId) === message)
    .map((message, index) => ({
      ...message,
      place: index,
      // An array of arrays of different lengths is none to PostgreSQL.
      recipients: message.recipientIds.join(),
      networks: message.channels.join(),
      type: message.content.type,
      text: message.content.type === 'text' ? message.content.text : null,
      fileId: message.content.type === 'file' ? message.content.fileId : null,
      label: message.content.label === undefined ? null : JSON.stringify(message.content.label),
    }));
  // The rows of the heads stay locked until the end of the statement's transaction. That makes positions gapless, and rows of the
  // outbox with greater ids come later in their conversation: the relay relies on it. Heads that are locked are passed over; new ones
  // are made in the order of their conversations, so that two rounds at once wait for each other instead of blocking each other.
  const fresh = await database.sql<{ message_id: string; placed: boolean }>(
    `with limits as materialized (
      select set_config('lock_timeout', '${longestLock}', true)
    ), given as (
      select g.* from limits, unnest($1::int[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
          $10::uuid[], $11::jsonb[], $12::text[], $13::bytea[], $14::timestamptz[], $15::timestamptz[], $16::timestamptz[], $17::text[],
          $18::bytea[])
        as g (place, message_id, conversation_id, sender_id, sender_username, recipients, channels, payload_type, payload_text,
          payload_file_id, payload_label, priority, fingerprint, created_at, deliver_by, expires_at, request_id, event)
    ), fresh as (
      select g.*, row_number() over (partition by conversation_id order by place) as number,
          count(*) over (partition by conversation_id) as total
        from given g where not exists (select from messages m where m.message_id = g.message_id)
    ), free as (
      select conversation_id from conversation_heads where conversation_id in (select conversation_id from fresh)
        for update skip locked
    ), heads as (
      insert into conversation_heads as h (conversation_id, last_seq)
        select conversation_id, count(*) from fresh f
          where conversation_id in (select conversation_id from free)
            or not exists (select from conversation_heads made where made.conversation_id = f.conversation_id)
          group by conversation_id order by conversation_id
        on conflict (conversation_id) do update set last_seq = h.last_seq + excluded.last_seq
        returning conversation_id, last_seq
    ), placed as (
      select f.*, h.last_seq - f.total + f.number as seq from fresh f join heads h using (conversation_id)
    ), message as (
      insert into messages (message_id, conversation_id, seq, sender_id, sender_username, recipient_ids, channels,
          payload_type, payload_text, payload_file_id, payload_label, priority, status, fingerprint, created_at, updated_at, deliver_by,
          expires_at)
        select message_id, conversation_id, seq, sender_id, sender_username, string_to_array(recipients, ',')::uuid[],
          string_to_array(channels, ','), payload_type, payload_text, payload_file_id, payload_label, priority, 'accepted', fingerprint,
          created_at, created_at, deliver_by, expires_at from placed
    ), open as (
      insert into open_messages (expires_at, message_id) select expires_at, message_id from placed
    ), event as (
      insert into outbox (message_id, conversation_id, seq, event, request_id, created_at)
        select message_id, conversation_id, seq, event, request_id, now() from placed order by place
    )
    select message_id, h.conversation_id is not null as placed from fresh left join heads h using (conversation_id)`,
    columns(rows, [
      'place',
      'messageId',
      'conversationId',
      'senderId',
      'senderUsername',
      'recipients',
      'networks',
      'type',
      'text',
      'fileId',
      'label',
      'priority',
      'fingerprint',
      'createdAt',
      'deliverBy',
      'expiresAt',
      'requestId',
      'event',
    ]),
  );
  const placed = new Map(fresh.map((row) => [row.message_id, row.placed]));
  return messages.map((message) => {
    const isPlaced = placed.get(message.messageId);
    if (isPlaced === false) return 'busy';
    return isPlaced && firsts.get(message.messageId) === message ? 'new' : 'known';
  });
}

/** SQLSTATE 23505: a unique constraint refused the row. */
function isUniqueViolation(error: unknown): boolean {
  return (error as { code?: unknown }).code === '23505';
}
