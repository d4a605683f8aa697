import { Migration } from '@mikro-orm/migrations';

/** When an open delivery is tried again. */
export class NextAttempts extends Migration {
  override up(): void {
    this.addSql('alter table deliveries add column next_attempt_at timestamptz(3) null');
  }

  override down(): void {
    this.addSql('alter table deliveries drop column next_attempt_at');
  }
}
