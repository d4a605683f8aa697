import { Migration } from '@mikro-orm/migrations';
import { outboxTable } from '#lib/database-outbox.ts';

/** That the upload of a file is complete is told on the bus. */
export class Outbox extends Migration {
  override up(): void {
    this.addSql(outboxTable());
  }

  override down(): void {
    this.addSql('drop table outbox_events');
  }
}
