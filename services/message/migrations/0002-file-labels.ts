import { Migration } from '@mikro-orm/migrations';

/** What people see of the file in a message, as it was when it was sent: lists don't have to ask the file service. */
export class FileLabels extends Migration {
  override up(): void {
    this.addSql('alter table messages add column payload_label jsonb null');
  }

  override down(): void {
    this.addSql('alter table messages drop column payload_label');
  }
}
