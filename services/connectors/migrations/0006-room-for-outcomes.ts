import { Migration } from '@mikro-orm/migrations';

/**
 * The deliveries of one page are claimed together, and end together: a second version of each has to fit beside the first, so that
 * PostgreSQL leaves the entries of the index as they are (a HOT update).
 */
export class RoomForOutcomes extends Migration {
  override up(): void {
    this.addSql('alter table connectors.deliveries set (fillfactor = 45)');
  }

  override down(): void {
    this.addSql('alter table connectors.deliveries reset (fillfactor)');
  }
}
