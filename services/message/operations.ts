import { fromBinary, toJson, type JsonObject } from '@bufbuild/protobuf';
import {
  DeadLetterState,
  type DeadLetter as WireDeadLetter,
  type ListDeadLettersRequest,
  type OperationsServiceService,
  type TopicLag,
} from '#gen/chat4all/message/v1/operations.ts';
import type { Bus } from '#lib/bus/bus.ts';
import { hubDate } from '#lib/clock.ts';
import { HubError, type FieldViolation } from '#lib/errors.ts';
import { sample, sharedGauge } from '#lib/metrics.ts';
import { mostPageBytes } from '#lib/page-bytes.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import { registry } from '#lib/rpc/schema.ts';
import type { Checks, Handlers } from '#lib/rpc/server.ts';
import { balances, type Audit } from './audit.ts';
import type { Channels } from './channels.ts';
import type { DeadLetter, DeadLetters, DeadLetterWithValue, Selection } from './dead-letters.ts';
import { timesOf } from './message.ts';
import type { Relay } from './relay.ts';

export interface OperationsOptions {
  letters: DeadLetters;
  audit: Audit;
  bus: Pick<Bus, 'publish' | 'lag'>;
  relay: Pick<Relay, 'wake'>;
  channels: Pick<Channels, 'known'>;
  /** How long after its acceptance, or its replay, a message is delivered or failed, in milliseconds. */
  deadline: number;
}

const defaultLimit = 50;
const defaultReplays = 100;
/** Milliseconds. */
const defaultPeriod = 3_600_000;
/** Bytes of an event that is shown decoded, too: as JSON it may be twice as large. */
const mostDecoded = 1024 * 1024;

const waiting = sharedGauge('dead_letters_waiting', 'Events that were given up and not replayed so far');

/** Shows how many dead letters wait, until what is returned is called. */
export function watchDeadLetters(letters: Pick<DeadLetters, 'count'>): () => void {
  return sample(async (tell) => tell(waiting, {}, await letters.count({ state: 'waiting' })));
}

/** What administrators do. That they are administrators is checked before. */
export function operations(options: OperationsOptions): Handlers<typeof OperationsServiceService> {
  const { letters, audit, bus, relay, channels, deadline } = options;

  /** Publishes events as they were, those of a topic together and in order. */
  async function publish(some: readonly DeadLetterWithValue[]): Promise<void> {
    for (const [topic, group] of Map.groupBy(some, (letter) => letter.topic)) {
      await bus.publish(
        topic,
        group.map(({ eventId, eventType, key, value, requestId }) => ({
          id: eventId,
          type: eventType,
          key,
          value,
          requestId,
          isReplayed: true,
        })),
      );
    }
  }

  /** How far each group is behind; undefined while the bus can't be asked. */
  async function lagOfAll(): Promise<TopicLag[] | undefined> {
    const consumed = [
      { topic: 'message_processing', group: 'router' },
      { topic: 'message_status', group: 'message' },
      ...(channels.known() ?? []).map((channel) => ({
        topic: `${channel}_outgoing`,
        group: `${channel}_connector`,
      })),
    ];
    try {
      return await Promise.all(
        consumed.map(async ({ topic, group }) => {
          const partitions = await bus.lag(topic, group);
          return {
            topic,
            group,
            events: BigInt(partitions.reduce((sum, { events }) => sum + events, 0)),
            partitions: partitions.map(({ partition, events }) => ({ partition, events: BigInt(events) })),
          };
        }),
      );
    } catch (error) {
      if (error instanceof HubError) return undefined;
      throw error;
    }
  }

  return {
    async listDeadLetters(request) {
      const { offset } = request;
      const limit = request.limit ?? defaultLimit;
      const found = await letters.list(selectionOf(request), { limit, offset });
      return { deadLetters: found.letters.map(wireOf), total: BigInt(found.total), limit, offset };
    },

    async getDeadLetter({ id }) {
      const letter = await letters.find(id);
      if (letter === undefined) {
        throw new HubError('NOT_FOUND', 'DEAD_LETTER_NOT_FOUND', 'Dead letter not found');
      }
      const size = letter.value.byteLength;
      return {
        deadLetter: wireOf(letter),
        decoded: size > mostDecoded ? undefined : decoded(letter),
        value: size > mostPageBytes ? Buffer.alloc(0) : letter.value,
      };
    },

    async replayDeadLetters(request, call: UserCall) {
      const isNamed = request.ids.length > 0;
      const selection: Selection = {
        ...selectionOf({ ...request, state: DeadLetterState.DEAD_LETTER_STATE_UNSPECIFIED }),
        ...(isNamed ? { ids: request.ids } : { state: 'waiting' }),
      };
      const done = await letters.replay(selection, {
        by: call.caller.username,
        requestId: call.requestId,
        limit: isNamed ? request.ids.length : (request.limit ?? defaultReplays),
        timesOf: (acceptedAt) => timesOf(acceptedAt, deadline),
        publish,
        signal: call.signal,
      });
      if (done.messages > 0) relay.wake();
      const remaining = await letters.count({ ...selection, state: 'waiting' });
      return { ...done, remaining: BigInt(remaining) };
    },

    async getAudit(request) {
      const now = hubDate();
      const to = request.to ?? now;
      const from = request.from ?? new Date(to.getTime() - defaultPeriod);
      const [{ books, to: end }, lag] = await Promise.all([audit.books(from, to), lagOfAll()]);
      const ageOf = (since: Date) => BigInt(Math.max(0, now.getTime() - since.getTime()));
      const { oldestInFlight: oldest, oldestOutboxEvent, ...plain } = books;
      return {
        ...plain,
        from,
        to: end,
        next: end < to ? end : undefined,
        balanced: balances(books),
        oldestInFlight: oldest && { ...oldest, ageMs: ageOf(oldest.acceptedAt) },
        outboxAgeMs: oldestOutboxEvent === undefined ? 0n : ageOf(oldestOutboxEvent),
        lag: lag ?? [],
        lagKnown: lag !== undefined,
      };
    },
  };
}

/** What is wrong with a request that its proto can't say. */
export const operationsChecks: Checks<typeof OperationsServiceService> = {
  listDeadLetters: periodViolations,
  getAudit: periodViolations,
  replayDeadLetters(request) {
    const { ids, messageId, channel, topic, from, to } = request;
    const isSaid = ids.length > 0 || messageId !== '' || channel !== '' || topic !== '' || !!from || !!to;
    if (isSaid) return periodViolations(request);
    return [{ field: 'ids', description: 'is required, or message_id, channel, topic, from or to' }];
  },
};

function periodViolations({ from, to }: { from?: Date | undefined; to?: Date | undefined }): FieldViolation[] {
  return from === undefined || to === undefined || from < to
    ? []
    : [{ field: 'from', description: 'must be before `to`' }];
}

const states: Record<number, Selection['state']> = {
  [DeadLetterState.DEAD_LETTER_STATE_WAITING]: 'waiting',
  [DeadLetterState.DEAD_LETTER_STATE_REPLAYED]: 'replayed',
};

function selectionOf(
  request: Pick<ListDeadLettersRequest, 'messageId' | 'channel' | 'topic' | 'from' | 'to' | 'state'>,
): Selection {
  return {
    messageId: request.messageId || undefined,
    channel: request.channel.toLowerCase() || undefined,
    topic: request.topic || undefined,
    from: request.from,
    to: request.to,
    state: states[request.state],
  };
}

function wireOf(letter: DeadLetter): WireDeadLetter {
  const { messageId, channel, replayedAt, replayedBy, recipientId: _, ...plain } = letter;
  return {
    ...plain,
    messageId: messageId ?? '',
    channel: channel ?? '',
    state: replayedAt === null ? DeadLetterState.DEAD_LETTER_STATE_WAITING : DeadLetterState.DEAD_LETTER_STATE_REPLAYED,
    replayedAt: replayedAt ?? undefined,
    replayedBy: replayedBy ?? '',
  };
}

/** What an event says, in ProtoJSON; undefined if it is no message of its type. */
function decoded({ eventType, value }: DeadLetterWithValue): JsonObject | undefined {
  const type = registry.getMessage(eventType);
  if (type === undefined) return undefined;
  try {
    return toJson(type, fromBinary(type, value), { registry, useProtoFieldName: true }) as JsonObject;
  } catch {
    return undefined;
  }
}
