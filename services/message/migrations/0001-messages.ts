import { Migration } from '@mikro-orm/migrations';

/** Messages with their deliveries and history, the outbox behind them, and the lease of the relay that empties it. */
export class Messages extends Migration {
  override up(): void {
    this.addSql(`
      create table messages (
        message_id uuid primary key,
        conversation_id uuid not null,
        seq bigint not null,
        sender_id uuid not null,
        sender_username text not null,
        recipient_ids uuid[] not null,
        channels text[] not null,
        payload_type text not null,
        payload_text text null,
        payload_file_id uuid null,
        priority text not null,
        status text not null,
        fingerprint bytea not null,
        created_at timestamptz(3) not null,
        updated_at timestamptz(3) not null,
        deliver_by timestamptz(3) not null,
        expires_at timestamptz(3) not null,
        constraint messages_conversation_id_seq_unique unique (conversation_id, seq)
      )`);
    // The sweep looks only at what is still open: a small index, however many messages there are.
    this.addSql(`
      create index messages_open_index on messages (expires_at) where status in ('accepted', 'in_transit')`);
    this.addSql(`
      create table deliveries (
        message_id uuid not null,
        recipient_id uuid not null,
        channel text not null,
        status text not null,
        attempts int not null,
        error text not null,
        updated_at timestamptz(3) not null,
        primary key (message_id, recipient_id, channel)
      )`);
    this.addSql(`
      create table status_changes (
        id bigserial primary key,
        message_id uuid not null,
        status text not null,
        at timestamptz(3) not null,
        note text not null
      )`);
    this.addSql(`create index status_changes_message_id_index on status_changes (message_id)`);
    this.addSql(`
      create table conversation_heads (
        conversation_id uuid primary key,
        last_seq bigint not null
      )`);
    this.addSql(`
      create table outbox (
        id bigserial primary key,
        message_id uuid not null,
        request_id text not null,
        created_at timestamptz(3) not null
      )`);
    // Every row is deleted soon after it was written: clean up by number of rows, not by share of the table.
    this.addSql(`
      alter table outbox set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)`);
    this.addSql(`
      create table leases (
        name text primary key,
        owner uuid not null,
        epoch bigint not null,
        expires_at timestamptz(3) not null
      )`);
  }
  override down(): void {
    this.addSql('drop table leases, outbox, conversation_heads, status_changes, deliveries, messages');
  }
}
