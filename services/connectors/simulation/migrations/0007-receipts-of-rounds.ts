import { Migration } from '@mikro-orm/migrations';

/** What a simulated network reports says of which round it is. */
export class ReceiptsOfRounds extends Migration {
  override up(): void {
    this.addSql('alter table connectors.provider_effects add column replay integer not null default 0');
    this.addSql('alter table connectors.provider_receipts add column replay integer not null default 0');
  }

  override down(): void {
    this.addSql('alter table connectors.provider_receipts drop column replay');
    this.addSql('alter table connectors.provider_effects drop column replay');
  }
}
