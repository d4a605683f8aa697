import { HubError, type FieldViolation } from '#lib/errors.ts';
import { isUuid } from '#lib/uuid.ts';

export type ConversationKind = 'private' | 'group';

/** An existing user. */
export interface KnownUser {
  /** UUID in lower case. */
  userId: string;
  username: string;
}

/** The time of activity in a conversation. */
export interface Activity {
  conversationId: string;
  at: Date;
}

const sizes = {
  private: { min: 2, max: 2, rule: 'must name exactly 2 people for a private conversation' },
  group: { min: 3, max: 100, rule: 'must name 3 to 100 people for a group' },
} as const;

/** The ids and usernames to look up for the given members, regardless of letter case. Text that looks like an id may also be a username. */
export function possibleUsers(named: readonly string[]): { userIds: string[]; usernames: string[] } {
  const ids = named.map((name) => name.toLowerCase()).filter(isUuid);
  return { userIds: [...new Set(ids)], usernames: [...new Set(named)] };
}

/**
 * The members of a new conversation, in the given order, with everything that is wrong with them: their number, unknown users, and users
 * who are named twice, by id or username.
 *
 * @param kind undefined if it is invalid itself: then any number is accepted
 * @param known the users found for `possibleUsers(named)`
 */
export function chooseMembers(
  kind: ConversationKind | undefined,
  named: readonly string[],
  known: readonly KnownUser[],
): { userIds: string[]; problems: FieldViolation[] } {
  const problems: FieldViolation[] = [];
  const size = kind === undefined ? undefined : sizes[kind];
  if (size !== undefined && (named.length < size.min || named.length > size.max)) {
    problems.push({ field: 'members', description: size.rule });
  }
  const byId = new Map(known.map((user) => [user.userId, user.userId]));
  const byName = new Map(known.map((user) => [user.username, user.userId]));
  const firstPlace = new Map<string, number>();
  for (const [place, name] of named.entries()) {
    const field = `members[${place}]`;
    const userId = byId.get(name.toLowerCase()) ?? byName.get(name) ?? byName.get(name.toLowerCase());
    if (userId === undefined) {
      problems.push({ field, description: 'is neither the id nor the name of a user' });
      continue;
    }
    const earlier = firstPlace.get(userId);
    if (earlier === undefined) firstPlace.set(userId, place);
    else problems.push({ field, description: `names the same person as members[${earlier}]` });
  }
  return { userIds: [...firstPlace.keys()], problems };
}

/**
 * Whether one more may be added to a conversation.
 *
 * @throws HubError FAILED_PRECONDITION `NOT_A_GROUP` or `GROUP_FULL`
 */
export function requireRoom({ type, memberIds }: { type: ConversationKind; memberIds: readonly string[] }): void {
  if (type !== 'group') {
    throw new HubError(
      'FAILED_PRECONDITION',
      'NOT_A_GROUP',
      'Nobody can be added to a private conversation: open a group',
    );
  }
  if (memberIds.length >= sizes.group.max) {
    throw new HubError('FAILED_PRECONDITION', 'GROUP_FULL', `The group has ${sizes.group.max} members already`);
  }
}

/** The latest activity of each conversation. */
export function latestActivity(activities: readonly Activity[]): Activity[] {
  const latest = new Map<string, Activity>();
  for (const activity of activities) {
    const known = latest.get(activity.conversationId);
    if (known === undefined || known.at < activity.at) latest.set(activity.conversationId, activity);
  }
  return [...latest.values()];
}

export function conversationNotFound(): HubError {
  return new HubError('NOT_FOUND', 'CONVERSATION_NOT_FOUND', 'Conversation not found');
}

/** The error for a user who asks for a conversation without being a member. */
export function notAMember(): HubError {
  return new HubError('PERMISSION_DENIED', 'NOT_A_MEMBER', 'Access denied: you are not a member of this conversation');
}

/** The error for a user who opens a conversation without being one of its members. */
export function notAmongMembers(): HubError {
  return new HubError('PERMISSION_DENIED', 'NOT_A_MEMBER', 'Access denied: you must be one of the members yourself');
}
