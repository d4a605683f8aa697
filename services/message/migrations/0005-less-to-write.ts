import { Migration } from '@mikro-orm/migrations';

/**
 * A message writes fewer rows, and fewer entries of indexes:
 *
 * - Its history stands in its own row, without the step that `created_at` says already. What `status_changes` has of earlier messages
 *   stays there, and is read with it.
 * - A delivery gets a row once there is something to tell of it. Before that it follows from the message.
 * - Open messages are in a table of their own. An index whose predicate names the status would have every change of a status write
 *   all entries of the row's indexes anew, since PostgreSQL then can't leave them (a HOT update).
 * - The outbox has the event as it goes to the bus.
 */
export class LessToWrite extends Migration {
  override up(): void {
    this.addSql(`alter table messages add column history jsonb not null default '[]'`);
    this.addSql(`
      create table open_messages (
        expires_at timestamptz(3) not null,
        message_id uuid not null,
        primary key (expires_at, message_id)
      ) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)`);
    this.addSql(`
      insert into open_messages (expires_at, message_id)
        select expires_at, message_id from messages where status in ('accepted', 'in_transit')`);
    this.addSql('drop index messages_open_index');
    this.addSql('alter table outbox add column conversation_id uuid, add column seq bigint, add column event bytea');
    // Events are small or hardly compressible, and gone within a second: compressing them would be work for nothing.
    this.addSql('alter table outbox alter column event set storage external');
    // The messages of one page are accepted together, and end together: a second version of each has to fit beside the first.
    this.addSql('alter table messages set (fillfactor = 45)');
    this.addSql('alter table conversation_heads set (fillfactor = 50)');
  }

  override down(): void {
    this.addSql(`
      create index messages_open_index on messages (expires_at) where status in ('accepted', 'in_transit')`);
    this.addSql('drop table open_messages');
    this.addSql('alter table outbox drop column event, drop column seq, drop column conversation_id');
    this.addSql('alter table messages drop column history');
    this.addSql('alter table messages reset (fillfactor)');
    this.addSql('alter table conversation_heads reset (fillfactor)');
  }
}
