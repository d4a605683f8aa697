import { Migration } from '@mikro-orm/migrations';

/** What failed may be tried again in a later round. */
export class Replays extends Migration {
  override up(): void {
    this.addSql('alter table connectors.deliveries add column replay int not null default 0');
  }

  override down(): void {
    this.addSql('alter table connectors.deliveries drop column replay');
  }
}
