import { Migration } from '@mikro-orm/migrations';

/**
 * Messages may be removed when they are old enough. Then positions begin later than with 1, and the books later than with the first
 * message.
 */
export class Retention extends Migration {
  // The index is made while messages are accepted.
  override isTransactional(): boolean {
    return false;
  }

  override up(): void {
    this.addSql('alter table conversation_heads add column if not exists first_seq bigint not null default 1');
    this.addSql(`
      create table if not exists removals (
        name text primary key,
        before timestamptz(3) not null
      )`);
    // In order, for what is removed, and for the parts of a period. The BRIN index had times of pages, which don't stay together once
    // the room of what was removed is used again.
    this.addSql('drop index concurrently if exists messages_accepted_at_index');
    this.addSql('create index concurrently messages_accepted_at_index on messages (created_at)');
    this.addSql('drop index concurrently if exists messages_created_at_index');
    // Not only when a fifth of all there is was added: the audit counts positions in the index alone where pages are known to be seen by all.
    this.addSql(`
      alter table messages set (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000)`);
  }

  override down(): void {
    this.addSql(
      'create index messages_created_at_index on messages using brin (created_at) with (pages_per_range = 32)',
    );
    this.addSql('drop index messages_accepted_at_index');
    this.addSql('drop table removals');
    this.addSql('alter table conversation_heads drop column first_seq');
    this.addSql(
      'alter table messages reset (autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_insert_threshold)',
    );
  }
}
