import { Migration } from '@mikro-orm/migrations';

/** How many users there are stands in a row, kept by whoever adds or deletes some: nobody has to count all of them. */
export class UserCount extends Migration {
  override up(): void {
    this.addSql('create table auth.user_counts (name text primary key, total bigint not null)');
    this.addSql(`
      create or replace function auth.count_users() returns trigger language plpgsql as $$
      declare
        change bigint;
      begin
        if tg_op = 'INSERT' then
          select count(*) into change from changed;
        elsif tg_op = 'DELETE' then
          select -count(*) into change from changed;
        else
          select -total into change from auth.user_counts where name = 'all';
        end if;
        if change <> 0 then
          update auth.user_counts set total = total + change where name = 'all';
        end if;
        return null;
      end $$`);
    // Nobody is added until the triggers are there.
    this.addSql('lock table auth.users in share row exclusive mode');
    this.addSql(`insert into auth.user_counts (name, total) select 'all', count(*) from auth.users`);
    this.addSql(`
      create trigger users_added after insert on auth.users referencing new table as changed
        for each statement execute function auth.count_users()`);
    this.addSql(`
      create trigger users_deleted after delete on auth.users referencing old table as changed
        for each statement execute function auth.count_users()`);
    this.addSql(`
      create trigger users_truncated after truncate on auth.users
        for each statement execute function auth.count_users()`);
  }

  override down(): void {
    this.addSql('drop function auth.count_users() cascade');
    this.addSql('drop table auth.user_counts');
  }
}
