import { Migration } from '@mikro-orm/migrations';

export class Tools extends Migration {
  override up(): void {
    this.addSql(`
      create table tools.tools (
        id uuid primary key,
        name text not null,
        name_key text collate "C" not null,
        description text not null,
        api_endpoint text not null,
        is_active boolean not null,
        created_at timestamptz(3) not null,
        deleted_at timestamptz(3)
      )`);
    this.addSql('create unique index tools_name_key_unique on tools.tools (name_key) where deleted_at is null');
    this.addSql(`
      create table tools.subscriptions (
        user_id uuid primary key,
        id uuid not null constraint subscriptions_id_unique unique,
        plan text not null,
        tokens_used bigint not null,
        period_start timestamptz(3) not null,
        period_end timestamptz(3) not null,
        expires_at timestamptz(3),
        version bigint not null,
        constraint subscriptions_plan_check check (plan in ('free', 'pro', 'enterprise'))
      )`);
    // What a call is expected to use, from before the tool is asked until what it has used is known.
    this.addSql(`
      create table tools.reservations (
        id uuid primary key,
        user_id uuid not null,
        tool_id uuid not null,
        plan text not null,
        tokens bigint not null,
        began_at timestamptz(3) not null,
        expires_at timestamptz(3) not null,
        request_id text not null
      )`);
    this.addSql('create index reservations_user_id_index on tools.reservations (user_id)');
    this.addSql('create index reservations_expires_at_index on tools.reservations (expires_at)');
    this.addSql(`
      create table tools.usage (
        id uuid primary key,
        user_id uuid not null,
        tool_id uuid not null,
        plan text not null,
        began_at timestamptz(3) not null,
        tokens bigint not null,
        status text not null,
        duration_ms integer not null,
        request_id text not null,
        constraint usage_status_check check (status in ('success', 'error', 'timeout'))
      )`);
    // With all that sums are made of, so that none of them reads the table.
    this.addSql(
      'create index usage_user_id_began_at_id_index on tools.usage (user_id, began_at, id) include (tool_id, tokens)',
    );
    // The sums of all users, kept in the transactions that add to usage. The parts keep processes out of each other's way.
    this.addSql(`
      create table tools.usage_days (
        day date not null,
        tool_id uuid not null,
        plan text not null,
        part smallint not null,
        invocations bigint not null,
        tokens bigint not null,
        most_tokens bigint not null,
        primary key (day, tool_id, plan, part)
      )`);
    this.addSql(`
      create table tools.outbox (
        id bigserial primary key,
        kind text not null,
        content jsonb not null,
        created_at timestamptz(3) not null,
        not_before timestamptz(3) not null,
        constraint outbox_kind_check check (kind in ('subscription', 'audit event'))
      )`);
  }

  override down(): void {
    this.addSql(`
      drop table tools.outbox, tools.usage_days, tools.usage, tools.reservations, tools.subscriptions, tools.tools`);
  }
}
