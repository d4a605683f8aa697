import { Migration } from '@mikro-orm/migrations';

/** Removals that one process at a time is at, and that wait longer after each failure. */
export class RemovalsHeld extends Migration {
  override up(): void {
    this.addSql(`
      alter table removals
        add column held_by uuid null,
        add column held_until timestamptz(3) null,
        add column attempts int not null default 0`);
  }

  override down(): void {
    this.addSql('alter table removals drop column held_by, drop column held_until, drop column attempts');
  }
}
