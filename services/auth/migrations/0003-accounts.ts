import { Migration } from '@mikro-orm/migrations';

/** Users get emails, names, roles and a status; sessions get refresh tokens; and there are API keys, mails and audit events. */
export class Accounts extends Migration {
  override up(): void {
    // Of users whose names differ in the case of letters alone, the one that is in lower case already keeps the name, or else the
    // oldest; the others get a number behind it. What they were called before stays in `name`.
    this.addSql('alter table auth.users add column name text');
    this.addSql(`
      do $$
      declare
        found record;
        wanted text;
        suffix int;
      begin
        for found in
          select id, username from auth.users
           where username <> lower(username)
           order by lower(username), created_at, id
        loop
          wanted := lower(found.username);
          suffix := 1;
          while exists (select from auth.users where username = wanted) loop
            suffix := suffix + 1;
            wanted := lower(found.username) || '-' || suffix;
          end loop;
          update auth.users set username = wanted, name = found.username where id = found.id;
        end loop;
      end $$`);
    this.addSql('update auth.login_failures set username = lower(username) where username <> lower(username)');
    this.addSql(`
      alter table auth.users
        add column email text collate "C",
        add column email_key text collate "C",
        add column role text not null default 'user',
        add column status text not null default 'active',
        add constraint users_username_check check (username = lower(username)),
        add constraint users_email_check check (email_key = lower(email) and num_nulls(email, email_key) in (0, 2)),
        add constraint users_role_check check (role in ('user', 'admin')),
        add constraint users_status_check check (status in ('active', 'disabled')),
        add constraint users_email_key_unique unique (email_key)`);
    this.addSql(`update auth.users set role = 'admin' where is_admin`);
    this.addSql('create index users_created_at_id_index on auth.users (created_at, id)');
    this.addSql('create index users_role_created_at_id_index on auth.users (role, created_at, id)');

    this.addSql(
      'alter table auth.auth_sessions add column kept_until timestamptz(3), add column ended_at timestamptz(3)',
    );
    this.addSql('create index auth_sessions_kept_until_index on auth.auth_sessions (kept_until)');
    this.addSql(`
      create table auth.refresh_tokens (
        token_hash bytea primary key,
        session_id uuid not null
          constraint refresh_tokens_session_id_foreign references auth.auth_sessions on delete cascade,
        created_at timestamptz(3) not null,
        expires_at timestamptz(3) not null,
        used_at timestamptz(3)
      )`);
    this.addSql('create index refresh_tokens_session_id_index on auth.refresh_tokens (session_id)');
    this.addSql('create index refresh_tokens_expires_at_index on auth.refresh_tokens (expires_at)');

    this.addSql(`
      create table auth.api_keys (
        id uuid primary key,
        user_id uuid not null constraint api_keys_user_id_foreign references auth.users on delete cascade,
        key_hash bytea not null constraint api_keys_key_hash_unique unique,
        key_prefix text not null,
        name text not null,
        created_at timestamptz(3) not null,
        last_used_at timestamptz(3),
        expires_at timestamptz(3),
        revoked_at timestamptz(3)
      )`);
    this.addSql('create index api_keys_user_id_created_at_id_index on auth.api_keys (user_id, created_at, id)');
    this.addSql('create index api_keys_expires_at_index on auth.api_keys (expires_at)');
    this.addSql('create index api_keys_revoked_at_index on auth.api_keys (revoked_at)');

    this.addSql(`
      create table auth.reset_requests (
        id uuid primary key,
        email_key text collate "C" not null,
        address text not null,
        requested_at timestamptz(3) not null,
        pending boolean not null
      )`);
    this.addSql(
      'create index reset_requests_email_key_requested_at_index on auth.reset_requests (email_key, requested_at)',
    );
    this.addSql(
      'create index reset_requests_address_requested_at_index on auth.reset_requests (address, requested_at)',
    );
    this.addSql(
      'create index reset_requests_pending_requested_at_index on auth.reset_requests (pending, requested_at)',
    );
    this.addSql(`
      create table auth.reset_tokens (
        token_hash bytea primary key,
        user_id uuid not null constraint reset_tokens_user_id_foreign references auth.users on delete cascade,
        created_at timestamptz(3) not null,
        expires_at timestamptz(3) not null,
        used_at timestamptz(3)
      )`);
    this.addSql('create index reset_tokens_user_id_index on auth.reset_tokens (user_id)');
    this.addSql('create index reset_tokens_expires_at_index on auth.reset_tokens (expires_at)');
    this.addSql(`
      create table auth.mails (
        id uuid primary key,
        user_id uuid not null constraint mails_user_id_foreign references auth.users on delete cascade,
        recipient text not null,
        subject text not null,
        body text not null,
        created_at timestamptz(3) not null,
        give_up_at timestamptz(3) not null,
        next_try_at timestamptz(3) not null,
        tries integer not null default 0
      )`);
    this.addSql('create index mails_next_try_at_index on auth.mails (next_try_at)');
    this.addSql('create index mails_user_id_index on auth.mails (user_id)');

    this.addSql(`
      create table auth.audit_events (
        id uuid primary key,
        actor_id uuid not null,
        action text not null,
        target uuid not null,
        at timestamptz(3) not null,
        request_id text not null
      )`);
    this.addSql('create index audit_events_at_id_index on auth.audit_events (at, id)');
    this.addSql('create index audit_events_actor_id_at_index on auth.audit_events (actor_id, at)');
    this.addSql('create index audit_events_action_at_index on auth.audit_events (action, at)');
    this.addSql(`
      create table auth.user_subscriptions (
        user_id uuid primary key
          constraint user_subscriptions_user_id_foreign references auth.users on delete cascade,
        plan text not null,
        expires_at timestamptz(3),
        version bigint not null
      )`);
  }

  override down(): void {
    this.addSql(`
      drop table auth.user_subscriptions, auth.audit_events, auth.mails, auth.reset_tokens, auth.reset_requests,
        auth.api_keys, auth.refresh_tokens`);
    this.addSql('drop index auth.auth_sessions_kept_until_index');
    this.addSql('alter table auth.auth_sessions drop column kept_until, drop column ended_at');
    this.addSql(`
      alter table auth.users
        drop constraint users_username_check, drop constraint users_email_check,
        drop column name, drop column email, drop column email_key, drop column role, drop column status`);
  }
}
