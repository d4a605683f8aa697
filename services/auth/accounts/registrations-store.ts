import { v4 as uuid } from 'uuid';
import type { Database } from '#lib/database.ts';
import { deleteOld } from '#lib/forgetting.ts';
import type { RegistrationLimit } from './accounts.ts';

/** The queries about registrations, which an address may only ask for so often. */
export function registrationQueries(db: Database) {
  return {
    /**
     * Counts an attempt to register from an address, whether or not it will succeed, unless the limit is reached.
     *
     * @returns undefined, or when the registration was that has to become too old before there is room again
     */
    async noteRegistration(
      address: string,
      { perAddress, window }: RegistrationLimit,
      now: Date,
    ): Promise<Date | undefined> {
      const [full] = await db.sql<{ filledAt: Date }>(
        `with counted as (
           select registered_at from registrations where address = $2 and registered_at > $4
            order by registered_at desc offset $5::int - 1 limit 1
         ), noted as (
           insert into registrations (id, address, registered_at)
           select $1, $2, $3 where not exists (select from counted)
         )
         select registered_at as "filledAt" from counted`,
        [uuid(), address, now, new Date(now.getTime() - window), perAddress],
      );
      return full?.filledAt;
    },

    /** Deletes at most `limit` registrations from before `until`. @returns how many */
    sweepRegistrations(until: Date, limit: number): Promise<number> {
      return deleteOld(
        db,
        { table: 'registrations', isOld: 'registered_at <= $1', oldestBy: 'registered_at' },
        until,
        limit,
      );
    },
  };
}
