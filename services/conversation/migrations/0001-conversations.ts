import { Migration } from '@mikro-orm/migrations';

export class Conversations extends Migration {
  override up(): void {
    this.addSql(`
      create table conversation.conversations (
        id uuid primary key,
        type text not null check (type in ('private', 'group')),
        name text not null,
        description text not null,
        created_at timestamptz(3) not null,
        last_activity_at timestamptz(3) not null
      )`);
    this.addSql(`
      create table conversation.members (
        conversation_id uuid not null constraint members_conversation_id_foreign references conversation.conversations on delete cascade,
        user_id uuid not null,
        position smallint not null,
        status text not null check (status in ('active', 'left')),
        joined_at timestamptz(3) not null,
        left_at timestamptz(3),
        primary key (conversation_id, user_id)
      )`);
    this.addSql(`
      create index members_active_user_index on conversation.members (user_id, conversation_id) where status = 'active'`);
  }

  override down(): void {
    this.addSql('drop table conversation.members, conversation.conversations');
  }
}
