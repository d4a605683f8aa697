// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as codes from '../../../codes.ts';

/** Somebody who sends and receives messages. */
export type User = {
  /** UUID, in lower case. */
  user_id: string;
  /** Unique name, in lower case, as used to log in. */
  username: string;
  /** When the user was created. */
  created_at: string;
  /** The user's number, from 1 in the order of registration. It can be used in place of the UUID in paths below `/api`. */
  num_id: number;
};

/** Credentials. */
export type IssueTokenRequest = {
  /** The user's name or email, in any letter case. */
  username: string;
  /** The user's password, at most 72 bytes of UTF-8: bcrypt reads no further, so a longer one is refused, not cut. */
  password: string;
};

/** A bearer token (RFC 6750) and until when it is valid. */
export type IssueTokenResponse = {
  /** The token: opaque to clients. */
  token: string;
  /** The same token, under the name that OAuth 2.0 clients look for. */
  access_token: string;
  /** Always `bearer`. */
  token_type: string;
  /** Seconds that the token is valid for, from now. */
  expires_in: number;
  /** The moment from which the token is refused. */
  expires_at: string;
  /** Whose token it is. */
  user_id: string;
  /** The user's name. */
  username: string;
};

/** No fields: the token identifies the caller. */
export type GetCurrentUserRequest = Record<string, never>;

/** The caller. */
export type GetCurrentUserResponse = {
  /** The caller. */
  user: User;
};

/** Which users to list. */
export type ListUsersRequest = {
  /** Only the user with this name, in any letter case; every user if empty. */
  username?: string;
  /** The maximum number to return: 1 to 100, 50 by default. */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
};

/** A page of users, ordered by username. */
export type ListUsersResponse = {
  /** The page. */
  users: User[];
  /** The total number of matches. */
  total: number;
  /** The limit that was applied. */
  limit: number;
  /** The offset that was applied. */
  offset: number;
};

/** The error codes of `issueToken`. */
export type IssueTokenCode = 'DATABASE_UNAVAILABLE' | 'INVALID_CREDENTIALS' | 'TOO_BUSY' | 'TOO_MANY_LOGIN_FAILURES' | codes.CommonCode;

/** The error codes of `getCurrentUser`. */
export type GetCurrentUserCode = 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `listUsers`. */
export type ListUsersCode = 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** Logs users in and looks them up. */
export class AuthService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /**
   * Exchanges a username or an email, and a password, for a bearer token.
   *
   * Send the token as `authorization: Bearer <token>` with every later call. A wrong password and an unknown user get
   * the same answer after the same time.
   */
  issueToken(request: IssueTokenRequest, options?: CallOptions): Reply<IssueTokenResponse, IssueTokenCode> {
    return this.#caller.reply<IssueTokenResponse>({ verb: 'POST', path: '/auth/token', body: '*', isPublic: true }, request, options);
  }

  /** Returns the user of the token. */
  getCurrentUser(request: GetCurrentUserRequest = {}, options?: CallOptions): Reply<User, GetCurrentUserCode> {
    return this.#caller.reply<User>({ verb: 'GET', path: '/v1/users/me', isRepeatable: true }, request, options);
  }

  /** Lists users by username, all of them or the one with a given name. */
  listUsers(request: ListUsersRequest = {}, options?: CallOptions): Reply<ListUsersResponse, ListUsersCode> {
    return this.#caller.reply<ListUsersResponse>({ verb: 'GET', path: '/v1/users', isRepeatable: true }, request, options);
  }
}
