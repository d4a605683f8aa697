import type { Database } from '#lib/database.ts';
import type { Account, Role, Subscription, UserStatus } from './accounts.ts';

export interface User {
  id: string;
  /** The user's number, from 1 on in the order of registration. */
  numId: bigint;
  username: string;
  createdAt: Date;
}

export interface Credentials {
  id: string;
  numId: bigint;
  username: string;
  passwordHash: string;
  isAdmin: boolean;
  isDisabled: boolean;
}

export interface NewUser {
  /** UUID. */
  id: string;
  /** In lower case. */
  username: string;
  name: string;
  email: string;
  passwordHash: string;
  role: Role;
  createdAt: Date;
}

/** An account, and what its owner is subscribed to. */
export interface SubscribedAccount extends Account {
  subscription: Subscription | undefined;
}

/** A subscription as another service knows it; one with a lower version is older. */
export interface VersionedSubscription extends Subscription {
  userId: string;
  version: bigint;
}

interface AccountRow {
  id: string;
  username: string;
  name: string;
  email: string | null;
  role: Role;
  status: UserStatus;
  createdAt: Date;
}

/** Those who were made without a name are called as they log in. */
const accountColumns = `u.id, u.username, coalesce(u.name, u.username) as name, u.email, u.role, u.status,
  u.created_at as "createdAt"`;

function toAccount({ id, username, name, email, role, status, createdAt }: AccountRow): Account {
  return { id, username, name, email: email ?? undefined, role, status, createdAt };
}

interface SubscribedRow extends AccountRow {
  plan: string | null;
  expiresAt: Date | null;
}

function toSubscribedAccount({ plan, expiresAt, ...row }: SubscribedRow): SubscribedAccount {
  const subscription = plan === null ? undefined : { plan, expiresAt: expiresAt ?? undefined };
  return { ...toAccount(row), subscription };
}

const userColumns = `id, num_id as "numId", username, created_at as "createdAt"`;

/** The queries about users. */
export function userQueries(db: Database) {
  async function countRole(role: Role): Promise<bigint> {
    const [row] = await db.sql<{ total: bigint }>('select count(*) as total from users where role = $1', [role]);
    return row!.total;
  }

  return {
    /** The user with this username, or else with this email; both in lower case (`foldCase`). */
    async findCredentials(identifier: string): Promise<Credentials | undefined> {
      const [found] = await db.sql<Credentials>(
        `select id, num_id as "numId", username, password_hash as "passwordHash", role = 'admin' as "isAdmin", status <> 'active' as "isDisabled"
           from users where username = $1 or email_key = $1
          order by username = $1 desc limit 1`,
        [identifier],
      );
      return found;
    },

    /** The highest cost of all hashes of passwords; undefined if there is none. */
    async highestCost(): Promise<number | undefined> {
      const [found] = await db.sql<{ cost: number | null }>(
        String.raw`select max(substring(password_hash from '^\$2[aby]\$(\d\d)\$')::int) as cost from users`,
      );
      return found?.cost ?? undefined;
    },

    /** Gives a user another hash of the same password, unless the password was changed meanwhile. */
    async replaceHash(id: string, from: string, to: string): Promise<void> {
      await db.sql('update users set password_hash = $3 where id = $1 and password_hash = $2', [id, from, to]);
    },

    async findUser(id: string): Promise<User | undefined> {
      const [found] = await this.lookupUsers([id], []);
      return found;
    },

    /** A page of users by username, and how many match in all. No `username` matches everybody. */
    async listUsers(page: { username: string | undefined; limit: number; offset: number }): Promise<[User[], bigint]> {
      const { username, limit, offset } = page;
      if (username !== undefined) {
        const found = await this.lookupUsers([], [username]);
        return [found.slice(offset, offset + limit), BigInt(found.length)];
      }
      return Promise.all([
        db.sql<User>(`select ${userColumns} from users order by username limit $1 offset $2`, [limit, offset]),
        this.countUsers(),
      ]);
    },

    /** Those users that have one of the ids or usernames. */
    async lookupUsers(ids: readonly string[], usernames: readonly string[]): Promise<User[]> {
      return db.sql<User>(
        `select ${userColumns} from users
          where id = any($1::uuid[]) or username = any($2::text[])`,
        [ids, usernames],
      );
    },

    /** Which of an email and a username somebody has already; both in lower case. */
    async findTaken(emailKey: string, username: string | undefined): Promise<{ email: boolean; username: boolean }> {
      const [found] = await db.sql<{ email: boolean; username: boolean }>(
        `select exists (select from users where email_key = $1) as email,
                exists (select from users where username = $2) as username`,
        [emailKey, username ?? null],
      );
      return found!;
    },

    /** Makes a user, unless the username or the email is taken. @returns whether it was made */
    async addUser(user: NewUser): Promise<boolean> {
      // Looked for first, too, since what ends in a conflict has used up a number.
      const rows = await db.sql(
        `insert into users (id, username, name, email, email_key, password_hash, role, is_admin, created_at)
         select $1, $2, $3, $4, lower($4), $5, $6, ($6 = 'admin'), $7
          where not exists (select from users where username = $2 or email_key = lower($4))
         on conflict do nothing returning 1`,
        [user.id, user.username, user.name, user.email, user.passwordHash, user.role, user.createdAt],
      );
      return rows.length > 0;
    },

    async findAccount(id: string): Promise<Account | undefined> {
      const [found] = await db.sql<AccountRow>(`select ${accountColumns} from users u where u.id = $1`, [id]);
      return found && toAccount(found);
    },

    /** @returns undefined if there is no such user */
    async renameAccount(id: string, name: string): Promise<Account | undefined> {
      const [found] = await db.sql<AccountRow>(
        `update users u set name = $2 where u.id = $1 returning ${accountColumns}`,
        [id, name],
      );
      return found && toAccount(found);
    },

    async countUsers(): Promise<bigint> {
      const [row] = await db.sql<{ total: bigint }>(`select total from user_counts where name = 'all'`);
      return row!.total;
    },

    /** A page of accounts, oldest first, and how many match in all. No `role` matches everybody. */
    async listAccounts(page: {
      role: Role | undefined;
      limit: number;
      offset: number;
    }): Promise<[SubscribedAccount[], bigint]> {
      const [rows, total] = await Promise.all([
        db.sql<SubscribedRow>(
          `select ${accountColumns}, s.plan, s.expires_at as "expiresAt"
             from users u left join user_subscriptions s on s.user_id = u.id
            where ($1::text is null or u.role = $1)
            order by u.created_at, u.id limit $2 offset $3`,
          [page.role ?? null, page.limit, page.offset],
        ),
        page.role === undefined ? this.countUsers() : countRole(page.role),
      ]);
      return [rows.map(toSubscribedAccount), total];
    },

    async findSubscribedAccount(id: string): Promise<SubscribedAccount | undefined> {
      const [row] = await db.sql<SubscribedRow>(
        `select ${accountColumns}, s.plan, s.expires_at as "expiresAt"
           from users u left join user_subscriptions s on s.user_id = u.id
          where u.id = $1`,
        [id],
      );
      return row && toSubscribedAccount(row);
    },

    /** Records subscriptions, without those of users that don't exist and those with an older version than the recorded one. */
    async recordSubscriptions(subscriptions: readonly VersionedSubscription[]): Promise<void> {
      // Always locked in the same order, so that two calls can't deadlock.
      await db.sql(
        `insert into user_subscriptions as known (user_id, plan, expires_at, version)
         select user_id, plan, expires_at, version from (
           select distinct on (user_id) * from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bigint[])
               as told (user_id, plan, expires_at, version)
             order by user_id, version desc
         ) as newest
          where exists (select from users where id = user_id)
          order by user_id
         on conflict (user_id) do update
           set plan = excluded.plan, expires_at = excluded.expires_at, version = excluded.version
         where excluded.version > known.version`,
        [
          subscriptions.map(({ userId }) => userId),
          subscriptions.map(({ plan }) => plan),
          subscriptions.map(({ expiresAt }) => expiresAt ?? null),
          subscriptions.map(({ version }) => version),
        ],
      );
    },
  };
}
