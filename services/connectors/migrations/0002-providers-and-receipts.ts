import { Migration } from '@mikro-orm/migrations';

/** Deliveries that were tried in vain, or taken and not yet ended; and what simulated networks know. */
export class ProvidersAndReceipts extends Migration {
  override up(): void {
    this.addSql(`
      alter table connectors.deliveries
        add column taken_at timestamptz(3),
        add column request_id text,
        drop constraint deliveries_outcome,
        add constraint deliveries_outcome check (
          num_nulls(delivered, error, ended_at) in (0, 3) and (ended_at is null or attempts is not null)
        )`);
    this.addSql(`
      create table connectors.provider_profiles (
        channel text collate "C" primary key,
        profile jsonb not null,
        updated_at timestamptz(3) not null
      )`);
    this.addSql(`
      create table connectors.provider_rates (
        channel text collate "C" primary key,
        second bigint not null,
        requests integer not null
      )`);
    this.addSql(`
      create table connectors.provider_effects (
        id bigserial primary key,
        channel text collate "C" not null,
        idempotency_key uuid not null,
        message_id uuid not null,
        conversation_id uuid not null,
        seq bigint not null,
        recipient_id uuid not null,
        first_at timestamptz(3) not null,
        requests integer not null,
        reports_later boolean not null,
        constraint provider_effects_channel_idempotency_key_unique unique (channel, idempotency_key)
      )`);
    this.addSql(
      'create index provider_effects_delivery_index on connectors.provider_effects (message_id, recipient_id, channel)',
    );
    this.addSql('create index provider_effects_first_at_index on connectors.provider_effects (first_at)');
    this.addSql(`
      create table connectors.provider_receipts (
        id bigserial primary key,
        channel text collate "C" not null,
        idempotency_key uuid not null,
        message_id uuid not null,
        recipient_id uuid not null,
        status text not null,
        reason text not null,
        due_at timestamptz(3) not null
      )`);
    this.addSql('create index provider_receipts_due_at_index on connectors.provider_receipts (due_at)');
  }

  override down(): void {
    this.addSql(`
      drop table connectors.provider_receipts, connectors.provider_effects, connectors.provider_rates,
        connectors.provider_profiles`);
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
