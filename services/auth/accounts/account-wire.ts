import { Role as RoleMessage, UserStatus as StatusMessage } from '#gen/chat4all/account/v1/account.ts';
import type { Role, UserStatus } from './accounts.ts';

export const roleMessages = { user: RoleMessage.ROLE_USER, admin: RoleMessage.ROLE_ADMIN } as const satisfies Record<
  Role,
  RoleMessage
>;

export const statusMessages = {
  active: StatusMessage.USER_STATUS_ACTIVE,
  disabled: StatusMessage.USER_STATUS_DISABLED,
} as const satisfies Record<UserStatus, StatusMessage>;

/** Undefined if nothing was said. */
export function roleOf(message: RoleMessage): Role | undefined {
  if (message === RoleMessage.ROLE_USER) return 'user';
  return message === RoleMessage.ROLE_ADMIN ? 'admin' : undefined;
}

/** Undefined if nothing was said. */
export function statusOf(message: StatusMessage): UserStatus | undefined {
  if (message === StatusMessage.USER_STATUS_ACTIVE) return 'active';
  return message === StatusMessage.USER_STATUS_DISABLED ? 'disabled' : undefined;
}
