// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as Chat4allPagingV1Paging from '../../paging/v1/paging.pb.ts';
import type * as wire from '../../../../wire.ts';
import type * as codes from '../../../codes.ts';

/** A user's role. */
export const Role = {
  /** May use the hub. */
  ROLE_USER: 'user',
  /** May also administer it. */
  ROLE_ADMIN: 'admin',
} as const;
export type Role = (typeof Role)[keyof typeof Role];

/** The status of a user. */
export const UserStatus = {
  /** Has the rights of the role. */
  USER_STATUS_ACTIVE: 'active',
  /** Has no rights: logins, tokens and API keys are refused. */
  USER_STATUS_DISABLED: 'disabled',
} as const;
export type UserStatus = (typeof UserStatus)[keyof typeof UserStatus];

/** An account, as its owner sees it. */
export type Account = {
  /** UUID. */
  id: string;
  /** Unique name, in lower case. */
  username: string;
  /** Display name. */
  name: string;
  /** Email address; not set for users that were created without one. */
  email?: string;
  /** Role. */
  role: Role;
  /** When the account was made. */
  created_at: string;
};

/** The account to create. */
export type RegisterRequest = {
  /** Display name: 1 to 100 characters, not counting spaces around it. */
  name: string;
  /** Email address, unique regardless of letter case. */
  email: string;
  /**
   * At least 8 characters with an upper-case letter, a lower-case letter, a digit and another printable character; at most 72
   * bytes of UTF-8, since bcrypt reads no further.
   */
  password: string;
  /** Unique username: 3 to 32 of a–z, 0–9, `.`, `_` and `-`; upper case is lowered. By default made from the email. */
  username?: string | null;
};

/** The new account. */
export type RegisterResponse = {
  /** UUID. */
  id: string;
  /** Unique name, in lower case. */
  username: string;
  /** Display name. */
  name: string;
  /** Email address, as given. */
  email: string;
  /** `user`. */
  role: Role;
  /** When the account was made. */
  created_at: string;
};

/** Credentials. */
export type LoginRequest = {
  /** The email, in any letter case. For users that have none, their username. */
  email: string;
  /** The password. */
  password: string;
};

/** A pair of tokens (RFC 6749, 5.1). */
export type LoginResponse = {
  /** For `Authorization: Bearer` on every call. */
  access_token: string;
  /** For RefreshTokens, once. */
  refresh_token: string;
  /** Always `bearer`. */
  token_type: string;
  /** Seconds that the access token is valid for. */
  expires_in: number;
};

/** The refresh token of a session. */
export type RefreshTokensRequest = {
  /** The last one that was issued. */
  refresh_token: string;
};

/** A new pair of tokens. */
export type RefreshTokensResponse = {
  /** For `Authorization: Bearer` on every call. */
  access_token: string;
  /** For RefreshTokens, once. */
  refresh_token: string;
  /** Always `bearer`. */
  token_type: string;
  /** Seconds that the access token is valid for. */
  expires_in: number;
};

/** The session to end. */
export type LogoutRequest = {
  /** Any refresh token of the session. */
  refresh_token: string;
};

/** No fields: the session has ended. */
export type LogoutResponse = Record<string, never>;

/** The user who has forgotten the password. */
export type RequestPasswordResetRequest = {
  /** Their email, in any letter case. */
  email: string;
};

/** No fields, whether or not a mail is sent. */
export type RequestPasswordResetResponse = Record<string, never>;

/** The new password. */
export type ResetPasswordRequest = {
  /** The token from the mail. */
  token: string;
  /** The same rules as in RegisterRequest. */
  new_password: string;
};

/** No fields: the password is set. */
export type ResetPasswordResponse = Record<string, never>;

/** No fields: the credentials identify the caller. */
export type GetAccountRequest = Record<string, never>;

/** The caller. */
export type GetAccountResponse = {
  /** The caller's account. */
  account: Account;
};

/** What to change. */
export type UpdateAccountRequest = {
  /** The new name: 1 to 100 characters, not counting spaces around it. Unchanged if not set. */
  name?: string | null;
};

/** The caller, with the change. */
export type UpdateAccountResponse = {
  /** The caller's account. */
  account: Account;
};

/** An API key, without the key itself. */
export type ApiKey = {
  /** UUID. */
  id: string;
  /** The name that its owner gave it. */
  name: string;
  /** Its first 8 characters. */
  key_prefix: string;
  /** Whether it is accepted: it is not revoked and has not expired. */
  active: boolean;
  /** When it was made. */
  created_at: string;
  /** When it was last used, up to a minute late; not set if it never was. */
  last_used_at?: string;
  /** When it expires; not set if it doesn't. */
  expires_at?: string;
};

/** No fields: the credentials identify the caller. */
export type ListApiKeysRequest = Record<string, never>;

/** The caller's API keys. */
export type ListApiKeysResponse = {
  /** Newest first. */
  api_keys: ApiKey[];
};

/** The key to make. */
export type CreateApiKeyRequest = {
  /** Its name: 1 to 100 characters, not counting spaces around it. */
  name: string;
  /** When it expires, in the future; never if not set. */
  expires_at?: string | null;
};

/** The new key. */
export type CreateApiKeyResponse = {
  /** UUID. */
  id: string;
  /** What it is called. */
  name: string;
  /** The key, for the header `X-API-Key`: store it now, it is not shown again. */
  key: string;
  /** Its first 8 characters. */
  key_prefix: string;
  /** When it was made. */
  created_at: string;
  /** When it expires; not set if it doesn't. */
  expires_at?: string;
};

/** The key to revoke. */
export type RevokeApiKeyRequest = {
  /** UUID of one of the caller's keys. */
  key_id: string;
};

/** No fields: the key is revoked. */
export type RevokeApiKeyResponse = Record<string, never>;

/** A user's subscription, in short. */
export type SubscriptionSummary = {
  /** Name of the plan. */
  plan: string;
  /** `active`, `cancelled` or `expired`. */
  status: string;
};

/** A user as administrators see them. */
export type UserAccount = {
  /** UUID. */
  id: string;
  /** Unique name, in lower case. */
  username: string;
  /** Display name. */
  name: string;
  /** Email address; not set for users that were created without one. */
  email?: string;
  /** Role. */
  role: Role;
  /** Status. */
  status: UserStatus;
  /** Subscription; not set if there never was one. */
  subscription?: SubscriptionSummary;
  /** When the account was made. */
  created_at: string;
};

/** Which users to list. */
export type ListAccountsRequest = {
  /** The maximum number to return: 1 to 100, 20 by default. */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
  /** Only those with this role. */
  role?: Role;
};

/** A page of users. */
export type ListAccountsResponse = {
  /** The page. */
  users: UserAccount[];
  /** Which part of the list it is. */
  pagination: Chat4allPagingV1Paging.Pagination;
};

/** What to change of a user. */
export type UpdateUserRequest = {
  /** UUID of the user. */
  user_id: string;
  /** The new role; unchanged if not set. */
  role?: Role;
  /** The new status; unchanged if not set. */
  status?: UserStatus;
};

/** The user, with the change. */
export type UpdateUserResponse = {
  /** The user. */
  user: UserAccount;
};

/** Which changes to list. */
export type ListAuditEventsRequest = {
  /** The maximum number to return: 1 to 100, 20 by default. */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
  /** Only those by the administrator with this id. */
  actor?: string;
  /** Only those of this kind: `tool.create`, `tool.update`, `tool.delete` or `user.update`. */
  action?: string;
};

/** A change by an administrator. */
export type AuditEvent = {
  /** UUID. */
  id: string;
  /** UUID of the administrator. */
  actor_id: string;
  /** `tool.create`, `tool.update`, `tool.delete` or `user.update`. */
  action: string;
  /** UUID of what was changed. */
  target: string;
  /** When. */
  at: string;
  /** Request id of the change, as in the logs. */
  request_id: string;
};

/** A page of changes. */
export type ListAuditEventsResponse = {
  /** The page. */
  events: AuditEvent[];
  /** Which part of the list it is. */
  pagination: Chat4allPagingV1Paging.Pagination;
};

/** The error codes of `register`. */
export type RegisterCode = 'EMAIL_TAKEN' | 'RATE_LIMITED' | 'UNAVAILABLE' | 'USERNAME_TAKEN' | codes.EnvelopedCode;

/** The error codes of `login`. */
export type LoginCode = 'INVALID_CREDENTIALS' | 'RATE_LIMITED' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `refreshTokens`. */
export type RefreshTokensCode = 'REFRESH_TOKEN_REUSED' | 'TOKEN_EXPIRED' | 'UNAUTHORIZED' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `logout`. */
export type LogoutCode = 'UNAUTHORIZED' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `requestPasswordReset`. */
export type RequestPasswordResetCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `resetPassword`. */
export type ResetPasswordCode = 'INVALID_RESET_TOKEN' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `getAccount`. */
export type GetAccountCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `updateAccount`. */
export type UpdateAccountCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `listApiKeys`. */
export type ListApiKeysCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `createApiKey`. */
export type CreateApiKeyCode = 'RATE_LIMITED' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `revokeApiKey`. */
export type RevokeApiKeyCode = 'NOT_FOUND' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `listAccounts`. */
export type ListAccountsCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `updateUser`. */
export type UpdateUserCode = 'LAST_ADMIN' | 'NOT_FOUND' | 'UNAVAILABLE' | codes.EnvelopedCode;

/** The error codes of `listAuditEvents`. */
export type ListAuditEventsCode = 'UNAVAILABLE' | codes.EnvelopedCode;

/** The caller's own account. */
export class AccountService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** Creates an account, without a subscription. */
  register(request: RegisterRequest, options?: CallOptions): Reply<RegisterResponse, RegisterCode> {
    return this.#caller.reply<RegisterResponse>({ verb: 'POST', path: '/api/v1/auth/register', body: '*', isPublic: true, isEnveloped: true }, request, options);
  }

  /**
   * Exchanges an email and a password for an access token and a refresh token.
   *
   * A wrong password and an unknown email get the same answer after the same time.
   */
  login(request: LoginRequest, options?: CallOptions): Reply<LoginResponse, LoginCode> {
    return this.#caller.reply<LoginResponse>({ verb: 'POST', path: '/api/v1/auth/login', body: '*', isPublic: true, isEnveloped: true }, request, options);
  }

  /**
   * Exchanges a refresh token for a new pair of tokens. The old refresh token is used up: if it is used again, it may have been stolen, and
   * the whole session ends (RFC 9700, 4.14.2). Of two concurrent calls with one token, one succeeds.
   */
  refreshTokens(request: RefreshTokensRequest, options?: CallOptions): Reply<RefreshTokensResponse, RefreshTokensCode> {
    return this.#caller.reply<RefreshTokensResponse>({ verb: 'POST', path: '/api/v1/auth/refresh', body: '*', isPublic: true, isEnveloped: true }, request, options);
  }

  /** Ends the session that a refresh token belongs to. May be repeated. */
  logout(request: LogoutRequest, options?: CallOptions): Reply<LogoutResponse, LogoutCode> {
    return this.#caller.reply<LogoutResponse>({ verb: 'POST', path: '/api/v1/auth/logout', body: '*', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /**
   * Sends a mail with a link to choose a new password. The answer is the same, after the same time, whether or not there is a
   * user with this email.
   */
  requestPasswordReset(request: RequestPasswordResetRequest, options?: CallOptions): Reply<RequestPasswordResetResponse, RequestPasswordResetCode> {
    return this.#caller.reply<RequestPasswordResetResponse>({ verb: 'POST', path: '/api/v1/auth/password-reset', body: '*', isPublic: true, isEnveloped: true }, request, options);
  }

  /** Sets a new password with a token from such a mail. The token is used up, and all sessions of the user end. */
  resetPassword(request: ResetPasswordRequest, options?: CallOptions): Reply<ResetPasswordResponse, ResetPasswordCode> {
    return this.#caller.reply<ResetPasswordResponse>({ verb: 'POST', path: '/api/v1/auth/password-reset/{token}', body: '*', isPublic: true, isEnveloped: true }, request, options);
  }

  /** The caller's own account. */
  getAccount(request: GetAccountRequest = {}, options?: CallOptions): Reply<Account, GetAccountCode> {
    return this.#caller.reply<Account>({ verb: 'GET', path: '/api/v1/users/me', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** Changes the name of the caller's own account. Nothing else can be changed: other fields are an error. */
  updateAccount(request: UpdateAccountRequest = {}, options?: CallOptions): Reply<Account, UpdateAccountCode> {
    return this.#caller.reply<Account>({ verb: 'PATCH', path: '/api/v1/users/me', body: '*', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** Lists the caller's API keys, newest first, including revoked ones. The keys themselves are never shown again. */
  listApiKeys(request: ListApiKeysRequest = {}, options?: CallOptions): Reply<ApiKey[], ListApiKeysCode> {
    return this.#caller.reply<ApiKey[]>({ verb: 'GET', path: '/api/v1/users/me/api-keys', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** Creates an API key. Only this answer shows the key. */
  createApiKey(request: CreateApiKeyRequest, options?: CallOptions): Reply<CreateApiKeyResponse, CreateApiKeyCode> {
    return this.#caller.reply<CreateApiKeyResponse>({ verb: 'POST', path: '/api/v1/users/me/api-keys', body: '*', isEnveloped: true }, request, options);
  }

  /** Revokes an API key: within two seconds it is refused everywhere. May be repeated. */
  revokeApiKey(request: RevokeApiKeyRequest, options?: CallOptions): Reply<RevokeApiKeyResponse, RevokeApiKeyCode> {
    return this.#caller.reply<RevokeApiKeyResponse>({ verb: 'DELETE', path: '/api/v1/users/me/api-keys/{key_id}', isRepeatable: true, isEnveloped: true }, request, options);
  }
}

/** Users and what was changed by administrators, for administrators. */
export class UserAdminService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** All users, oldest first. */
  listAccounts(request: ListAccountsRequest = {}, options?: CallOptions): Reply<wire.Page<UserAccount[], Chat4allPagingV1Paging.Pagination>, ListAccountsCode> {
    return this.#caller.reply<wire.Page<UserAccount[], Chat4allPagingV1Paging.Pagination>>({ verb: 'GET', path: '/api/v1/admin/users', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** Changes the role or the status of a user. It takes effect everywhere within two seconds, also for issued tokens and for API keys. */
  updateUser(request: UpdateUserRequest, options?: CallOptions): Reply<UserAccount, UpdateUserCode> {
    return this.#caller.reply<UserAccount>({ verb: 'PATCH', path: '/api/v1/admin/users/{user_id}', body: '*', isRepeatable: true, isEnveloped: true }, request, options);
  }

  /** Lists the changes by administrators, newest first. */
  listAuditEvents(request: ListAuditEventsRequest = {}, options?: CallOptions): Reply<wire.Page<AuditEvent[], Chat4allPagingV1Paging.Pagination>, ListAuditEventsCode> {
    return this.#caller.reply<wire.Page<AuditEvent[], Chat4allPagingV1Paging.Pagination>>({ verb: 'GET', path: '/api/v1/admin/audit', isRepeatable: true, isEnveloped: true }, request, options);
  }
}
