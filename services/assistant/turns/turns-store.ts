import type { Database, SqlTransaction } from '#lib/database.ts';
import type { FinishReason, MessageStatus, StoredError } from '../conversations/conversation.ts';
import { messageColumns, storedMessage, type Message, type MessageRow } from '../conversations/conversations-store.ts';
import type { Progress } from './agent.ts';
import { deleteOldKeys } from './idempotency-keys-store.ts';
import { openTurnBeginnings, type TurnBeginningsOptions } from './turn-beginnings-store.ts';
import { eventsOf, insertEvents, openTurnEvents, type Reading, type StoredEvent } from './turn-events-store.ts';
import type { TurnState } from './turn.ts';

/** How a turn has ended. */
export interface Ending {
  messageId: bigint;
  owner: string;
  state: 'completed' | 'stopped' | 'failed';
  progress: Progress;
  content: string;
  model: string;
  finishReason: FinishReason | undefined;
  error: StoredError | undefined;
}

/** The state in the database of a turn that this process owns. */
export interface Renewal {
  messageId: bigint;
  isStopAsked: boolean;
}

export type TurnsStore = ReturnType<typeof openTurnsStore>;

const hour = 3_600_000;
const eventsKept = hour;
const approvalsKept = 24 * hour;
/** Rows that are cleaned up at once. */
const cleanedAtOnce = 500;
/**
 * How far the number of the event `error` of a lost turn lies above the last stored one: its process may have sent events to its
 * clients that it could not store any more, and no number is used twice.
 */
export const lostEventsGap = 1_000;

/** Turns in the database: which process owns them, their events, and how they end. All times are those of the database's clock. */
export function openTurnsStore(db: Database, options: TurnBeginningsOptions) {
  const leaseText = `${options.lease} milliseconds`;

  async function findMessage(sql: SqlTransaction, messageId: bigint): Promise<Message | undefined> {
    const [row] = await sql.sql<MessageRow>(
      `select ${messageColumns} from messages m join conversations c on c.id = m.conversation_id where m.id = $1`,
      [messageId],
    );
    return row === undefined ? undefined : storedMessage(row);
  }

  async function end(sql: SqlTransaction, ending: Ending, last: readonly StoredEvent[]): Promise<void> {
    const { messageId, progress } = ending;
    const status: MessageStatus = ending.state;
    await sql.sql(
      `update messages set status = $2, content = $3, steps = $4, model = $5, input_tokens = $6, output_tokens = $7,
         finish_reason = $8, error = $9
       where id = $1`,
      [
        messageId,
        status,
        ending.content,
        JSON.stringify(progress.steps),
        ending.model,
        progress.inputTokens,
        progress.outputTokens,
        ending.finishReason ?? null,
        ending.error === undefined ? null : JSON.stringify(ending.error),
      ],
    );
    await sql.sql(
      `update conversations set updated_at = now() where id = (select conversation_id from messages where id = $1)`,
      [messageId],
    );
    await insertEvents(sql, last);
  }

  return {
    ...openTurnBeginnings(db, options),
    ...openTurnEvents(db),

    /** Keeps how far a turn of this process has come. @returns whether it still is */
    async save(
      messageId: bigint,
      owner: string,
      { state, steps, inputTokens, outputTokens }: Progress,
    ): Promise<boolean> {
      const rows = await db.sql(
        `with own as (
           update turns set state = $3 where message_id = $1 and owner = $2 and ended_at is null returning message_id
         )
         update messages set steps = $4, input_tokens = $5, output_tokens = $6
         where id = (select message_id from own) returning id`,
        [messageId, owner, state, JSON.stringify(steps), inputTokens, outputTokens],
      );
      return rows.length > 0;
    },

    /** Lets a turn of this process wait for the user. Nobody owns it from then on. @returns whether it was this process's */
    async hold(
      messageId: bigint,
      owner: string,
      progress: Progress,
      activeMs: number,
      last: readonly StoredEvent[],
    ): Promise<boolean> {
      return db.transaction(async (sql) => {
        const rows = await sql.sql(
          `update turns set state = 'waiting', owner = null, lease_until = null, active_ms = $3
           where message_id = $1 and owner = $2 and ended_at is null returning message_id`,
          [messageId, owner, activeMs],
        );
        if (rows.length === 0) return false;
        await sql.sql('update messages set steps = $2, input_tokens = $3, output_tokens = $4 where id = $1', [
          messageId,
          JSON.stringify(progress.steps),
          progress.inputTokens,
          progress.outputTokens,
        ]);
        await insertEvents(sql, last);
        return true;
      });
    },

    /** Ends a turn of this process, with its last event. @returns whether it was this process's */
    async end(ending: Ending, last: StoredEvent): Promise<boolean> {
      return db.transaction(async (sql) => {
        const rows = await sql.sql(
          `update turns set state = $3, ended_at = now(), owner = null, lease_until = null
           where message_id = $1 and owner = $2 and ended_at is null returning message_id`,
          [ending.messageId, ending.owner, ending.state],
        );
        if (rows.length === 0) return false;
        await end(sql, ending, [last]);
        return true;
      });
    },

    /**
     * Ends a turn that nobody works on: one that waits, or one whose process has died.
     *
     * @param endingOf says how, of what is kept; it gets the number of the last event, and all of them
     * @returns whether there was something to end
     */
    async endUnowned(
      messageId: bigint,
      from: 'waiting' | 'lost',
      endingOf: (
        message: Message,
        events: Reading['events'],
      ) => { ending: Omit<Ending, 'messageId' | 'owner'>; last: StoredEvent },
    ): Promise<boolean> {
      return db.transaction(async (sql) => {
        const [turn] = await sql.sql(
          from === 'waiting'
            ? `select message_id from turns where message_id = $1 and state = 'waiting' for update skip locked`
            : `select message_id from turns
               where message_id = $1 and ended_at is null and lease_until < now() for update skip locked`,
          [messageId],
        );
        const message = turn === undefined ? undefined : await findMessage(sql, messageId);
        if (message === undefined) return false;
        const { ending, last } = endingOf(message, await eventsOf(sql, messageId));
        await sql.sql(
          `update turns set state = $2, ended_at = now(), owner = null, lease_until = null where message_id = $1`,
          [messageId, ending.state],
        );
        await end(sql, { ...ending, messageId, owner: '' }, [last]);
        return true;
      });
    },

    /** Says that this process still works on these turns. @returns those that are still its own */
    async renew(owner: string, messageIds: readonly bigint[]): Promise<Renewal[]> {
      const rows = await db.sql<{ message_id: bigint; is_stop_asked: boolean }>(
        `update turns set lease_until = now() + $3::interval
         where message_id = any ($1) and owner = $2 and ended_at is null returning message_id, is_stop_asked`,
        [messageIds, owner, leaseText],
      );
      return rows.map((row) => ({ messageId: row.message_id, isStopAsked: row.is_stop_asked }));
    },

    /** Asks the process that works on a turn to stop it. */
    async askStop(messageId: bigint): Promise<void> {
      await db.sql('update turns set is_stop_asked = true where message_id = $1 and ended_at is null', [messageId]);
    },

    /** Turns whose process has died. */
    async lost(): Promise<bigint[]> {
      const rows = await db.sql<{ message_id: bigint }>(
        `select message_id from turns where ended_at is null and lease_until < now() order by lease_until limit 50`,
      );
      return rows.map((row) => row.message_id);
    },

    /** Turns about which the user has not decided for a day. */
    async forgotten(): Promise<bigint[]> {
      const rows = await db.sql<{ message_id: bigint }>(
        `select message_id from turns
         where ended_at is null and state = 'waiting' and began_at < now() - $1::interval limit 50`,
        [`${approvalsKept} milliseconds`],
      );
      return rows.map((row) => row.message_id);
    },

    /** Forgets events and keys that are no longer of use. @returns whether there may be more */
    async clean(): Promise<boolean> {
      const [turns, keys] = await Promise.all([
        db.sql(
          `delete from turns where message_id in (
             select message_id from turns where ended_at < now() - $1::interval limit ${cleanedAtOnce}
           ) returning message_id`,
          [`${eventsKept} milliseconds`],
        ),
        deleteOldKeys(db, cleanedAtOnce),
      ]);
      return turns.length === cleanedAtOnce || keys === cleanedAtOnce;
    },

    /** The turn under way in a conversation, if there is one. */
    async findOpen(conversationId: bigint): Promise<{ messageId: bigint; state: TurnState } | undefined> {
      const [row] = await db.sql<{ message_id: bigint; state: TurnState }>(
        'select message_id, state from turns where conversation_id = $1 and ended_at is null',
        [conversationId],
      );
      return row === undefined ? undefined : { messageId: row.message_id, state: row.state };
    },

    /** The turn that has ended last in a conversation, as long as its events are kept. */
    async findEnded(conversationId: bigint): Promise<bigint | undefined> {
      const [row] = await db.sql<{ message_id: bigint }>(
        `select message_id from turns where message_id = (select max(id) from messages where conversation_id = $1)
           and ended_at is not null`,
        [conversationId],
      );
      return row?.message_id;
    },

    findMessage: (messageId: bigint) => findMessage(db, messageId),
  };
}
