import { computed, signal } from '@preact/signals';
import { createClient, RefusedError } from '#client';
import type { GetAccountResponse } from '#client/account';
import { kept, keptInTab } from './storage.ts';

/**
 * Who is logged in, and the client that calls the hub for this user.
 *
 * The tokens are in memory, and in sessionStorage so that a reload keeps the login; never in localStorage. Tabs of the same browser share one
 * session: they tell each other its newest tokens over a BroadcastChannel. A refresh token works once, and whoever uses it again ends the
 * session, so the tabs renew one after the other, under a lock (decision 44).
 */

export type Account = GetAccountResponse['account'];

interface Tokens {
  /** User id of whose they are. */
  user: string;
  access: string;
  refresh: string;
  /** Which of several pairs is the newest. */
  number: number;
}

/** What tabs tell each other. */
type Told = { type: 'ask' } | { type: 'tokens'; tokens: Tokens } | { type: 'ended'; user: string };

/**
 * `starting` until it is known; `out` if nobody is logged in; `expired` when the session has ended while somebody works: then the
 * views stay as they are, behind a login.
 */
export type Standing = 'starting' | 'out' | 'in' | 'expired';

export const standing = signal<Standing>('starting');
/** The account of whoever is logged in. */
export const account = signal<Account | undefined>(undefined);
export const isAdmin = computed(() => account.value?.role === 'admin');
/** Whether the last call reached the hub. */
export const isReachable = signal(true);

/** The user id of whoever is logged in. Only views behind the login may ask. */
export function me(): string {
  return account.peek()?.id ?? '';
}

/** There is no session any more: somebody has to log in. */
export class LoggedOutError extends Error {
  override name = 'LoggedOutError';
  override message = 'Your login has ended';
}

let tokens: Tokens | undefined;
/** The page is about to begin anew without this user. Until it does, nothing that comes for the user is kept, or told other tabs. */
let isLeaving = false;
/** The token that the client was given last: if it asks again, the hub has refused that one. */
let given: string | undefined;

const channel = typeof BroadcastChannel === 'undefined' ? undefined : new BroadcastChannel('chat4all.session');

function tell(told: Told): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a channel has no target: it is of this origin
  channel?.postMessage(told);
}

async function watchedFetch(target: string | URL | Request, init?: RequestInit): Promise<Response> {
  try {
    const response = await globalThis.fetch(target, init);
    isReachable.value = true;
    return response;
  } catch (error) {
    if (init?.signal?.aborted !== true) isReachable.value = false;
    throw error;
  }
}

async function accessToken(): Promise<string> {
  if (tokens === undefined || standing.peek() === 'expired') throw new LoggedOutError();
  if (tokens.access === given) await renew(given);
  given = tokens.access;
  return given;
}

/** The client of the hub, for whoever is logged in. */
export const client = createClient({ token: accessToken, fetch: watchedFetch });
/** For calls that need no login. */
const stranger = createClient({ fetch: watchedFetch });

function keep(newest: Tokens): void {
  if (tokens !== undefined && (newest.user !== tokens.user || newest.number <= tokens.number)) return;
  tokens = newest;
  keptInTab.set('tokens', newest);
}

/** For how long other tabs are waited for, in milliseconds. */
const patience = 150;

/** Asks other tabs for newer tokens than we have. */
async function askTabs(): Promise<void> {
  if (channel === undefined) return;
  const before = tokens?.number;
  tell({ type: 'ask' });
  const end = performance.now() + patience;
  while (performance.now() < end && tokens?.number === before) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Replaces an access token that the hub has refused. */
async function renew(refused: string): Promise<void> {
  const work = async () => {
    await askTabs();
    if (tokens === undefined || tokens.access !== refused) return;
    try {
      const { access_token, refresh_token } = await stranger.account.refreshTokens({ refresh_token: tokens.refresh });
      // Another tab may have logged out meanwhile.
      if (isLeaving) throw new LoggedOutError();
      keep({ ...tokens, access: access_token, refresh: refresh_token, number: tokens.number + 1 });
      tell({ type: 'tokens', tokens });
    } catch (error) {
      if (!(error instanceof RefusedError) || error.status >= 429) throw error;
      expire();
      throw new LoggedOutError();
    }
  };
  // Without TLS there are locks on localhost only.
  if ('locks' in navigator) await navigator.locks.request('chat4all.renew', work);
  else await work();
}

function expire(): void {
  keptInTab.set('tokens', undefined);
  if (standing.peek() === 'in') standing.value = 'expired';
}

/** Forgets all of this user, and begins anew: nothing of it stays in memory. */
function leave(): void {
  isLeaving = true;
  keptInTab.set('tokens', undefined);
  location.assign('/console');
}

channel?.addEventListener('message', ({ data }: MessageEvent<Told>) => {
  if (isLeaving) return;
  if (data.type === 'ask') {
    if (tokens !== undefined && standing.peek() === 'in') tell({ type: 'tokens', tokens });
  } else if (data.type === 'tokens') {
    // A tab where nobody is logged in, or whose session has ended, takes part when it is reloaded.
    if (tokens !== undefined || standing.peek() === 'starting') keep(data.tokens);
  } else if (data.user === tokens?.user) leave();
});

/** Finds out who is logged in: in this tab before a reload, or in another one. While the hub is away it tries again. */
export async function startSession(): Promise<void> {
  const found = keptInTab.get('tokens') as Tokens | undefined;
  if (found !== undefined) keep(found);
  else await askTabs();
  while (tokens !== undefined) {
    try {
      account.value = await client.account.getAccount();
      standing.value = 'in';
      return;
    } catch (error) {
      const isOver = error instanceof LoggedOutError || (error instanceof RefusedError && error.status < 429);
      if (isOver) {
        tokens = undefined;
        keptInTab.set('tokens', undefined);
      } else {
        isReachable.value = false;
        await new Promise((resolve) => setTimeout(resolve, 1_000));
      }
    }
  }
  standing.value = 'out';
}

/** Logs in. @param name a username or an email. @throws RefusedError, ConnectionError */
export async function logIn(name: string, password: string): Promise<void> {
  const { access_token, refresh_token } = await stranger.account.login({ email: name.trim(), password });
  const caller = createClient({ token: () => access_token, fetch: watchedFetch });
  const found = await caller.account.getAccount();
  const own = { user: found.id, access: access_token, refresh: refresh_token, number: Date.now() };
  if (account.peek() !== undefined && account.peek()!.id !== found.id) {
    // What is on the page is another user's.
    keptInTab.set('tokens', own);
    location.assign('/console');
    return;
  }
  keep(own);
  account.value = found;
  standing.value = 'in';
}

/** Creates an account, and logs in. */
export async function register(request: { name: string; email: string; username?: string; password: string }) {
  await stranger.account.register(request);
  await logIn(request.email, request.password);
}

/** Has a mail sent with a link to choose a new password, if there is an account with this email. */
export async function requestPasswordReset(email: string): Promise<void> {
  await stranger.account.requestPasswordReset({ email: email.trim() });
}

/** Chooses a new password. @param token from the link */
export async function resetPassword(token: string, new_password: string): Promise<void> {
  await stranger.account.resetPassword({ token, new_password });
}

/** Ends the session in all tabs, and forgets what was typed. */
export async function logOut(): Promise<void> {
  const id = me();
  const refresh_token = tokens?.refresh;
  try {
    if (refresh_token !== undefined) await client.account.logout({ refresh_token }, { timeout: 3_000 });
  } catch (error) {
    // The hub forgets the session by itself in the end.
    if (!(error instanceof RefusedError)) console.warn('The hub was not told of the logout');
  }
  for (const name of kept.names(`of.${id}.`)) kept.set(name, undefined);
  tell({ type: 'ended', user: id });
  leave();
}

/** The name under which something of this user is kept in `kept`: logging out removes it. */
export function nameOfMine(name: string): string {
  return `of.${me()}.${name}`;
}

/** Whether a call can succeed, as far as is known. */
const canCall = computed(() => isReachable.value && standing.value === 'in');

/** Waits for so many milliseconds, or until the hub can be reached again and somebody is logged in. */
export function pauseOrReach(wait: number): Promise<void> {
  return new Promise((resolve) => {
    let could = canCall.peek();
    const stop = canCall.subscribe((can) => {
      if (can && !could) end();
      could = can;
    });
    const timer = setTimeout(end, wait);
    function end() {
      clearTimeout(timer);
      stop();
      resolve();
    }
  });
}
