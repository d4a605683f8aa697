import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Breach } from './breach.ts';
import type { Clients } from './clients.ts';
import type { SentMessage } from './journal.ts';
import { connect } from './observe.ts';
import { hasEnded, recover } from './quiet.ts';
import type { Scale } from './plan.ts';
import type { System } from './system.ts';

/** People beside those who write: nobody of them logs in. */
export const strangers = 1_000;
const conversations = 11;
const treatments = ['throttled', 'out_of_order', 'silent'] as const;
/** Of how many people the network doesn't serve. */
const unserved = 10;
const messagesEach = 2;
/** Milliseconds: a message goes to ninety people. */
const pause = 500;
/**
 * Milliseconds within which 99 of 100 deliveries to those are made whom the network serves. In the tiny form, which tests run on machines
 * that are busy with others, half of what an attempt may take: whoever waited for a silent recipient would wait for all of it.
 */
const limits: Record<Scale, number> = { tiny: 5_000, short: 1_000, long: 1_000 };
const patience = 60_000;

export interface StrangersReport {
  /** Deliveries to people whom the network serves, and the milliseconds from their acceptance to their end, of the slowest but one in a hundred. */
  deliveries: number;
  p99: number;
}

/**
 * Writes to a thousand people of whom the network `channel` throttles some, is silent about others, and is out of order for others, in each
 * of their conversations: the rest must not wait for them. Then the network serves all again.
 */
export async function writeToStrangers(options: {
  system: System;
  clients: Clients;
  channel: string;
  /** How the network behaves otherwise. */
  profile: object;
  scale: Scale;
  signal: AbortSignal;
  breaches: Breach[];
}): Promise<StrangersReport> {
  const { system, clients, channel, profile, scale, signal, breaches } = options;
  const sender = clients.administrator;
  await using database = await connect(system.databaseUrl);
  const { rows } = await database.client.query<{ id: string }>(
    `select id from auth.users where id <> all($1) order by username limit $2`,
    [[...clients.tokens.keys()], strangers],
  );
  const people = rows.map(({ id }) => id);
  const size = Math.ceil(people.length / conversations);
  const groups = Array.from({ length: conversations }, (_, index) => people.slice(index * size, (index + 1) * size));
  const missed = groups.slice(0, unserved).map((group) => group[0]!);

  async function call(method: string, at: string, body?: object): Promise<{ conversation_id?: string }> {
    const response = await fetch(`${system.url}${at}`, {
      method,
      headers: { authorization: `Bearer ${clients.tokens.get(sender)}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.any([signal, AbortSignal.timeout(patience)]),
    });
    const answer = (await response.json()) as { conversation_id?: string };
    if (!response.ok) throw new Error(`${method} ${at}: ${response.status} ${JSON.stringify(answer)}`);
    return answer;
  }

  const profilePath = `/v1/admin/channels/${channel}/profile`;
  const opened = await Promise.all(
    groups.map(async (group) => {
      const members = [sender, ...group];
      const { conversation_id: id } = await call('POST', '/v1/conversations', { type: 'group', members });
      const conversation = { id: id!, members };
      clients.conversations.push(conversation);
      return conversation;
    }),
  );
  const exceptions = treatments.map((treatment, index) => ({
    treatment,
    recipients: missed.filter((_, number) => number % treatments.length === index),
  }));
  const sent: SentMessage[] = [];

  /** Writes to all conversations in turn, so many times. */
  async function write(times: number): Promise<void> {
    for (let number = 0; number < conversations * times; number += 1) {
      const { id, members } = opened[number % conversations]!;
      const message: SentMessage = {
        messageId: randomUUID(),
        conversationId: id,
        senderId: sender,
        recipientIds: members.slice(1),
        channels: [channel],
        content: { text: `to strangers ${number}` },
        // Of its own for each conversation, beside those of the clients.
        lane: 100_000 + (number % conversations),
        told: 'nothing',
        firstTried: Date.now(),
        toldAt: 0,
        tries: [],
      };
      clients.journal.messages.push(message);
      await call('POST', '/v1/messages', {
        message_id: message.messageId,
        conversation_id: id,
        from: sender,
        channels: [channel],
        payload: { type: 'text', text: `to strangers ${number}` },
      });
      Object.assign(message, { told: 'accepted', toldAt: Date.now() });
      sent.push(message);
      await sleep(pause, undefined, { signal });
    }
  }

  // A hub that has just started still compiles its code and opens its connections. That must not count as waiting for others.
  await write(1);
  await recover(system, Date.now(), signal, hasEnded(Date.now()));
  sent.length = 0;
  await call('PUT', profilePath, { ...profile, exceptions });
  try {
    await write(messagesEach);
    const expected = sent.reduce(
      (sum, { recipientIds }) => sum + recipientIds.filter((id) => !missed.includes(id)).length,
      0,
    );
    let times: number[] = [];
    for (const giveUp = Date.now() + patience; times.length < expected && Date.now() < giveUp;) {
      await sleep(200, undefined, { signal });
      const found = await database.client.query<{ ms: number }>(
        `select (extract(epoch from d.updated_at - m.created_at) * 1000)::float8 as ms
           from message.deliveries d join message.messages m using (message_id)
          where message_id = any($1) and recipient_id <> all($2) and d.status in ('delivered', 'failed')`,
        [sent.map(({ messageId }) => messageId), missed],
      );
      times = found.rows.map(({ ms }) => ms).toSorted((one, other) => one - other);
    }
    const p99 = times[Math.ceil(times.length * 0.99) - 1] ?? Infinity;
    if (times.length < expected || p99 > limits[scale]) {
      const text = `of ${expected} deliveries beside those that a network didn't serve ${times.length} have ended, 99 % of them within ${Math.round(p99)} ms`;
      breaches.push({ rule: 'slow', text });
    }
    return { deliveries: times.length, p99 };
  } finally {
    await call('DELETE', profilePath);
  }
}
