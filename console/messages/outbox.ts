import { effect, signal } from '@preact/signals';
import { RefusedError } from '#client';
import type { SendMessageRequest } from '#client/message';
import { wordsFor } from '../shell/errors.ts';
import { newId } from '../shell/ids.ts';
import { client, isReachable, LoggedOutError, me, nameOfMine, pauseOrReach, standing } from '../shell/session.ts';
import { kept } from '../shell/storage.ts';

/**
 * What is written and not accepted yet. Each message has its id from the moment it is sent, and is kept with it until the hub has accepted it,
 * through reloads and lost connections: however often it is sent, it stays one message.
 */

export interface Waiting {
  /** What is sent, as it stands. */
  request: SendMessageRequest;
  /** Of a file, to show it. */
  file?: { name: string; size: number };
  /** When it was written. */
  written_at: string;
  /** `waiting` to be sent, or to be sent again; `accepted`, but not in the conversation yet; `refused` for good, with the reason. */
  state: 'waiting' | 'accepted' | 'refused';
  reason?: string;
}

/** All conversations' messages that wait, in the order in which they were written. */
export const outbox = signal<readonly Waiting[]>([]);

/** Calls back when a message is accepted, with its conversation. */
let accepted: (conversation: string) => void = () => {};
export function onAccepted(listener: typeof accepted): void {
  accepted = listener;
}

const keptName = (id: string) => nameOfMine(`outbox.${id}`);

/** Conversations whose messages are being sent: one after the other, in their order. */
const sending = new Set<string>();

/** Takes a message, and sends it as soon as that can be. */
export function send(
  message: Pick<SendMessageRequest, 'conversation_id' | 'channels' | 'payload'>,
  file?: Waiting['file'],
): void {
  const request: SendMessageRequest = { message_id: newId(), from: me(), ...message };
  const entry: Waiting = { request, ...(file && { file }), written_at: new Date().toISOString(), state: 'waiting' };
  kept.set(keptName(request.message_id), entry);
  outbox.value = [...outbox.peek(), entry];
  void work(request.conversation_id);
}

/** Sends a refused message again, as it is. */
export function sendAgain(id: string): void {
  change(id, { state: 'waiting' });
  const found = find(id);
  if (found) void work(found.request.conversation_id);
}

/** Gives a message up that was refused. */
export function discard(id: string): void {
  remove(id);
}

/** Takes note that a message is in its conversation: what waits of it is done. @returns whether something of it did */
export function noteArrived(id: string): boolean {
  const waits = find(id) !== undefined;
  if (waits) remove(id);
  return waits;
}

/** Finds what was not accepted before a reload, and sends it. Called once. */
export function startOutbox(): void {
  const found = kept
    .names(nameOfMine('outbox.'))
    .map((name) => kept.get(name) as Waiting)
    .toSorted((a, b) => (a.written_at < b.written_at ? -1 : 1));
  outbox.value = found;
  // Whenever the hub can be reached again, or somebody has logged in again.
  effect(() => {
    if (isReachable.value && standing.value === 'in') {
      for (const id of new Set(outbox.peek().map(({ request }) => request.conversation_id))) void work(id);
    }
  });
}

/** Between two tries, in milliseconds. */
const [firstPause, longestPause] = [1_000, 15_000];

async function work(conversation: string): Promise<void> {
  if (sending.has(conversation)) return;
  sending.add(conversation);
  let pause = firstPause;
  try {
    for (;;) {
      const next = outbox
        .peek()
        .find(({ request, state }) => request.conversation_id === conversation && state === 'waiting');
      if (next === undefined) return;
      const { message_id } = next.request;
      try {
        await client.message.sendMessage(next.request);
        kept.set(keptName(message_id), undefined);
        change(message_id, { state: 'accepted' });
        accepted(conversation);
        pause = firstPause;
      } catch (error) {
        if (error instanceof LoggedOutError) return;
        if (error instanceof RefusedError && error.status < 500 && error.status !== 429 && error.status !== 409) {
          change(message_id, { state: 'refused', reason: wordsFor(error) });
          continue;
        }
        const wait = error instanceof RefusedError ? Math.max(pause, (error.retryAfter ?? 0) * 1_000) : pause;
        await pauseOrReach(wait);
        pause = Math.min(2 * pause, longestPause);
      }
    }
  } finally {
    sending.delete(conversation);
  }
}

function find(id: string): Waiting | undefined {
  return outbox.peek().find(({ request }) => request.message_id === id);
}

function change(id: string, changes: Partial<Waiting>): void {
  outbox.value = outbox.peek().map((entry) => (entry.request.message_id === id ? { ...entry, ...changes } : entry));
  const entry = find(id);
  if (entry !== undefined && entry.state !== 'accepted') kept.set(keptName(id), entry);
}

function remove(id: string): void {
  outbox.value = outbox.peek().filter(({ request }) => request.message_id !== id);
  kept.set(keptName(id), undefined);
}
