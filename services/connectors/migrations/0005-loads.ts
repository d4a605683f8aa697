import { Migration } from '@mikro-orm/migrations';

/** What has happened on each channel, in all processes. */
export class Loads extends Migration {
  override up(): void {
    this.addSql(`
      create table connectors.loads (
        channel text collate "C" primary key,
        taken bigint not null,
        prompt bigint not null,
        held bigint not null
      )`);
  }

  override down(): void {
    this.addSql('drop table connectors.loads');
  }
}
