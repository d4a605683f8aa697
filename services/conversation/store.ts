import { v7 as orderedUuid } from 'uuid';
import { hubDate } from '#lib/clock.ts';
import { columns as byColumn, type Database } from '#lib/database.ts';
import { addToOutbox } from '#lib/database-outbox.ts';
import { conversationNotFound, type Activity, type ConversationKind } from './conversation.ts';
import { createdEvent, joinedEvent, leftEvent, type Addition } from './wire.ts';

export interface Conversation {
  /** UUID. */
  id: string;
  type: ConversationKind;
  name: string;
  description: string;
  createdAt: Date;
  /** User ids of the active members, in the order in which they were named. */
  memberIds: string[];
}

export type Store = ReturnType<typeof openStore>;

const activeMembers = `
  array(select m.user_id from members m where m.conversation_id = c.id and m.status = 'active'
      order by m.position, m.joined_at) as "memberIds"`;
const columns = `c.id, c.type, c.name, c.description, c.created_at as "createdAt", ${activeMembers}`;

/** The queries of the conversation service. */
export function openStore(db: Database) {
  return {
    /** Keeps a new conversation, with the event that tells of it. */
    async createConversation(wanted: Omit<Conversation, 'id' | 'createdAt'>, requestId: string): Promise<Conversation> {
      const createdAt = hubDate();
      // Ids in the order of creation are what settles the order of conversations of the same millisecond.
      const conversation = { ...wanted, id: orderedUuid(), createdAt };
      const { id, type, name, description, memberIds } = conversation;
      const members = memberIds.map((userId, position) => ({ userId, position }));
      await db.transaction(async (transaction) => {
        void transaction.sql(
          `insert into conversations (id, type, name, description, created_at, last_activity_at)
            values ($1, $2, $3, $4, $5, $5)`,
          [id, type, name, description, createdAt],
        );
        void transaction.sql(
          `insert into members (conversation_id, user_id, position, status, joined_at)
            select $1, user_id, position, 'active', $2 from unnest($3::uuid[], $4::smallint[]) as given (user_id, position)`,
          [id, createdAt, ...byColumn(members, ['userId', 'position'])],
        );
        addToOutbox(transaction, [createdEvent(conversation, requestId)]);
      });
      return conversation;
    },

    async findConversation(id: string): Promise<Conversation | undefined> {
      const [found] = await this.findConversations([id]);
      return found;
    },

    /** Several conversations: those that there are. */
    async findConversations(ids: readonly string[]): Promise<Conversation[]> {
      return db.sql<Conversation>(`select ${columns} from conversations c where c.id = any($1::uuid[])`, [ids]);
    },

    /** The ids of the active members, or undefined if there is no such conversation. */
    async findMembership(id: string): Promise<string[] | undefined> {
      const [found] = await this.findMemberships([id]);
      return found?.memberIds;
    },

    /** The active members of several conversations: of those that there are. */
    async findMemberships(ids: readonly string[]): Promise<{ id: string; memberIds: string[] }[]> {
      return db.sql<{ id: string; memberIds: string[] }>(
        `select c.id, ${activeMembers} from conversations c where c.id = any($1::uuid[])`,
        [ids],
      );
    },

    /** The ids of those of the conversations in which somebody is active. */
    async filterMemberships(userId: string, conversationIds: readonly string[]): Promise<string[]> {
      const rows = await db.sql<{ id: string }>(
        `select conversation_id as id from members
          where user_id = $1 and status = 'active' and conversation_id = any($2::uuid[])`,
        [userId, conversationIds],
      );
      return rows.map(({ id }) => id);
    },

    /** A page of the conversations in which `userId` is active, newest activity first, and how many there are in all. */
    async listConversations(
      userId: string,
      { limit, offset }: { limit: number; offset: number },
    ): Promise<[Conversation[], number]> {
      const [conversations, [row]] = await Promise.all([
        db.sql<Conversation>(
          `select ${columns} from conversations c
             join members mine on mine.conversation_id = c.id and mine.user_id = $1 and mine.status = 'active'
            order by c.last_activity_at desc, c.id desc limit $2 offset $3`,
          [userId, limit, offset],
        ),
        db.sql<{ total: bigint }>(`select count(*) as total from members where user_id = $1 and status = 'active'`, [
          userId,
        ]),
      ]);
      return [conversations, Number(row?.total)];
    },

    /**
     * Adds a member, or has one come back who had left, with the event that tells of it. Nothing changes for one who is there already.
     *
     * @param require is shown the conversation, which is locked, and throws if nobody can be added to it
     * @throws HubError NOT_FOUND `CONVERSATION_NOT_FOUND`, or what `require` throws
     */
    async addMember(
      id: string,
      addition: Addition,
      require: (conversation: Conversation) => void,
      requestId: string,
    ): Promise<Conversation> {
      const { userId } = addition;
      return db.transaction(async (transaction) => {
        await transaction.sql('select 1 from conversations where id = $1 for update', [id]);
        const [found] = await transaction.sql<Conversation>(`select ${columns} from conversations c where c.id = $1`, [
          id,
        ]);
        if (found === undefined) throw conversationNotFound();
        require({ ...found, memberIds: found.memberIds.filter((memberId) => memberId !== userId) });
        if (found.memberIds.includes(userId)) return found;
        const at = hubDate();
        void transaction.sql(
          `insert into members as m (conversation_id, user_id, position, status, joined_at)
            select $1, $2, least(32767, max(position) + 1), 'active', $3 from members where conversation_id = $1
            on conflict (conversation_id, user_id) do update
              set status = 'active', joined_at = excluded.joined_at, left_at = null, position = excluded.position`,
          [id, userId, at],
        );
        addToOutbox(transaction, [joinedEvent(id, { ...addition, at }, requestId)]);
        return { ...found, memberIds: [...found.memberIds, userId] };
      });
    },

    /** @returns false if `userId` was no active member */
    async leaveConversation(id: string, userId: string, requestId: string): Promise<boolean> {
      return db.transaction(async (transaction) => {
        const at = hubDate();
        // The conversation is locked first, as by who adds members: so events have the order of what they tell.
        void transaction.sql('select 1 from conversations where id = $1 for update', [id]);
        const left = await transaction.sql(
          `update members set status = 'left', left_at = $3
            where conversation_id = $1 and user_id = $2 and status = 'active' returning 1`,
          [id, userId, at],
        );
        if (left.length === 0) return false;
        addToOutbox(transaction, [leftEvent(id, { userId, at }, requestId)]);
        return true;
      });
    },

    /** Moves the last activity of conversations forward, never back: doing it again changes nothing. */
    async recordActivity(activities: readonly Activity[]): Promise<void> {
      if (activities.length === 0) return;
      await db.sql(
        `update conversations c set last_activity_at = latest.at
           from unnest($1::uuid[], $2::timestamptz[]) as latest (id, at)
          where c.id = latest.id and c.last_activity_at < latest.at`,
        [activities.map(({ conversationId }) => conversationId), activities.map(({ at }) => at)],
      );
    },
  };
}
