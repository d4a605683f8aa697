import { Migration } from '@mikro-orm/migrations';

export class Conversations extends Migration {
  override up(): void {
    this.addSql(`
      create table assistant.conversations (
        id bigserial primary key,
        user_id uuid not null,
        num_id bigint not null,
        title text not null,
        message_count integer not null,
        created_at timestamptz(3) not null,
        updated_at timestamptz(3) not null
      )`);
    this.addSql(
      'create index conversations_user_id_updated_at_id_index on assistant.conversations (user_id, updated_at, id)',
    );
    // Of an answer: what it answers, what the model said and did step by step, and, where a later answer took its place, which.
    this.addSql(`
      create table assistant.messages (
        id bigserial primary key,
        conversation_id bigint not null constraint messages_conversation_id_foreign references assistant.conversations on delete cascade,
        role text not null,
        content text not null,
        status text not null,
        created_at timestamptz(3) not null,
        reply_to bigint,
        replaced_by bigint,
        steps jsonb,
        model text,
        input_tokens integer,
        output_tokens integer,
        finish_reason text,
        error jsonb,
        constraint messages_role_check check (role in ('user', 'assistant')),
        constraint messages_status_check check (status in ('completed', 'stopped', 'failed', 'streaming')),
        constraint messages_finish_reason_check check (finish_reason in ('stop', 'length', 'max_steps', 'stopped'))
      )`);
    this.addSql('create index messages_conversation_id_id_index on assistant.messages (conversation_id, id)');
    this.addSql(
      'create index messages_replaced_by_index on assistant.messages (replaced_by) where replaced_by is not null',
    );
    // An answer that is being made, by which process, and until when that one is believed to live. Kept for an hour after its end.
    this.addSql(`
      create table assistant.turns (
        message_id bigint primary key constraint turns_message_id_foreign references assistant.messages on delete cascade,
        conversation_id bigint not null,
        user_id uuid not null,
        state text not null,
        approve_tools boolean not null,
        owner uuid,
        lease_until timestamptz(3),
        is_stop_asked boolean not null,
        began_at timestamptz(3) not null,
        active_ms integer not null,
        ended_at timestamptz(3),
        constraint turns_state_check check (state in ('calling', 'acting', 'waiting', 'completed', 'stopped', 'failed'))
      )`);
    this.addSql(
      'create unique index turns_conversation_id_unique on assistant.turns (conversation_id) where ended_at is null',
    );
    this.addSql('create index turns_user_id_began_at_index on assistant.turns (user_id, began_at)');
    this.addSql('create index turns_lease_until_index on assistant.turns (lease_until) where ended_at is null');
    this.addSql('create index turns_ended_at_index on assistant.turns (ended_at)');
    this.addSql(`
      create table assistant.turn_events (
        message_id bigint not null constraint turn_events_message_id_foreign references assistant.turns on delete cascade,
        number bigint not null,
        event bytea not null,
        primary key (message_id, number)
      )`);
    this.addSql(`
      create table assistant.idempotency_keys (
        user_id uuid not null,
        key text not null,
        fingerprint text not null,
        message_id bigint not null constraint idempotency_keys_message_id_foreign references assistant.messages on delete cascade,
        created_at timestamptz(3) not null,
        primary key (user_id, key)
      )`);
    this.addSql('create index idempotency_keys_message_id_index on assistant.idempotency_keys (message_id)');
    this.addSql('create index idempotency_keys_created_at_index on assistant.idempotency_keys (created_at)');
  }

  override down(): void {
    this.addSql(
      'drop table assistant.idempotency_keys, assistant.turn_events, assistant.turns, assistant.messages, assistant.conversations',
    );
  }
}
