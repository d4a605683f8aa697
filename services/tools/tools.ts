import { HubError, type FieldViolation } from '#lib/errors.ts';

export const planNames = ['free', 'pro', 'enterprise'] as const;
export type PlanName = (typeof planNames)[number];

export interface Plan {
  name: PlanName;
  /** Tokens that may be used in a period. */
  tokenLimit: number;
  /** What a month costs. */
  priceMonthly: number;
  /** What it offers, for people. */
  features: readonly string[];
}

/** A subscription as of its last change. */
export interface SubscriptionState {
  plan: PlanName;
  /** Tokens that calls which began in this period have used. */
  tokensUsed: number;
  periodStart: Date;
  periodEnd: Date;
  /** When it ends; undefined while it renews itself. */
  expiresAt: Date | undefined;
}

export type SubscriptionStatus = 'active' | 'cancelled' | 'expired';

/** The subscription at a moment: a period that is over by then is followed by others, each with a new counter, unless it ends. */
export function subscriptionAt<State extends SubscriptionState>(state: State, now: Date, period: number): State {
  if (now < state.periodEnd || state.expiresAt !== undefined) return state;
  const over = Math.floor((now.getTime() - state.periodEnd.getTime()) / period);
  const periodStart = new Date(state.periodEnd.getTime() + over * period);
  return { ...state, tokensUsed: 0, periodStart, periodEnd: new Date(periodStart.getTime() + period) };
}

/** What a subscription is at a moment. */
export function statusAt({ expiresAt }: Pick<SubscriptionState, 'expiresAt'>, now: Date): SubscriptionStatus {
  if (expiresAt === undefined) return 'active';
  return now < expiresAt ? 'cancelled' : 'expired';
}

/** A subscription that begins now. */
export function newSubscription(plan: PlanName, now: Date, period: number): SubscriptionState {
  const periodEnd = new Date(now.getTime() + period);
  return { plan, tokensUsed: 0, periodStart: now, periodEnd, expiresAt: undefined };
}

/**
 * The subscription once its user has chosen a plan: upgrades, downgrades and a cancellation that is taken back act at once, and what
 * was used in the period stays counted. One that has expired begins anew.
 *
 * @returns undefined if that is what it is already
 */
export function subscribed(
  state: SubscriptionState | undefined,
  plan: PlanName,
  now: Date,
  period: number,
): SubscriptionState | undefined {
  if (state === undefined || statusAt(state, now) === 'expired') return newSubscription(plan, now, period);
  if (state.plan === plan && state.expiresAt === undefined) return undefined;
  return { ...subscriptionAt(state, now, period), plan, expiresAt: undefined };
}

/** The subscription once it is cancelled: it ends with its period. @returns undefined if it is cancelled already */
export function cancelled(state: SubscriptionState, now: Date, period: number): SubscriptionState | undefined {
  if (state.expiresAt !== undefined) return undefined;
  const current = subscriptionAt(state, now, period);
  return { ...current, expiresAt: current.periodEnd };
}

/** Whether a call may begin: yes, no because of an error, or not known until calls in flight end. */
export type Decision = 'admitted' | 'undecided' | HubError;

/**
 * Whether a user may begin a call: while fewer tokens are used than the limit. What calls in flight will use isn't known yet, so each has
 * reserved what it is expected to use; if with that the limit is reached, the call has to wait for them.
 *
 * @param state of this moment; undefined if they never had a subscription
 * @param reserved tokens that calls of this period which are under way have reserved
 */
export function decide(
  state: SubscriptionState | undefined,
  { now, limit, reserved }: { now: Date; limit: number; reserved: number },
): Decision {
  if (state === undefined || statusAt(state, now) === 'expired') return subscriptionRequired();
  if (state.tokensUsed >= limit) return tokenLimitExceeded(state.periodEnd);
  return state.tokensUsed + reserved < limit || reserved === 0 ? 'admitted' : 'undecided';
}

/** A greater count that a tool reports is ignored. */
const maxTokenCount = 1_000_000_000;

/**
 * What a call has used: what the tool reports in `usage.total_tokens`, else in `tokens_used`, else a token for each four bytes of request and
 * response. A count that is negative, no whole number or too large is ignored.
 */
export function tokensOf(output: Record<string, unknown>, bytes: number): number {
  const { usage } = output;
  const said = isObject(usage) ? usage['total_tokens'] : undefined;
  return [said, output['tokens_used']].find(isCount) ?? tokensOfBytes(bytes);
}

export function tokensOfBytes(bytes: number): number {
  return Math.ceil(bytes / 4);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= maxTokenCount;
}

/** What a tool answered, as an object: one as it is, anything else as the `result` of one. */
export function outputOf(answer: unknown): Record<string, unknown> {
  return isObject(answer) ? answer : { result: answer };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether a value of JSON has no more than so many levels of objects and lists in each other. */
export function isShallow(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return true;
  if (levels === 0) return false;
  return Object.values(value).every((inner) => isShallow(inner, levels - 1));
}

/** How an executed call ended. */
export type ResponseStatus = 'success' | 'error' | 'timeout';

/** Days in UTC, from the beginning of the first to before that of the day after the last; undefined is no limit. */
export interface Days {
  from: Date | undefined;
  until: Date | undefined;
}

const day = 86_400_000;

/** The days from `start` to `end`, both inclusive, of which an empty one is no limit; or what is wrong with them. */
export function daysFrom(start: string, end: string): { days: Days; problems: FieldViolation[] } {
  const problems: FieldViolation[] = [];
  const read = (field: string, text: string): Date | undefined => {
    if (text === '') return undefined;
    const date = new Date(`${text}T00:00:00Z`);
    // The calendar has no 30th of February, though Date does.
    if (!Number.isNaN(date.getTime()) && date.toISOString().startsWith(text) && date.getUTCFullYear() > 0) return date;
    problems.push({ field, rule: 'date', description: 'must be a day of the calendar, as YYYY-MM-DD' });
    return undefined;
  };
  const from = read('start_date', start);
  const last = read('end_date', end);
  if (from !== undefined && last !== undefined && from > last) {
    problems.push({ field: 'start_date', rule: 'range', description: 'must not be after end_date' });
  }
  return { days: { from, until: last === undefined ? undefined : new Date(last.getTime() + day) }, problems };
}

/** The form in which names are compared: no two tools may have names that differ only in letter case. */
export function nameKey(name: string): string {
  return name.normalize('NFC').toLowerCase();
}

const maxNameLength = 100;

/** What is wrong with the texts of a tool; undefined ones stay as they are. */
export function toolProblems({ name, description }: { name?: string; description?: string }): FieldViolation[] {
  const problems: FieldViolation[] = [];
  if (name !== undefined) {
    const { length } = Array.from(name.trim());
    if (length === 0) problems.push({ field: 'name', rule: 'required', description: 'must not be blank' });
    if (length > maxNameLength)
      problems.push({
        field: 'name',
        rule: 'max_length',
        description: `must have at most ${maxNameLength} characters`,
      });
  }
  if (description !== undefined && description.trim() === '') {
    problems.push({ field: 'description', rule: 'required', description: 'must not be blank' });
  }
  return problems;
}

export function toolNotFound(): HubError {
  return new HubError('NOT_FOUND', 'TOOL_NOT_FOUND', 'Tool not found');
}

export function toolNameTaken(): HubError {
  return new HubError('ALREADY_EXISTS', 'TOOL_NAME_TAKEN', 'Another tool has this name', {
    fields: [{ field: 'name', rule: 'unique', description: 'is the name of another tool' }],
  });
}

export function subscriptionNotFound(): HubError {
  return new HubError('NOT_FOUND', 'SUBSCRIPTION_NOT_FOUND', 'You have no subscription');
}

export function subscriptionRequired(): HubError {
  return new HubError('PERMISSION_DENIED', 'SUBSCRIPTION_REQUIRED', 'You need a subscription to invoke tools');
}

export function tokenLimitExceeded(periodEnd: Date): HubError {
  const text = `You have used all tokens of this period, which ends at ${periodEnd.toISOString()}`;
  return new HubError('PERMISSION_DENIED', 'TOKEN_LIMIT_EXCEEDED', text);
}

/** The error for a call that has waited in vain for other calls of its user, which have reserved all tokens that are left. */
export function tokensReserved(): HubError {
  const text = 'The tokens that are left are reserved for calls of yours that are still running';
  return new HubError('PERMISSION_DENIED', 'TOKEN_LIMIT_EXCEEDED', text);
}

export function toolUnavailable(why: string, { retryAfter = 1, cause }: { retryAfter?: number; cause?: unknown } = {}) {
  return new HubError('UNAVAILABLE', 'TOOL_UNAVAILABLE', why, { retryAfter, cause });
}

export function toolTimeout(seconds: number): HubError {
  const text = `The tool has not answered within ${seconds} s`;
  return new HubError('UNAVAILABLE', 'TOOL_TIMEOUT', text, { retryAfter: 1 });
}

/** @param retryAfter seconds */
export function circuitOpen(retryAfter: number): HubError {
  const text = 'The tool has failed several times in a row and is left alone for a while';
  return new HubError('UNAVAILABLE', 'CIRCUIT_OPEN', text, { retryAfter });
}
