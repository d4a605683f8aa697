import { Migration } from '@mikro-orm/migrations';

export class Users extends Migration {
  override up(): void {
    this.addSql(`
      create table auth.users (
        id uuid primary key,
        username text collate "C" not null constraint users_username_unique unique,
        password_hash text not null,
        is_admin boolean not null default false,
        created_at timestamptz(3) not null
      )`);
    this.addSql(`
      create table auth.auth_sessions (
        id uuid primary key,
        user_id uuid not null constraint auth_sessions_user_id_foreign references auth.users on delete cascade,
        created_at timestamptz(3) not null,
        expires_at timestamptz(3) not null
      )`);
    this.addSql('create index auth_sessions_expires_at_index on auth.auth_sessions (expires_at)');
    this.addSql('create index auth_sessions_user_id_index on auth.auth_sessions (user_id)');
    this.addSql(`
      create table auth.login_failures (
        id uuid primary key,
        username text collate "C" not null,
        address text not null,
        failed_at timestamptz(3) not null
      )`);
    this.addSql(
      'create index login_failures_username_address_failed_at_index on auth.login_failures (username, address, failed_at)',
    );
    this.addSql('create index login_failures_failed_at_index on auth.login_failures (failed_at)');
  }

  override down(): void {
    this.addSql('drop table auth.login_failures, auth.auth_sessions, auth.users');
  }
}
