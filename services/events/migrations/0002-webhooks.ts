import { Migration } from '@mikro-orm/migrations';

export class Webhooks extends Migration {
  override up(): void {
    this.addSql(`
      create table endpoints (
        id uuid primary key,
        user_id uuid not null,
        url text not null,
        types smallint[] not null,
        conversation_ids uuid[] not null,
        secret bytea not null,
        old_secret bytea,
        old_secret_until timestamptz(3),
        status text not null,
        created_at timestamptz(3) not null,
        updated_at timestamptz(3) not null,
        failures integer not null,
        failing_since timestamptz(3),
        hold_until timestamptz(3),
        epoch bigint not null,
        position bigint not null,
        marked_to bigint,
        due_at timestamptz(3),
        lease_by uuid,
        lease_until timestamptz(3),
        constraint endpoints_status_check check (status in ('active', 'paused', 'disabled'))
      ) with (fillfactor = 70)`);
    this.addSql('create index endpoints_user_id_index on endpoints (user_id)');
    this.addSql('create index endpoints_due_at_index on endpoints (due_at)');
    // What of an endpoint's events is delivered apart from the others.
    this.addSql(`
      create table backlogs (
        id uuid primary key,
        endpoint_id uuid not null,
        kind text not null,
        conversation_id uuid,
        after_id bigint not null,
        up_to bigint,
        remaining integer,
        attempts integer not null,
        failing_since timestamptz(3),
        next_at timestamptz(3) not null,
        constraint backlogs_kind_check check (kind in ('conversation', 'replay', 'reset'))
      )`);
    this.addSql('create index backlogs_endpoint_id_index on backlogs (endpoint_id)');
    this.addSql(`
      create table attempts (
        id uuid primary key,
        endpoint_id uuid not null,
        event_id uuid not null,
        type text not null,
        at timestamptz(3) not null,
        duration_ms integer not null,
        status_code smallint not null,
        outcome smallint not null,
        error text not null,
        number integer not null,
        next_at timestamptz(3)
      )`);
    this.addSql('create index attempts_endpoint_id_id_index on attempts (endpoint_id, id)');
    // Up to which event of the log endpoints know whether there is something for them.
    this.addSql(`
      insert into heads (name, last_id, removed_to, day, epoch)
        select 'webhooks', last_id, removed_to, day, epoch from heads where name = 'log'`);
  }

  override down(): void {
    this.addSql(`delete from heads where name = 'webhooks'`);
    this.addSql('drop table attempts, backlogs, endpoints');
  }
}
