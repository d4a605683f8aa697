import { Migration } from '@mikro-orm/migrations';

export class Deliveries extends Migration {
  override up(): void {
    this.addSql(`
      create table connectors.deliveries (
        message_id uuid not null,
        recipient_id uuid not null,
        channel text collate "C" not null,
        conversation_id uuid not null,
        idempotency_key uuid not null,
        claimed_by uuid not null,
        claimed_until timestamptz(3) not null,
        delivered boolean,
        attempts integer,
        error text,
        ended_at timestamptz(3),
        primary key (message_id, recipient_id, channel),
        constraint deliveries_outcome check (num_nulls(delivered, attempts, error, ended_at) in (0, 4))
      )`);
  }

  override down(): void {
    this.addSql('drop table connectors.deliveries');
  }
}
