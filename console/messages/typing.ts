import { signal } from '@preact/signals';
import type { StreamEventsResponse } from '#client/events';
import { client, me } from '../shell/session.ts';

/** Who is writing: by conversation, the users and the timers that end it. */
const writing = signal<ReadonlyMap<string, ReadonlySet<string>>>(new Map());
const timers = new Map<string, ReturnType<typeof setTimeout>>();

export function whoWrites(conversation: string): readonly string[] {
  return [...(writing.value.get(conversation) ?? [])];
}

/** Takes note of what has happened. */
export function applyTyping({ typing, message_accepted }: StreamEventsResponse): void {
  if (typing !== undefined && typing.user_id !== me()) {
    const { conversation_id, user_id, for_ms } = typing;
    set(conversation_id, user_id, true);
    const key = `${conversation_id} ${user_id}`;
    clearTimeout(timers.get(key));
    timers.set(
      key,
      setTimeout(() => set(conversation_id, user_id, false), for_ms),
    );
  }
  const message = message_accepted?.message;
  if (message) set(message.conversation_id, message.from, false);
}

function set(conversation: string, user: string, is: boolean): void {
  const before = writing.peek().get(conversation);
  if ((before?.has(user) ?? false) === is) return;
  const users = new Set(before);
  if (is) users.add(user);
  else users.delete(user);
  writing.value = new Map(writing.peek()).set(conversation, users);
}

/** Milliseconds after which the hub is told again that somebody goes on writing. */
const period = 4_000;
let told = { conversation: '', at: -Infinity };

/** Tells the others that one is writing. */
export function tellTyping(conversation: string): void {
  const now = performance.now();
  if (told.conversation === conversation && now - told.at < period) return;
  told = { conversation, at: now };
  // Nobody misses it if it fails.
  client.events.sendTyping({ conversation_id: conversation }, { retries: 0 }).catch(() => {});
}
