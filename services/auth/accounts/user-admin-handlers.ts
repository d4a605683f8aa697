import type { UserAccount, UserAdminServiceService } from '#gen/chat4all/account/v1/account.ts';
import { hubDate } from '#lib/clock.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Checks, Handlers } from '#lib/rpc/server.ts';
import { roleMessages, roleOf, statusMessages, statusOf } from './account-wire.ts';
import { lastAdmin, subscriptionStatus, unknownUser } from './accounts.ts';
import type { Store } from '../store.ts';
import type { SubscribedAccount } from './users-store.ts';

const defaultLimit = 20;

export function openUserAdminHandlers({ store }: { store: Store }): Handlers<UserAdminServiceService> {
  return {
    async listAccounts({ role, limit = defaultLimit, offset }) {
      const now = hubDate();
      const [accounts, total] = await store.listAccounts({ role: roleOf(role), limit, offset });
      return { users: accounts.map((account) => toMessage(account, now)), pagination: { offset, limit, total } };
    },

    async updateUser({ userId, role, status }, { caller, requestId }: UserCall) {
      const now = hubDate();
      const outcome = await store.changeUser(
        { userId, role: roleOf(role), status: statusOf(status) },
        { actorId: caller.userId, requestId, at: now },
      );
      if (outcome === 'last admin') throw lastAdmin();
      const account = outcome === 'no such user' ? undefined : await store.findSubscribedAccount(userId);
      if (account === undefined) throw unknownUser();
      return { user: toMessage(account, now) };
    },

    async listAuditEvents({ actor, action, limit = defaultLimit, offset }) {
      const [events, total] = await store.listAuditEvents({
        actorId: actor === '' ? undefined : actor,
        action: action === '' ? undefined : action,
        limit,
        offset,
      });
      return { events, pagination: { offset, limit, total: BigInt(total) } };
    },
  };
}

/** What is wrong with changes of users beyond the rules in the proto. */
export const userAdminChecks: Checks<UserAdminServiceService> = {
  updateUser: ({ role, status }, found) => {
    const isSaid = roleOf(role) !== undefined || statusOf(status) !== undefined;
    const isWrong = found.some(({ field }) => field === 'role' || field === 'status');
    if (isSaid || isWrong) return [];
    return ['role', 'status'].map((field) => ({
      field,
      rule: 'required',
      description: 'is required where nothing else is to be changed',
    }));
  },
};

function toMessage(account: SubscribedAccount, now: Date): UserAccount {
  const { id, username, name, email, role, status, subscription, createdAt } = account;
  return {
    id,
    username,
    name,
    email,
    role: roleMessages[role],
    status: statusMessages[status],
    subscription: subscription && { plan: subscription.plan, status: subscriptionStatus(subscription, now) },
    createdAt,
  };
}
