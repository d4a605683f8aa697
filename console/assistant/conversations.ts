import { computed, signal } from '@preact/signals';
import type { Conversation } from '#client/assistant';
import { client, me } from '../shell/session.ts';

/** The conversations with the assistant, as the list shows them. */

/** By id. */
export const known = signal<ReadonlyMap<number, Conversation>>(new Map());
/** How many there are, those included that are not loaded; undefined until that is known. */
export const total = signal<number | undefined>(undefined);
/** Why the list could not be loaded. */
export const listError = signal<unknown>(undefined);

/** Those that are loaded, the one with the newest activity first. */
export const inOrder = computed<readonly Conversation[]>(() =>
  [...known.value.values()].toSorted((a, b) => (a.updated_at < b.updated_at ? 1 : -1)),
);

const pageSize = 50;

/** Loads the newest conversations. Those that are shown stay. */
export async function loadNewest(): Promise<void> {
  try {
    await loadFrom(0);
    listError.value = undefined;
  } catch (error) {
    listError.value = error;
  }
}

/** Loads the conversations behind those that are shown. @throws what the client throws */
export function loadMore(): Promise<void> {
  return loadFrom(known.peek().size);
}

async function loadFrom(offset: number): Promise<void> {
  const page = await client.assistant.listConversations({ user_id: me(), limit: pageSize, offset });
  // Where the first page holds all of them, what is not in it was deleted elsewhere.
  const isAll = offset === 0 && page.total <= page.conversations.length;
  const before = isAll ? new Map<number, Conversation>() : known.peek();
  known.value = new Map([...before, ...page.conversations.map((each) => [each.id, each] as const)]);
  total.value = page.total;
}

/** Gives a conversation another title. @throws what the client throws */
export async function rename(id: number, title: string): Promise<void> {
  const conversation = await client.assistant.updateConversation({ user_id: me(), conversation_id: id, title });
  known.value = new Map(known.peek()).set(id, conversation);
}

/** Deletes a conversation with all that was said in it. @throws what the client throws */
export async function remove(id: number): Promise<void> {
  await client.assistant.deleteConversation({ user_id: me(), conversation_id: id });
  const rest = new Map(known.peek());
  if (rest.delete(id)) total.value = Math.max(0, (total.peek() ?? 0) - 1);
  known.value = rest;
}
