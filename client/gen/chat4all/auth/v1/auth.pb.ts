// Made by protoc-gen-grpc-gateway-ts and dev/client/mend.ts: `npm run generate`.
import * as fm from '../../../../fetch.ts';

/** Somebody who sends and receives messages. */
export type User = {
  /** UUID, in lower case. */
  user_id: string;
  /** Unique name, in lower case, as used to log in. */
  username: string;
  /** When the user was created. */
  created_at: string;
  /** The user's number, from 1 on in the order of registration: a short name for the UUID, in paths below `/api`. */
  num_id: number;
};

/** Credentials. */
export type IssueTokenRequest = {
  /** The user's name or email, in any letter case. */
  username?: string;
  /** The user's password, at most 72 bytes of UTF-8: bcrypt reads no further, so a longer one is refused, not cut. */
  password?: string;
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

/** Nothing: the token says who asks. */
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
  /** How many to return: 1 to 100, 50 if not said. */
  limit?: number | null;
  /** How many to pass over. */
  offset?: number;
};

/** A page of users, ordered by username. */
export type ListUsersResponse = {
  /** The page. */
  users: User[];
  /** How many match in all. */
  total: number;
  /** The limit that was used. */
  limit: number;
  /** The offset that was used. */
  offset: number;
};

/** Logs users in and looks them up. */
export class AuthService {
  /**
   * Exchanges a username or an email, and a password, for a bearer token.
   *
   * Send the token as `authorization: Bearer <token>` with every later call. A wrong password and an unknown user get
   * the same answer after the same time.
   */
  static IssueToken(req: IssueTokenRequest, initReq?: fm.InitReq): Promise<IssueTokenResponse> {
    return fm.fetchReq<IssueTokenResponse>(`/auth/token`, { ...initReq, method: 'POST', body: JSON.stringify(req, fm.replacer) });
  }
  /** The user whose token this is. */
  static GetCurrentUser(_req: GetCurrentUserRequest, initReq?: fm.InitReq): Promise<User> {
    return fm.fetchReq<User>(`/v1/users/me`, { ...initReq, method: 'GET' });
  }
  /** Lists users by username, all of them or the one with a given name. */
  static ListUsers(req: ListUsersRequest, initReq?: fm.InitReq): Promise<ListUsersResponse> {
    return fm.fetchReq<ListUsersResponse>(`/v1/users${fm.query(req, [])}`, { ...initReq, method: 'GET' });
  }
}
