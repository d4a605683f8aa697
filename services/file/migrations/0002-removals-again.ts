import { Migration } from '@mikro-orm/migrations';

/** Removals that are looked at twice. */
export class RemovalsAgain extends Migration {
  override up(): void {
    this.addSql('alter table removals add column again boolean not null default false');
    this.addSql('alter table removals alter column again drop default');
  }

  override down(): void {
    this.addSql('alter table removals drop column again');
  }
}
