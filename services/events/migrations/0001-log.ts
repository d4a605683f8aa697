import { Migration } from '@mikro-orm/migrations';

export class Log extends Migration {
  override up(): void {
    // A partition for each day is made by the service. Events are read by their conversation or by their user, and all of them by their ids.
    this.addSql(`
      create table log (
        id bigint not null,
        day date not null,
        event_id uuid not null,
        conversation_id uuid,
        user_id uuid,
        type smallint not null,
        body bytea not null,
        primary key (id, day),
        constraint log_event_id_day_unique unique (event_id, day)
      ) partition by range (day)`);
    this.addSql('alter table log alter column body set storage external');
    this.addSql('create index log_conversation_id_id_index on log (conversation_id, id)');
    this.addSql('create index log_user_id_id_index on log (user_id, id)');
    // One row: where the log ends, where it begins, and which log it is.
    this.addSql(`
      create table heads (
        name text primary key,
        last_id bigint not null,
        removed_to bigint not null,
        day date not null,
        epoch bigint not null
      ) with (fillfactor = 20)`);
    this.addSql(`
      insert into heads (name, last_id, removed_to, day, epoch)
        values ('log', 0, 0, (now() at time zone 'UTC')::date, floor(random() * 4294967296)::bigint)`);
    // Who could see which part of a conversation's events: those from from_id to to_id, both inclusive.
    this.addSql(`
      create table members (
        user_id uuid not null,
        conversation_id uuid not null,
        from_id bigint not null,
        to_id bigint,
        primary key (user_id, conversation_id, from_id)
      )`);
    this.addSql('create index members_conversation_id_index on members (conversation_id)');
    this.addSql(`
      create table tickets (
        digest bytea primary key,
        user_id uuid not null,
        expires_at timestamptz(3) not null
      )`);
    this.addSql('create index tickets_expires_at_index on tickets (expires_at)');
  }

  override down(): void {
    this.addSql('drop table tickets, members, heads, log');
  }
}
