// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as codes from '../../../codes.ts';

/** The state of a dead letter. */
export const DeadLetterState = {
  /** It has not been replayed. */
  DEAD_LETTER_STATE_WAITING: 'waiting',
  /** It was replayed. If it fails again, that is a new dead letter. */
  DEAD_LETTER_STATE_REPLAYED: 'replayed',
} as const;
export type DeadLetterState = (typeof DeadLetterState)[keyof typeof DeadLetterState];

/** An event that could not be handled. */
export type DeadLetter = {
  /** UUID. */
  id: string;
  /** The topic that it was consumed from. */
  topic: string;
  /** The partition of that topic. */
  partition: number;
  /** The group that could not handle it. */
  group: string;
  /** The last error. */
  reason: string;
  /** How often it was tried by itself. */
  attempts: number;
  /** When it became a dead letter. */
  failed_at: string;
  /** Id of the event. */
  event_id: string;
  /** Full name of the event's type. */
  event_type: string;
  /** The event's key: the id of its conversation. */
  key: string;
  /** Request id of the call that caused it, as in the logs. */
  request_id: string;
  /** The message that it is about; empty if unknown. */
  message_id: string;
  /** The channel that it is about; empty if it is about none. */
  channel: string;
  /** Its state. */
  state: DeadLetterState;
  /** When it was replayed. */
  replayed_at: string | null;
  /** The username of the administrator who replayed it. */
  replayed_by: string;
};

/** Which dead letters to list. */
export type ListDeadLettersRequest = {
  /** Those about this message. */
  message_id?: string;
  /** Those about deliveries over this channel. */
  channel?: string;
  /** Those of this topic. */
  topic?: string;
  /** Those that failed at this time or later. */
  from?: string | null;
  /** Those that failed before this time. */
  to?: string | null;
  /** Those in this state. */
  state?: DeadLetterState;
  /** The maximum number to return: 1 to 100, 50 by default. */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
};

/** A page of dead letters. */
export type ListDeadLettersResponse = {
  /** The page. */
  dead_letters: DeadLetter[];
  /** The total number of matches. */
  total: number;
  /** The limit that was applied. */
  limit: number;
  /** The offset that was applied. */
  offset: number;
};

/** Which dead letter. */
export type GetDeadLetterRequest = {
  /** UUID. */
  id: string;
};

/** A dead letter with the value of its event. */
export type GetDeadLetterResponse = {
  /** The dead letter. */
  dead_letter: DeadLetter;
  /** The event decoded as the protobuf message of its type; null if that fails, or if it has more than 1 MiB. */
  decoded: Record<string, unknown> | null;
  /** The event's bytes; empty if there are more than 3 MiB. */
  value: string;
};

/** Which dead letters to replay: those that match all fields. Without `ids` only those that wait. */
export type ReplayDeadLettersRequest = {
  /** Exactly these. */
  ids?: string[];
  /** Those about this message. */
  message_id?: string;
  /** Those about deliveries over this channel. */
  channel?: string;
  /** Those of this topic. */
  topic?: string;
  /** Those that failed at this time or later. */
  from?: string | null;
  /** Those that failed before this time. */
  to?: string | null;
  /**
   * The maximum number to replay, oldest first: 1 to 500, 100 by default. Those of one message are replayed together, so that it may be a
   * few more.
   */
  limit?: number | null;
};

/** The result. */
export type ReplayDeadLettersResponse = {
  /** Dead letters that were replayed. */
  replayed: number;
  /** Messages with deliveries that begin again. */
  messages: number;
  /** Dead letters with nothing left to do, because their deliveries have succeeded meanwhile. They don't wait any more. */
  settled: number;
  /** Dead letters whose messages are still open. Replay them when these have ended. */
  open: number;
  /** How many still wait and match. */
  remaining: number;
};

/** Which period. */
export type GetAuditRequest = {
  /** Messages accepted at this time or later; by default an hour before `to`. */
  from?: string | null;
  /** Messages accepted before this time; by default now. */
  to?: string | null;
};

/** Numbers by status. */
export type Balance = {
  /** All of it. */
  accepted: number;
  /** Of that: delivered. */
  delivered: number;
  /** Of that: failed for good. */
  failed: number;
  /** Of that: neither so far. */
  in_flight: number;
};

/** A gap in the positions of a conversation. */
export type SeqGap = {
  /** UUID. */
  conversation_id: string;
  /** The first position of the range. */
  from_seq: number;
  /** The last position of the range; the last one that was assigned, if its message is missing. */
  to_seq: number;
  /** How many positions in the range have no message. */
  missing: number;
};

/** A message that has not ended. */
export type OpenMessage = {
  /** UUID. */
  message_id: string;
  /** When it was accepted. */
  accepted_at: string;
  /** Its age in milliseconds. */
  age_ms: number;
};

/** The lag of a consumer group. */
export type TopicLag = {
  /** The topic. */
  topic: string;
  /** The group. */
  group: string;
  /** Events that it has not handled yet, on all partitions. */
  events: number;
  /** The same for each partition. */
  partitions: PartitionLag[];
};

/** The lag of a consumer group on one partition. */
export type PartitionLag = {
  /** Number of the partition. */
  partition: number;
  /** Events that the group has not handled. */
  events: number;
};

/** The result of the audit. */
export type GetAuditResponse = {
  /** The beginning of the period. */
  from: string;
  /** The end of the audited part, exclusive: that of the period, or `next`. */
  to: string;
  /**
   * Whether everything is accounted for: accepted = delivered + failed + in flight, for messages and for deliveries; each message has the
   * deliveries that it was accepted with, a status that agrees with theirs, and a history that ends in it; no position is missing; nothing
   * is overdue.
   */
  balanced: boolean;
  /** Messages accepted in the period. */
  messages: Balance;
  /** Their deliveries. */
  deliveries: Balance;
  /** Messages that contradict their deliveries or history; 20 at most. */
  mismatched: string[];
  /** The total number of these. */
  mismatched_total: number;
  /** Messages in flight that should have ended by now. */
  overdue: number;
  /** Gaps in the positions of conversations with messages in the period; 20 at most. One conversation may have several. */
  gaps: SeqGap[];
  /** The total number of these. */
  gaps_total: number;
  /** The message of the period that has been in flight for longest. */
  oldest_in_flight: OpenMessage | null;
  /** Events that are not published on the bus yet, regardless of the period. */
  outbox_events: number;
  /** How long the oldest of these has been waiting, in milliseconds. */
  outbox_age_ms: number;
  /** Dead letters that wait, regardless of the period. */
  dead_letters_waiting: number;
  /**
   * The current lag of each consumer group. It comes from the bus, so not from the same snapshot as the rest; empty while the bus is
   * unavailable.
   */
  lag: TopicLag[];
  /** Whether `lag` is known. */
  lag_known: boolean;
  /** If only a part of the period was read, the `from` of the next call. Null if all of it was. */
  next: string | null;
  /** Messages accepted before this were removed at the end of their retention, and are not audited. Null if none were. */
  removed_before: string | null;
};

/** The error codes of `listDeadLetters`. */
export type ListDeadLettersCode = 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `getDeadLetter`. */
export type GetDeadLetterCode = 'DATABASE_UNAVAILABLE' | 'DEAD_LETTER_NOT_FOUND' | codes.CommonCode;

/** The error codes of `replayDeadLetters`. */
export type ReplayDeadLettersCode = 'BUS_UNAVAILABLE' | 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `getAudit`. */
export type GetAuditCode = 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** Operations for administrators: dead letters and the audit. */
export class OperationsService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** Lists dead letters: events that could not be handled, oldest first. */
  listDeadLetters(request: ListDeadLettersRequest = {}, options?: CallOptions): Reply<ListDeadLettersResponse, ListDeadLettersCode> {
    return this.#caller.reply<ListDeadLettersResponse>({ verb: 'GET', path: '/v1/admin/dead-letters', isRepeatable: true }, request, options);
  }

  /** Returns a dead letter with the value of its event, including the content of the message. */
  getDeadLetter(request: GetDeadLetterRequest, options?: CallOptions): Reply<GetDeadLetterResponse, GetDeadLetterCode> {
    return this.#caller.reply<GetDeadLetterResponse>({ verb: 'GET', path: '/v1/admin/dead-letters/{id}', isRepeatable: true }, request, options);
  }

  /**
   * Replays dead letters, once their cause is gone: those with the given ids, or all that wait and match the filters.
   *
   * For a failed message, the failed deliveries that the dead letters are about begin again, with a new deadline; deliveries that succeeded
   * are not repeated. A replayed message arrives later than its neighbours in the conversation. An event of an unknown message is published
   * again unchanged. A dead letter of a message that is still open is left as it is, unless it is a report, which is published again.
   *
   * May be repeated, also concurrently: a message that is being replayed is open, so it is left alone.
   */
  replayDeadLetters(request: ReplayDeadLettersRequest = {}, options?: CallOptions): Reply<ReplayDeadLettersResponse, ReplayDeadLettersCode> {
    return this.#caller.reply<ReplayDeadLettersResponse>({ verb: 'POST', path: '/v1/admin/dead-letters/replay', body: '*' }, request, options);
  }

  /**
   * Audits the messages that were accepted in a period: whether each is accounted for, and what is waiting now.
   *
   * A long period is read in parts of some thousand messages, each from one snapshot. An answer covers as much of the period as can be read
   * within 8 s. If that is not all of it, `next` is set: call again with it as `from` and the same `to`, until there is no `next`. The
   * period balances if all answers do, and their numbers add up to its own.
   */
  getAudit(request: GetAuditRequest = {}, options?: CallOptions): Reply<GetAuditResponse, GetAuditCode> {
    return this.#caller.reply<GetAuditResponse>({ verb: 'GET', path: '/v1/admin/audit', isRepeatable: true }, request, options);
  }
}
