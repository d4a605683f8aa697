import { Migration } from '@mikro-orm/migrations';

/**
 * What simulated networks know. The tables may be there already: until the simulation had migrations of its own,
 * 0002-providers-and-receipts made them.
 */
export class SimulatedNetworks extends Migration {
  override up(): void {
    this.addSql(`
      create table if not exists connectors.provider_profiles (
        channel text collate "C" primary key,
        profile jsonb not null,
        updated_at timestamptz(3) not null
      )`);
    this.addSql(`
      create table if not exists connectors.provider_rates (
        channel text collate "C" primary key,
        second bigint not null,
        requests integer not null
      )`);
    this.addSql(`
      create table if not exists connectors.provider_effects (
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
      'create index if not exists provider_effects_delivery_index on connectors.provider_effects (message_id, recipient_id, channel)',
    );
    this.addSql('create index if not exists provider_effects_first_at_index on connectors.provider_effects (first_at)');
    this.addSql(`
      create table if not exists connectors.provider_receipts (
        id bigserial primary key,
        channel text collate "C" not null,
        idempotency_key uuid not null,
        message_id uuid not null,
        recipient_id uuid not null,
        status text not null,
        reason text not null,
        due_at timestamptz(3) not null
      )`);
    this.addSql('create index if not exists provider_receipts_due_at_index on connectors.provider_receipts (due_at)');
  }

  override down(): void {
    this.addSql(`
      drop table connectors.provider_receipts, connectors.provider_effects, connectors.provider_rates,
        connectors.provider_profiles`);
  }
}
