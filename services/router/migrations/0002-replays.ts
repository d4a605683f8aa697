import { Migration } from '@mikro-orm/migrations';

/** A message that is replayed is decided about anew, for what of it is to be done again. */
export class Replays extends Migration {
  override up(): void {
    this.addSql('alter table router.routes add column replay int not null default 0, add column targets jsonb');
    this.addSql('alter table router.routes alter column replay drop default');
    this.addSql('alter table router.routes drop constraint routes_pkey, add primary key (message_id, replay)');
  }

  override down(): void {
    this.addSql('delete from router.routes where replay > 0');
    this.addSql('alter table router.routes drop constraint routes_pkey, add primary key (message_id)');
    this.addSql('alter table router.routes drop column replay, drop column targets');
  }
}
