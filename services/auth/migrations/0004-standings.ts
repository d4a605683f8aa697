import { Migration } from '@mikro-orm/migrations';

/** What has become of users and API keys lately, in the order in which it was committed. */
export class Standings extends Migration {
  override up(): void {
    // Whoever has read all there is, and found nothing, has 1 as its cursor.
    this.addSql('create sequence auth.standing_numbers start with 2');
    this.addSql(`
      create table auth.standings (
        subject_id uuid primary key,
        is_api_key boolean not null,
        number bigint not null constraint standings_number_unique unique,
        noted_at timestamptz(3) not null
      )`);
    this.addSql(`
      create table auth.token_lifetimes (
        lifetime bigint primary key,
        issued_until timestamptz(3) not null
      )`);
  }

  override down(): void {
    this.addSql('drop table auth.token_lifetimes, auth.standings');
    this.addSql('drop sequence auth.standing_numbers');
  }
}
