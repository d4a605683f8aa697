import { defineEntity, p } from '@mikro-orm/core';
import { v7 as orderedUuid } from 'uuid';
import { hubDate } from '#lib/clock.ts';
import type { Database } from '#lib/database.ts';
import type { DatabaseDefinition } from '#lib/database-definition.ts';
import type { Activity, ConversationKind } from './conversation.ts';

const ConversationEntity = defineEntity({
  name: 'Conversation',
  tableName: 'conversations',
  checks: [{ name: 'conversations_type_check', expression: `type in ('private', 'group')` }],
  properties: {
    id: p.uuid().primary(),
    type: p.text().$type<ConversationKind>(),
    name: p.text(),
    description: p.text(),
    createdAt: p.datetime(3),
    lastActivityAt: p.datetime(3),
  },
});

const MemberEntity = defineEntity({
  name: 'Member',
  tableName: 'members',
  checks: [{ name: 'members_status_check', expression: `status in ('active', 'left')` }],
  indexes: [
    { name: 'members_active_user_index', properties: ['userId', 'conversationId'], where: `status = 'active'` },
  ],
  properties: {
    conversationId: () =>
      p.manyToOne(ConversationEntity).fieldName('conversation_id').mapToPk().primary().deleteRule('cascade'),
    userId: p.uuid().primary(),
    position: p.smallint(),
    status: p.text().$type<'active' | 'left'>(),
    joinedAt: p.datetime(3),
    leftAt: p.datetime(3).nullable(),
  },
});

export const database: DatabaseDefinition = {
  schema: 'conversation',
  entities: [ConversationEntity, MemberEntity],
  migrations: [
    {
      name: '0001-conversations',
      load: async () => (await import('./migrations/0001-conversations.ts')).Conversations,
    },
  ],
};

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
  array(select m.user_id from members m where m.conversation_id = c.id and m.status = 'active' order by m.position)
    as "memberIds"`;
const columns = `c.id, c.type, c.name, c.description, c.created_at as "createdAt", ${activeMembers}`;

/** The queries of the conversation service. */
export function openStore(db: Database) {
  return {
    async createConversation(wanted: Omit<Conversation, 'id' | 'createdAt'>): Promise<Conversation> {
      const { memberIds, ...described } = wanted;
      const createdAt = hubDate();
      // Ids in the order of creation are what settles the order of conversations of the same millisecond.
      const id = orderedUuid();
      await db.entities((em) =>
        em.transactional(async (transaction) => {
          await transaction.insert(ConversationEntity, { ...described, id, createdAt, lastActivityAt: createdAt });
          await transaction.insertMany(
            MemberEntity,
            memberIds.map((userId, position) => ({
              conversationId: id,
              userId,
              position,
              status: 'active' as const,
              joinedAt: createdAt,
            })),
          );
        }),
      );
      return { ...wanted, id, createdAt };
    },

    async findConversation(id: string): Promise<Conversation | undefined> {
      const [found] = await db.sql<Conversation>(`select ${columns} from conversations c where c.id = $1`, [id]);
      return found;
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

    /** @returns false if `userId` was no active member */
    async leaveConversation(id: string, userId: string): Promise<boolean> {
      const rows = await db.sql(
        `update members set status = 'left', left_at = $3
          where conversation_id = $1 and user_id = $2 and status = 'active' returning 1`,
        [id, userId, hubDate()],
      );
      return rows.length > 0;
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
