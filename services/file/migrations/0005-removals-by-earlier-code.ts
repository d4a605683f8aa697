import { Migration } from '@mikro-orm/migrations';

/** The version before this column leaves `again` out when it inserts a row: its default is false, which is what that version means. */
export class RemovalsByEarlierCode extends Migration {
  override up(): void {
    this.addSql('alter table removals alter column again set default false');
  }

  override down(): void {
    this.addSql('alter table removals alter column again drop default');
  }
}
