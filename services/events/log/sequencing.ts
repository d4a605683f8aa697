import type { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { groups, topics } from '#gen/events.ts';
import { BoundedMap } from '#lib/bounded-map.ts';
import type { Bus, Consumer, ReceivedEvent } from '#lib/bus/bus.ts';
import { hubTime } from '#lib/clock.ts';
import { counter } from '#lib/metrics.ts';
import type { Connection } from '#lib/rpc/client.ts';
import { createdEntry, entryOf } from '../wire.ts';
import type { Appended, LogStore, NewEntry } from './log-store.ts';

export interface SequencingOptions {
  bus: Bus;
  store: Pick<LogStore, 'append' | 'knownConversations' | 'adopt'>;
  conversations: Pick<Connection<typeof ConversationServiceService>, 'getConversations'>;
  /** Called when the log has grown. */
  grown: (appended: Appended) => void;
}

/** What comes between two rounds is appended by one transaction. */
const rounds = { interval: 30, batchSize: 500 };
const maxKnown = 100_000;
/** A conversation that is younger than this when it is first heard of is told as a new one. */
const newForMs = 3_600_000;

const appended = counter('events_appended_total', 'Events that were given to the log, those that came again included');

/**
 * Appends to the log what services tell on the bus, in rounds. Events of a key keep their order.
 *
 * Conversations and messages come from different services, so that a message may come before the conversation that it is in, or after the
 * bus has forgotten that one. Then the conversation service is asked: an event is appended only once it is known who may see it.
 */
export async function startSequencing({ bus, store, conversations, grown }: SequencingOptions): Promise<Consumer> {
  const known = new BoundedMap<string, true>(maxKnown);

  /** Conversations of which it is not known who may see the events, though the entries say nothing of it before. */
  async function missing(entries: readonly NewEntry[]): Promise<string[]> {
    const opened = new Set<string>();
    const ids = new Set<string>();
    for (const { conversationId: id, joins = [] } of entries) {
      if (id === null || known.has(id) || opened.has(id)) continue;
      // Only what opens a conversation has several join it.
      if (joins.length > 1 && !ids.has(id)) opened.add(id);
      else ids.add(id);
    }
    if (ids.size === 0) return [];
    const found = await store.knownConversations([...ids]);
    for (const id of found) known.set(id, true);
    return [...ids].filter((id) => !known.has(id));
  }

  /** What has to stand in the log before events of conversations that it doesn't know. */
  async function introduce(ids: readonly string[]): Promise<NewEntry[]> {
    if (ids.length === 0) return [];
    const { conversations: found } = await conversations.getConversations({ conversationIds: [...ids] });
    const isNew = ({ createdAt }: { createdAt?: Date | undefined }) =>
      createdAt !== undefined && hubTime() - createdAt.getTime() < newForMs;
    const old = found.filter((conversation) => !isNew(conversation));
    if (old.length > 0)
      await store.adopt(old.map(({ conversationId, members: memberIds }) => ({ conversationId, memberIds })));
    return found.filter(isNew).map(createdEntry);
  }

  async function handle(events: readonly ReceivedEvent[]): Promise<void> {
    const entries = events.map(entryOf);
    const unknown = await missing(entries);
    const first = await introduce(unknown);
    const done = await store.append([...first, ...entries]);
    for (const id of unknown) known.set(id, true);
    appended.inc(entries.length);
    grown(done);
  }

  return bus.consume({
    topics: [topics.messageChanges, topics.conversationChanges, topics.fileChanges],
    group: groups.events,
    ...rounds,
    handle,
  });
}
