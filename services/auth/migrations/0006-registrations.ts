import { Migration } from '@mikro-orm/migrations';

/** Where registrations come from, as long as they count. */
export class Registrations extends Migration {
  override up(): void {
    this.addSql(`
      create table auth.registrations (
        id uuid primary key,
        address text not null,
        registered_at timestamptz(3) not null
      )`);
    this.addSql(
      'create index registrations_address_registered_at_index on auth.registrations (address, registered_at)',
    );
    this.addSql('create index registrations_registered_at_index on auth.registrations (registered_at)');
  }

  override down(): void {
    this.addSql('drop table auth.registrations');
  }
}
