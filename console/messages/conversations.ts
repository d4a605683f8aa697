import { computed, signal } from '@preact/signals';
import type { Conversation } from '#client/conversation';
import type { StreamEventsResponse } from '#client/events';
import type { Message } from '#client/message';
import { client, me } from '../shell/session.ts';
import { learn, nameOf } from './people.ts';

/** The conversations of whoever is logged in, and what the list shows of each. */

export interface Known {
  conversation: Conversation;
  /** Its newest message; undefined where there is none, or while it is not known yet. */
  last: Message | undefined;
  /** How far each member has read, by user id. */
  read: ReadonlyMap<string, number>;
  /** Whether `last` and `read` are loaded. */
  isSummed: boolean;
}

/** By id. */
export const known = signal<ReadonlyMap<string, Known>>(new Map());
/** How many there are, those included that are not loaded. */
export const total = signal<number | undefined>(undefined);

/** Those that are loaded, the one with the newest activity first. */
export const inOrder = computed<readonly Known[]>(() =>
  [...known.value.values()].toSorted((a, b) => (activityOf(a) < activityOf(b) ? 1 : -1)),
);

function activityOf({ conversation, last }: Known): string {
  return last?.created_at ?? conversation.created_at;
}

/** How many messages of a conversation have come since somebody read it last. What one has written oneself is read. */
export function unreadOf({ last, read, isSummed }: Known): number {
  if (!isSummed || last === undefined || last.from === me()) return 0;
  return Math.max(0, last.seq - (read.get(me()) ?? 0));
}

/** What to call a conversation: its name, or who else is in it. */
export function titleOf({ metadata, members }: Conversation): string {
  if (metadata.name !== '') return metadata.name;
  const others = members.filter((member) => member !== me());
  return others.length === 0 ? 'Nobody else' : others.map(nameOf).join(', ');
}

const pageSize = 50;
/** How many conversations are summed up at once. */
const atOnce = 6;

/** Why the list could not be loaded. */
export const listError = signal<unknown>(undefined);

/** Loads the next page of the list, or the first one anew. */
export async function load({ anew = false } = {}): Promise<void> {
  listError.value = undefined;
  try {
    await loadPage(anew);
  } catch (error) {
    listError.value = error;
  }
}

async function loadPage(anew: boolean): Promise<void> {
  const offset = anew ? 0 : known.peek().size;
  const page = await client.conversation.listConversations({ limit: pageSize, offset });
  total.value = page.total;
  const before = anew ? new Map<string, Known>() : new Map(known.peek());
  for (const conversation of page.conversations) {
    const { conversation_id: id } = conversation;
    const earlier = known.peek().get(id) ?? { last: undefined, read: new Map<string, number>(), isSummed: false };
    before.set(id, { ...earlier, conversation });
  }
  known.value = before;
  const queue = page.conversations.map(({ conversation_id }) => conversation_id).values();
  const work = async () => {
    for (const id of queue) await sum(id);
  };
  await Promise.all(Array.from({ length: atOnce }, work));
}

/** Loads what the list shows of a conversation. */
async function sum(id: string): Promise<void> {
  const [{ messages }, { positions }] = await Promise.all([
    client.message.listMessages({ conversation_id: id, limit: 1 }),
    client.message.getReadPositions({ conversation_id: id }),
  ]);
  const [last] = messages;
  if (last !== undefined) learn(last.from, last.sender.username);
  update(id, (before) => ({
    last: newer(before.last, last),
    read: positions.reduce((read, { user_id, seq }) => furthest(read, user_id, seq), before.read),
    isSummed: true,
  }));
}

/** Loads a conversation that is not in the list yet. @throws what the client throws */
export async function loadOne(id: string): Promise<void> {
  add(await client.conversation.getConversation({ conversation_id: id }));
  await sum(id);
}

/** Takes a conversation into the list. */
export function add(conversation: Conversation): void {
  const { conversation_id: id } = conversation;
  const earlier = known.peek().get(id) ?? { last: undefined, read: new Map<string, number>(), isSummed: false };
  known.value = new Map(known.peek()).set(id, { ...earlier, conversation });
}

function update(id: string, change: (before: Known) => Partial<Known>): void {
  const before = known.peek().get(id);
  if (before !== undefined) known.value = new Map(known.peek()).set(id, { ...before, ...change(before) });
}

function newer(a: Message | undefined, b: Message | undefined): Message | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return b.seq >= a.seq ? b : a;
}

function furthest(read: ReadonlyMap<string, number>, user: string, seq: number): ReadonlyMap<string, number> {
  return (read.get(user) ?? 0) >= seq ? read : new Map(read).set(user, seq);
}

/** The id of the conversation with just this person, if it is in the list: a second one would only divide what they say. */
export function privateWith(user: string): string | undefined {
  return inOrder
    .peek()
    .map(({ conversation }) => conversation)
    .find(({ type, members }) => type === 'private' && members.length === 2 && members.includes(user))?.conversation_id;
}

/** Takes a conversation out of the list: one has left it. */
export function forget(id: string): void {
  const rest = new Map(known.peek());
  rest.delete(id);
  known.value = rest;
}

/** Takes note that the conversation is read up to there. */
export function noteRead(id: string, user: string, seq: number): void {
  update(id, ({ read }) => ({ read: furthest(read, user, seq) }));
}

/** Brings the list up to date with what has happened. */
export function apply(event: StreamEventsResponse): void {
  if (event.message_accepted?.message) {
    const { message } = event.message_accepted;
    learn(message.from, message.sender.username);
    if (known.peek().has(message.conversation_id)) {
      update(message.conversation_id, ({ last }) => ({ last: newer(last, message) }));
    } else {
      loadOne(message.conversation_id).catch(() => {});
    }
  } else if (event.delivery_changed) {
    const { conversation_id, seq, status } = event.delivery_changed;
    update(conversation_id, ({ last }) => ({ last: last?.seq === seq ? { ...last, status } : last }));
  } else if (event.message_read) {
    noteRead(event.message_read.conversation_id, event.message_read.user_id, event.message_read.seq);
  } else if (event.conversation_created?.conversation) {
    add(event.conversation_created.conversation);
    update(event.conversation_created.conversation.conversation_id, () => ({ isSummed: true }));
    total.value = (total.peek() ?? 0) + 1;
  } else if (event.member_joined) {
    const { conversation_id, user_id } = event.member_joined;
    if (user_id === me()) loadOne(conversation_id).catch(() => {});
    else {
      update(conversation_id, ({ conversation }) => ({
        conversation: { ...conversation, members: [...new Set([...conversation.members, user_id])] },
      }));
    }
  } else if (event.member_left) {
    const { conversation_id, user_id } = event.member_left;
    if (user_id === me()) forget(conversation_id);
    else {
      update(conversation_id, ({ conversation }) => ({
        conversation: { ...conversation, members: conversation.members.filter((member) => member !== user_id) },
      }));
    }
  }
}
