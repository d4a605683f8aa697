import { Migration } from '@mikro-orm/migrations';

/** Events that were given up, and the rounds in which messages are replayed. */
export class DeadLetters extends Migration {
  override up(): void {
    this.addSql('alter table messages add column replay int not null default 0');
    this.addSql('alter table deliveries add column replay int not null default 0');
    this.addSql(`
      create table dead_letters (
        id uuid primary key,
        topic text not null,
        partition int not null,
        consumer_group text not null,
        reason text not null,
        attempts int not null,
        failed_at timestamptz(3) not null,
        event_id text not null,
        event_type text not null,
        key text not null,
        request_id text not null,
        value bytea not null,
        message_id uuid null,
        recipient_id uuid null,
        channel text null,
        replayed_at timestamptz(3) null,
        replayed_by text null
      )`);
    this.addSql('create index dead_letters_failed_at_index on dead_letters (failed_at)');
    this.addSql('create index dead_letters_message_id_index on dead_letters (message_id)');
    this.addSql('create index dead_letters_waiting_index on dead_letters (failed_at) where replayed_at is null');
    // Rows lie about in the order of their times: some bytes for each 32 pages are enough to find a period.
    this.addSql(
      'create index messages_created_at_index on messages using brin (created_at) with (pages_per_range = 32)',
    );
  }

  override down(): void {
    this.addSql('drop index messages_created_at_index');
    this.addSql('drop table dead_letters');
    this.addSql('alter table deliveries drop column replay');
    this.addSql('alter table messages drop column replay');
  }
}
