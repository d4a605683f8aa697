import { Migration } from '@mikro-orm/migrations';

/** Deliveries that wait here and no longer on the bus, in lanes, with the events that ask for them. */
export class ParkedDeliveries extends Migration {
  override up(): void {
    this.addSql('alter table connectors.deliveries add column parked_at timestamptz(3)');
    this.addSql(`
      create table connectors.requests (
        id uuid primary key,
        value bytea not null,
        call_id text not null,
        deliveries integer not null
      )`);
    this.addSql(`
      create table connectors.lanes (
        channel text collate "C" not null,
        conversation_id uuid not null,
        recipient_id uuid not null,
        due_at timestamptz(3) not null,
        claimed_by uuid,
        deliveries integer not null,
        primary key (channel, conversation_id, recipient_id)
      )`);
    this.addSql('create index lanes_due_index on connectors.lanes (channel, due_at)');
    this.addSql(`
      create table connectors.parked (
        id bigserial primary key,
        channel text collate "C" not null,
        conversation_id uuid not null,
        recipient_id uuid not null,
        message_id uuid not null,
        replay integer not null,
        request_id uuid not null,
        error text not null,
        parked_at timestamptz(3) not null
      )`);
    this.addSql('create index parked_lane_index on connectors.parked (channel, conversation_id, recipient_id, id)');
  }

  override down(): void {
    this.addSql('drop table connectors.parked, connectors.lanes, connectors.requests');
    this.addSql('alter table connectors.deliveries drop column parked_at');
  }
}
