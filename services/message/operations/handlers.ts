import { fromBinary, toJson, type JsonObject } from '@bufbuild/protobuf';
import {
  DeadLetterState,
  type DeadLetter as WireDeadLetter,
  type ListDeadLettersRequest,
  type OperationsServiceService,
} from '#gen/chat4all/message/v1/operations.ts';
import { hubDate } from '#lib/clock.ts';
import { HubError, type FieldViolation } from '#lib/errors.ts';
import { maxPageBytes } from '#lib/page-bytes.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import { registry } from '#lib/rpc/schema.ts';
import type { Checks, Handlers } from '#lib/rpc/server.ts';
import { timesOf } from '../message.ts';
import type { Relay } from '../outbox/relay.ts';
import { balances, type Audit } from './audit.ts';
import type { ConsumerLag } from './consumer-lag.ts';
import type { DeadLetter, DeadLetters, DeadLetterWithValue, Replaying, Selection } from './dead-letters-store.ts';

export interface OperationsOptions {
  letters: DeadLetters;
  audit: Audit;
  lag: ConsumerLag;
  publish: Replaying['publish'];
  relay: Pick<Relay, 'wake'>;
  /** How long after its acceptance, or its replay, a message is delivered or failed, in milliseconds. */
  deadline: number;
}

const defaultLimit = 50;
const defaultReplays = 100;
const defaultPeriodMs = 3_600_000;
/** Larger events are not decoded: the JSON may be twice as large. */
const maxDecodedBytes = 1024 * 1024;

/** The handlers for administrators; the access rule is checked before. */
export function operationHandlers(options: OperationsOptions): Handlers<typeof OperationsServiceService> {
  const { letters, audit, lag, publish, relay, deadline } = options;

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
        decoded: size > maxDecodedBytes ? undefined : decoded(letter),
        value: size > maxPageBytes ? Buffer.alloc(0) : letter.value,
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
      const from = request.from ?? new Date(to.getTime() - defaultPeriodMs);
      const [{ books, to: end }, lags] = await Promise.all([audit.books(from, to), lag()]);
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
        lag: lags ?? [],
        lagKnown: lags !== undefined,
      };
    },
  };
}

/** Checks of requests that their proto can't express. */
export const operationChecks: Checks<typeof OperationsServiceService> = {
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

/** The event's value as ProtoJSON; undefined if it is no message of its type. */
function decoded({ eventType, value }: DeadLetterWithValue): JsonObject | undefined {
  const type = registry.getMessage(eventType);
  if (type === undefined) return undefined;
  try {
    return toJson(type, fromBinary(type, value), { registry, useProtoFieldName: true }) as JsonObject;
  } catch {
    return undefined;
  }
}
