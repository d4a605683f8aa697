import { Migration } from '@mikro-orm/migrations';

/**
 * The time of a share is that of the last message with the file, so that the share may end with that. So far it was that of the first
 * one: those that there are begin anew.
 */
export class LapsedShares extends Migration {
  // The index is made while files are shared.
  override isTransactional(): boolean {
    return false;
  }

  override up(): void {
    this.addSql('update shares set shared_at = now()');
    this.addSql('drop index concurrently if exists shares_shared_at_index');
    this.addSql('create index concurrently shares_shared_at_index on shares (shared_at)');
  }

  override down(): void {
    this.addSql('drop index shares_shared_at_index');
  }
}
