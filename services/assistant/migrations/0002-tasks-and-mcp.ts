import { Migration } from '@mikro-orm/migrations';

export class TasksAndMcp extends Migration {
  override up(): void {
    this.addSql(`
      create table assistant.tasks (
        id bigserial primary key,
        user_id uuid not null,
        title text not null,
        title_key text collate "C" not null,
        description text,
        completed boolean not null,
        created_at timestamptz(3) not null,
        updated_at timestamptz(3) not null,
        call_id text,
        constraint tasks_user_id_call_id_unique unique (user_id, call_id)
      )`);
    this.addSql('create index tasks_user_id_created_at_id_index on assistant.tasks (user_id, created_at, id)');
    this.addSql('create index tasks_user_id_updated_at_id_index on assistant.tasks (user_id, updated_at, id)');
    this.addSql('create index tasks_user_id_title_key_id_index on assistant.tasks (user_id, title_key, id)');
    this.addSql('create table assistant.message_namespaces (id uuid primary key)');
    this.addSql('insert into assistant.message_namespaces values (gen_random_uuid())');
    this.addSql(`
      create table assistant.mcp_sessions (
        id uuid primary key,
        user_id uuid not null,
        server text not null,
        initialize json not null,
        created_at timestamptz(3) not null,
        used_at timestamptz(3) not null
      )`);
    this.addSql('create index mcp_sessions_user_id_used_at_index on assistant.mcp_sessions (user_id, used_at)');
    this.addSql('create index mcp_sessions_used_at_index on assistant.mcp_sessions (used_at)');
    // Of streams of sessions: for clients that were cut off. The events of a session go with it.
    this.addSql(`
      create table assistant.mcp_events (
        id bigserial primary key,
        session_id uuid not null constraint mcp_events_session_id_foreign references assistant.mcp_sessions on delete cascade,
        stream_id uuid not null,
        message json,
        is_last boolean not null,
        created_at timestamptz(3) not null
      )`);
    this.addSql(
      'create index mcp_events_session_id_stream_id_id_index on assistant.mcp_events (session_id, stream_id, id)',
    );
    this.addSql('create index mcp_events_created_at_index on assistant.mcp_events (created_at)');
    // What clients say to requests that another process may be working on.
    this.addSql(`
      create table assistant.mcp_replies (
        id bigserial primary key,
        session_id uuid not null constraint mcp_replies_session_id_foreign references assistant.mcp_sessions on delete cascade,
        message json not null,
        created_at timestamptz(3) not null
      )`);
    this.addSql(
      'create index mcp_replies_session_id_created_at_index on assistant.mcp_replies (session_id, created_at)',
    );
    this.addSql('create index mcp_replies_created_at_index on assistant.mcp_replies (created_at)');
  }

  override down(): void {
    this.addSql(
      'drop table assistant.mcp_replies, assistant.mcp_events, assistant.mcp_sessions, assistant.message_namespaces, assistant.tasks',
    );
  }
}
