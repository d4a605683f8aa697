import { v4 as uuid } from 'uuid';
import { hubDate } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { foldCase, usernamesFor } from './accounts.ts';
import type { Passwords } from '../logins/passwords.ts';
import type { Store } from '../store.ts';

const seedPassword = 'password123';
/** The administrator that everybody knows. */
export const laptopAdmin = {
  id: '00000000-0000-4000-8000-0000000000ad',
  username: 'admin',
  name: 'Administrator',
  email: 'admin@example.com',
  password: 'Admin-12345',
} as const;

export interface Seeding {
  store: Store;
  passwords: Passwords;
  log: Logger;
}

/** Makes the users that everybody knows: user1 to user<count>, and an administrator. */
export async function seedKnownUsers({ store, passwords }: Seeding, count: number): Promise<void> {
  if (count === 0) return;
  const createdAt = hubDate();
  const users = seedUsers(store, passwords, count, createdAt);
  // Together: two hashes at once take as long as one.
  await Promise.all([users, seedKnownAdmin(store, passwords, createdAt, users)]);
}

async function seedUsers(store: Store, passwords: Passwords, count: number, createdAt: Date): Promise<void> {
  if ((await store.countMissingSeeds(count)) === 0) return;
  await store.seedUsers(count, await passwords.hash(seedPassword), createdAt);
}

/** @param others are made first: user1 has the number 1, and so on */
async function seedKnownAdmin(
  store: Store,
  passwords: Passwords,
  createdAt: Date,
  others: Promise<void>,
): Promise<void> {
  const { password, ...admin } = laptopAdmin;
  if ((await store.findTaken(admin.email, admin.username)).email) return;
  const passwordHash = await passwords.hash(password);
  await others;
  // Somebody else may be called that already: then it is made without being there for a login by name.
  for (const username of usernamesFor(admin.email, uuid().slice(0, 8))) {
    if (await store.addUser({ ...admin, username, passwordHash, role: 'admin', createdAt })) return;
  }
}

/** Makes the first administrator. Whoever has the email already becomes one, and keeps the password. */
export async function seedAdmin(
  { store, passwords, log }: Seeding,
  { email, password }: { email: string; password: string },
): Promise<void> {
  if (!(await store.findTaken(foldCase(email), undefined)).email) {
    const passwordHash = await passwords.hash(password);
    const id = uuid();
    for (const username of usernamesFor(email, id.slice(0, 8))) {
      const made = await store.addUser({
        id,
        username,
        name: 'Administrator',
        email,
        passwordHash,
        role: 'admin',
        createdAt: hubDate(),
      });
      if (made) {
        log.info({ username }, 'The first administrator is made');
        return;
      }
    }
  }
  await store.appointAdmins([foldCase(email)]);
}

/** Makes the users with these names administrators. */
export async function appoint({ store, log }: Seeding, usernames: readonly string[]): Promise<void> {
  const missing = await store.appointAdmins(usernames.map(foldCase));
  if (missing.length > 0) log.warn({ usernames: missing }, 'ADMIN_USERS names users that do not exist');
}
