import { hubDate, hubTime } from '#lib/clock.ts';
import type { Database } from '#lib/database.ts';

/** A message of JSON-RPC 2.0, as it is kept. Its other members are read only where MCP is spoken. */
export interface StoredMessage {
  jsonrpc: '2.0';
  [member: string]: unknown;
}

export interface McpSession {
  id: string;
  initialize: StoredMessage;
}

/** An event of a stream, as it is kept for clients that come back. */
export interface McpEvent {
  id: bigint;
  /** Null where the stream begins. */
  message: StoredMessage | null;
  /** Whether the stream ends with it. */
  isLast: boolean;
}

export type McpSessions = ReturnType<typeof openMcpSessions>;

export const sessionLimits = {
  /** Maximum sessions of a user; one more ends the least recently used. */
  perUser: 100,
  /** An unused session ends after this, in milliseconds. */
  idle: 24 * 3_600_000,
  /** Milliseconds that events and replies are kept. */
  kept: 3_600_000,
  /** The use of a session is recorded at most this often, in milliseconds. */
  noted: 60_000,
  /** Events of a stream that are read at once. */
  page: 100,
} as const;

/** The sessions of the 2025 protocol, with what any process needs to go on with them. */
export function openMcpSessions(db: Database) {
  return {
    async begin(session: { id: string; userId: string; server: string; initialize: StoredMessage }): Promise<void> {
      await db.transaction(async (transaction) => {
        await transaction.sql(
          `insert into mcp_sessions (id, user_id, server, initialize, created_at, used_at) values ($1, $2, $3, $4, $5, $5)`,
          [session.id, session.userId, session.server, JSON.stringify(session.initialize), hubDate()],
        );
        await transaction.sql(
          `delete from mcp_sessions where id in (
             select id from mcp_sessions where user_id = $1 and id <> $2 order by used_at desc offset ${sessionLimits.perUser - 1})`,
          [session.userId, session.id],
        );
      });
    },

    /** A session, if it is the user's own at this server. */
    async find(id: string, userId: string, server: string): Promise<McpSession | undefined> {
      const [found] = await db.sql<McpSession & { usedAt: Date }>(
        `select id, initialize, used_at as "usedAt" from mcp_sessions where id = $1 and user_id = $2 and server = $3`,
        [id, userId, server],
      );
      if (found !== undefined && hubTime() - found.usedAt.getTime() > sessionLimits.noted) {
        await db.sql('update mcp_sessions set used_at = $2 where id = $1', [id, hubDate()]);
      }
      return found;
    },

    async end(id: string): Promise<void> {
      await db.sql('delete from mcp_sessions where id = $1', [id]);
    },

    /** @returns the id of the event, or undefined if the session has ended */
    async append(event: {
      sessionId: string;
      streamId: string;
      message: StoredMessage | null;
      isLast: boolean;
    }): Promise<bigint | undefined> {
      const [added] = await db.sql<{ id: bigint }>(
        `insert into mcp_events (session_id, stream_id, message, is_last, created_at)
         select id, $2, $3, $4, $5 from mcp_sessions where id = $1 returning id`,
        [
          event.sessionId,
          event.streamId,
          event.message === null ? null : JSON.stringify(event.message),
          event.isLast,
          hubDate(),
        ],
      );
      return added?.id;
    },

    /** The stream of an event, and when that event was; undefined if the session has no such event any more. */
    async streamOf(sessionId: string, eventId: bigint): Promise<{ streamId: string; createdAt: Date } | undefined> {
      const [found] = await db.sql<{ streamId: string; createdAt: Date }>(
        `select stream_id as "streamId", created_at as "createdAt" from mcp_events where session_id = $1 and id = $2`,
        [sessionId, eventId],
      );
      return found;
    },

    /** Events of a stream behind one of them, in their order. */
    async eventsAfter(sessionId: string, streamId: string, eventId: bigint): Promise<McpEvent[]> {
      return db.sql<McpEvent>(
        `select id, message, is_last as "isLast" from mcp_events
          where session_id = $1 and stream_id = $2 and id > $3 order by id limit ${sessionLimits.page}`,
        [sessionId, streamId, eventId],
      );
    },

    /** Stores a message of the client for the process that has its request in flight. */
    async leave(sessionId: string, message: StoredMessage): Promise<void> {
      await db.sql(
        `insert into mcp_replies (session_id, message, created_at)
         select id, $2, $3 from mcp_sessions where id = $1`,
        [sessionId, JSON.stringify(message), hubDate()],
      );
    },

    /** Messages that clients have left in these sessions since a moment. */
    async repliesSince(
      sessionIds: readonly string[],
      moment: Date,
    ): Promise<{ sessionId: string; message: StoredMessage }[]> {
      return db.sql(
        `select session_id as "sessionId", message from mcp_replies
          where session_id = any($1::uuid[]) and created_at >= $2 order by id limit 1000`,
        [sessionIds, moment],
      );
    },

    /** Ends sessions that nobody uses, and forgets what is kept no longer. */
    async sweep(now = hubDate()): Promise<void> {
      const before = (age: number) => new Date(now.getTime() - age);
      await db.sql('delete from mcp_sessions where used_at < $1', [before(sessionLimits.idle)]);
      await db.sql('delete from mcp_events where created_at < $1', [before(sessionLimits.kept)]);
      await db.sql('delete from mcp_replies where created_at < $1', [before(sessionLimits.kept)]);
    },
  };
}
