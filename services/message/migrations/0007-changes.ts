import { Migration } from '@mikro-orm/migrations';
import { outboxTable } from '#lib/database-outbox.ts';

/** What becomes of messages is told on the bus, and members say how far they have read. */
export class Changes extends Migration {
  override up(): void {
    // A table of its own: the version before would publish what stands in `outbox` as acceptances.
    this.addSql(outboxTable());
    this.addSql('alter table outbox_events alter column value set storage external');
    this.addSql(`
      create table reads (
        conversation_id uuid not null,
        user_id uuid not null,
        seq bigint not null,
        at timestamptz(3) not null,
        primary key (conversation_id, user_id)
      )`);
  }

  override down(): void {
    this.addSql('drop table reads');
    this.addSql('drop table outbox_events');
  }
}
