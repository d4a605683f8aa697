import { Migration } from '@mikro-orm/migrations';

/** Each user gets a number, in the order of registration. */
export class UserNumbers extends Migration {
  override up(): void {
    this.addSql('alter table auth.users add column num_id bigint');
    this.addSql(`
      update auth.users as u set num_id = numbered.num_id
        from (select id, row_number() over (order by created_at, id) as num_id from auth.users) as numbered
       where u.id = numbered.id`);
    // What processes of the version before add gets one, too.
    this.addSql('create sequence auth.users_num_id_seq owned by auth.users.num_id');
    this.addSql(`select setval('auth.users_num_id_seq', coalesce(max(num_id), 0) + 1, false) from auth.users`);
    this.addSql(`
      alter table auth.users
        alter column num_id set default nextval('auth.users_num_id_seq'),
        alter column num_id set not null,
        add constraint users_num_id_unique unique (num_id)`);
  }

  override down(): void {
    this.addSql('alter table auth.users drop column num_id');
  }
}
