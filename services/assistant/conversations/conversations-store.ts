import type { Database, SqlTransaction } from '#lib/database.ts';
import {
  conversationNotFound,
  type FinishReason,
  type MessageStatus,
  type Role,
  type Step,
  type StoredError,
} from './conversation.ts';

export interface Conversation {
  id: bigint;
  title: string;
  createdAt: Date;
  updatedAt: Date;
  messageCount: number;
}

/** A message of a conversation. */
export interface Message {
  id: bigint;
  conversationId: bigint;
  /** The number of the user whose conversation it is. */
  numId: bigint;
  role: Role;
  content: string;
  status: MessageStatus;
  createdAt: Date;
  steps: readonly Step[];
  model: string | undefined;
  usage: { inputTokens: number; outputTokens: number } | undefined;
  finishReason: FinishReason | undefined;
  error: StoredError | undefined;
}

/** A message, and the answers that it has taken the place of, the oldest first. */
export interface MessageWithSiblings extends Message {
  siblings: readonly Message[];
}

/** What was said before: a message of the user, and the answer to it. */
export interface Exchange {
  question: string;
  steps: readonly Step[];
}

export type Conversations = ReturnType<typeof openConversations>;

interface ConversationRow {
  id: bigint;
  title: string;
  message_count: number;
  created_at: Date;
  updated_at: Date;
}

/** A row of `messages`. */
export interface MessageRow {
  id: bigint;
  conversation_id: bigint;
  num_id: bigint;
  role: Role;
  content: string;
  status: MessageStatus;
  created_at: Date;
  reply_to: bigint | null;
  replaced_by: bigint | null;
  steps: readonly Step[] | null;
  model: string | null;
  input_tokens: number | null;
  output_tokens: number | null;
  finish_reason: FinishReason | null;
  error: StoredError | null;
}

const conversationColumns = 'id, title, message_count, created_at, updated_at';

/** The columns of a `MessageRow`, of `messages m` and `conversations c`. */
export const messageColumns = `m.id, m.conversation_id, c.num_id, m.role, m.content, m.status, m.created_at, m.reply_to, m.replaced_by,
  m.steps, m.model, m.input_tokens, m.output_tokens, m.finish_reason, m.error`;

function storedConversation(row: ConversationRow): Conversation {
  return {
    id: row.id,
    title: row.title,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    messageCount: row.message_count,
  };
}

export function storedMessage(row: MessageRow): Message {
  const { input_tokens: inputTokens, output_tokens: outputTokens } = row;
  return {
    id: row.id,
    conversationId: row.conversation_id,
    numId: row.num_id,
    role: row.role,
    content: row.content,
    status: row.status,
    createdAt: row.created_at,
    steps: row.steps ?? [],
    model: row.model ?? undefined,
    usage: inputTokens === null || outputTokens === null ? undefined : { inputTokens, outputTokens },
    finishReason: row.finish_reason ?? undefined,
    error: row.error ?? undefined,
  };
}

/** Messages that are read at once. */
const pageSize = 500;
/** Exchanges that are read at once. */
const exchangesAtOnce = 30;

/** The conversations of users with the assistant. What is someone else's is not there. */
export function openConversations(db: Database) {
  async function find(sql: SqlTransaction, id: bigint, userId: string): Promise<Conversation> {
    const [row] = await sql.sql<ConversationRow>(
      `select ${conversationColumns} from conversations where id = $1 and user_id = $2`,
      [id, userId],
    );
    if (row === undefined) throw conversationNotFound();
    return storedConversation(row);
  }

  return {
    /** @throws HubError NOT_FOUND `CONVERSATION_NOT_FOUND` */
    find: (id: bigint, userId: string) => find(db, id, userId),

    /** Those with the newest activity first, and how many there are in all. */
    async list(
      userId: string,
      { limit, offset }: { limit: number; offset: number },
    ): Promise<[Conversation[], bigint]> {
      const [rows, [count]] = await Promise.all([
        db.sql<ConversationRow>(
          `select ${conversationColumns} from conversations where user_id = $1
           order by updated_at desc, id desc limit $2 offset $3`,
          [userId, limit, offset],
        ),
        db.sql<{ total: bigint }>('select count(*) as total from conversations where user_id = $1', [userId]),
      ]);
      return [rows.map(storedConversation), count!.total];
    },

    /** @throws HubError NOT_FOUND `CONVERSATION_NOT_FOUND` */
    async rename(id: bigint, userId: string, title: string): Promise<Conversation> {
      const [row] = await db.sql<ConversationRow>(
        `update conversations set title = $3 where id = $1 and user_id = $2 returning ${conversationColumns}`,
        [id, userId, title],
      );
      if (row === undefined) throw conversationNotFound();
      return storedConversation(row);
    },

    /** @throws HubError NOT_FOUND `CONVERSATION_NOT_FOUND` */
    async remove(id: bigint, userId: string): Promise<void> {
      const rows = await db.sql('delete from conversations where id = $1 and user_id = $2 returning id', [id, userId]);
      if (rows.length === 0) throw conversationNotFound();
    },

    /**
     * The messages of a conversation in pages, the oldest first: all, or the newest `limit`, of those before `beforeId` if it is given.
     */
    async *history(
      id: bigint,
      { limit, beforeId }: { limit: number | undefined; beforeId: bigint | undefined },
    ): AsyncGenerator<MessageWithSiblings[]> {
      let after = 0n;
      if (limit !== undefined) {
        const [first] = await db.sql<{ id: bigint }>(
          `select id from messages where conversation_id = $1 and replaced_by is null and id < $2
           order by id desc offset $3 limit 1`,
          [id, beforeId ?? lastId, limit],
        );
        after = first?.id ?? 0n;
      }
      for (;;) {
        const rows = await db.sql<MessageRow>(
          `select ${messageColumns} from messages m join conversations c on c.id = m.conversation_id
           where m.conversation_id = $1 and m.replaced_by is null and m.id > $2 and m.id < $3 order by m.id limit ${pageSize}`,
          [id, after, beforeId ?? lastId],
        );
        if (rows.length > 0) {
          const replaced = await db.sql<MessageRow>(
            `select ${messageColumns} from messages m join conversations c on c.id = m.conversation_id
             where m.replaced_by = any ($1) order by m.id`,
            [rows.map((row) => row.id)],
          );
          const siblings = Map.groupBy(replaced, (row) => row.replaced_by);
          yield rows.map((row) => ({
            ...storedMessage(row),
            siblings: (siblings.get(row.id) ?? []).map(storedMessage),
          }));
        }
        if (rows.length < pageSize) return;
        after = rows.at(-1)!.id;
      }
    },

    /** What was said before a message of the user, the newest first. */
    async *exchangesBefore(id: bigint, questionId: bigint): AsyncGenerator<Exchange> {
      let before = lastId;
      for (;;) {
        const rows = await db.sql<{ id: bigint; question: string; steps: readonly Step[] | null }>(
          `select a.id, q.content as question, a.steps
           from messages a join messages q on q.id = a.reply_to
           where a.conversation_id = $1 and a.replaced_by is null and a.reply_to < $2 and a.id < $3
           order by a.id desc limit ${exchangesAtOnce}`,
          [id, questionId, before],
        );
        for (const { question, steps } of rows) yield { question, steps: steps ?? [] };
        if (rows.length < exchangesAtOnce) return;
        before = rows.at(-1)!.id;
      }
    },
  };
}

const lastId = 2n ** 63n - 1n;
