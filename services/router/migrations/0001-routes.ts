import { Migration } from '@mikro-orm/migrations';

export class Routes extends Migration {
  override up(): void {
    this.addSql(`
      create table router.routes (
        message_id uuid primary key,
        conversation_id uuid not null,
        recipient_ids uuid[] not null,
        channels text[] not null,
        routed_at timestamptz(3) not null,
        rejected_reason text
      )`);
  }

  override down(): void {
    this.addSql('drop table router.routes');
  }
}
