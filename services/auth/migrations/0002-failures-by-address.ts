import { Migration } from '@mikro-orm/migrations';

/** Failures are counted for an address alone, too. */
export class FailuresByAddress extends Migration {
  override up(): void {
    this.addSql('create index login_failures_address_failed_at_index on auth.login_failures (address, failed_at)');
  }

  override down(): void {
    this.addSql('drop index auth.login_failures_address_failed_at_index');
  }
}
