import { Migration } from '@mikro-orm/migrations';

/** Deliveries that a network has taken, and will report on later. */
export class Receipts extends Migration {
  override up(): void {
    this.addSql(`
      alter table connectors.deliveries
        add column taken_at timestamptz(3),
        add column request_id text,
        drop constraint deliveries_outcome,
        add constraint deliveries_outcome check (
          num_nulls(delivered, error, ended_at) in (0, 3) and (ended_at is null or attempts is not null)
        )`);
  }

  override down(): void {
    this.addSql('delete from connectors.deliveries where taken_at is not null and ended_at is null');
    this.addSql('update connectors.deliveries set attempts = null where ended_at is null');
    this.addSql(`
      alter table connectors.deliveries
        drop column taken_at,
        drop column request_id,
        drop constraint deliveries_outcome,
        add constraint deliveries_outcome check (num_nulls(delivered, attempts, error, ended_at) in (0, 4))`);
  }
}
