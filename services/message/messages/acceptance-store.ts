import { columns, type Database } from '#lib/database.ts';
import { HubError, isTransient } from '#lib/errors.ts';
import { backoffMs } from '#lib/backoff.ts';
import { pauseFor } from '#lib/retry.ts';
import { Rounds } from '#lib/rounds.ts';
import type { StoredMessage } from './store.ts';
import { acceptedEventOf } from './wire.ts';

/** A message to be stored. */
export interface NewMessage extends Omit<StoredMessage, 'seq' | 'status' | 'updatedAt' | 'replay'> {
  fingerprint: Buffer;
  /** When deliveries that are still open fail. */
  expiresAt: Date;
  requestId: string;
}

/** A message with its event for the bus. */
interface Kept extends NewMessage {
  event: Buffer;
}

/** The limits of one insert: messages, and bytes of their events. The text of a message is written once more beside its event. */
const maxMessagesInRound = 200;
const maxBytesInRound = 1024 * 1024;
/** So that one round can be written while another one is committed. */
const concurrentRounds = 2;
/**
 * A conversation that another round or process is writing to is left out of a round, so that no other conversation waits for it. Its
 * messages are tried again with later rounds, with pauses, until they time out.
 */
const busy = { backoff: { firstMs: 3, maxMs: 60, jitter: 2 / 3 }, giveUp: 2_000 };
/** How long a statement waits for locks: on a new conversation, or on a message with the same id. */
const maxLockMs = 1_000;

type Outcome = 'new' | 'known' | 'busy';

/** Stores accepted messages: those that come at the same time with one statement, and so with one commit. */
export function openAcceptance(database: Database) {
  const rounds = new Rounds<Kept, Outcome>((messages) => insert(database, messages), {
    name: 'message.accepted',
    items: maxMessagesInRound,
    size: { of: ({ event }) => event.length, max: maxBytesInRound },
    atOnce: concurrentRounds,
    mayBeOfOneItem: (error) => !isTransient(error),
  });

  /**
   * Whether this message was accepted before.
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
        // Two processes got calls with the same new id: the second insert waited for the first, and now finds its message.
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
     * Stores a message, with its position in the conversation and its event for the bus, in one transaction, which is committed when this
     * returns. An existing message is left as it is.
     *
     * @returns whether it is new
     * @throws HubError ALREADY_EXISTS `MESSAGE_ID_REUSED` if the id belongs to a message with another fingerprint; UNAVAILABLE
     *   `CONVERSATION_BUSY` if others were writing to the conversation for 2 s
     */
    async append(message: NewMessage): Promise<boolean> {
      const event = acceptedEventOf({ ...message, replay: 0 });
      const outcome = await keep({ ...message, event });
      if (outcome === 'new') return true;
      if (await accepted(message.messageId, message.fingerprint)) return false;
      throw new HubError('ABORTED', 'MESSAGE_ID_IN_USE', 'The message_id is being used by another call: try again');
    },
  };
}

/** @returns the outcome of each message; one is `known` if its id exists already, or occurs earlier among them */
async function insert(database: Database, messages: readonly Kept[]): Promise<Outcome[]> {
  const firsts = new Map(messages.toReversed().map((message) => [message.messageId, message]));
  const rows = messages
    .filter((message) => firsts.get(message.messageId) === message)
    .map((message, index) => ({
      ...message,
      place: index,
      // PostgreSQL has no arrays of arrays of different lengths.
      recipients: message.recipientIds.join(),
      networks: message.channels.join(),
      type: message.content.type,
      text: message.content.type === 'text' ? message.content.text : null,
      fileId: message.content.type === 'file' ? message.content.fileId : null,
      label: message.content.label === undefined ? null : JSON.stringify(message.content.label),
    }));
  // The rows of `conversation_heads` stay locked until the end of the statement's transaction. That makes positions gapless, and outbox
  // rows with greater ids come later in their conversation, on which the relay relies. Locked heads are skipped; new ones are inserted in
  // the order of their conversations, so that concurrent rounds don't deadlock.
  const fresh = await database.sql<{ message_id: string; placed: boolean }>(
    `with limits as materialized (
      select set_config('lock_timeout', '${maxLockMs}', true)
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
