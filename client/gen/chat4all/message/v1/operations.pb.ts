// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as codes from '../../../codes.ts';

/** Whether something was done about a dead letter. */
export const DeadLetterState = {
  /** Nothing was done so far. */
  DEAD_LETTER_STATE_WAITING: 'waiting',
  /** It was replayed. What failed again is another dead letter. */
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
  /** How often it was tried on its own. */
  attempts: number;
  /** When it was given up. */
  failed_at: string;
  /** Id of the event. */
  event_id: string;
  /** Full name of the event's type. */
  event_type: string;
  /** The event's key: the id of its conversation. */
  key: string;
  /** Request id of the call that it comes from: the one to look for in the logs. */
  request_id: string;
  /** The message that it is about; empty if that can't be told. */
  message_id: string;
  /** The channel that it is about; empty if it is about none. */
  channel: string;
  /** Whether something was done about it. */
  state: DeadLetterState;
  /** When it was replayed. */
  replayed_at: string | null;
  /** Who did that: a username. */
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
  /** Those given up at this time or later. */
  from?: string | null;
  /** Those given up before this time. */
  to?: string | null;
  /** Those in this state. */
  state?: DeadLetterState;
  /** How many to return: 1 to 100, 50 if not said. */
  limit?: number | null;
  /** How many to pass over. */
  offset?: number;
};

/** A page of dead letters. */
export type ListDeadLettersResponse = {
  /** The page. */
  dead_letters: DeadLetter[];
  /** How many match the filters in all. */
  total: number;
  /** The limit that was used. */
  limit: number;
  /** The offset that was used. */
  offset: number;
};

/** Which dead letter. */
export type GetDeadLetterRequest = {
  /** UUID. */
  id: string;
};

/** A dead letter and what the event says. */
export type GetDeadLetterResponse = {
  /** What is known of it. */
  dead_letter: DeadLetter;
  /** The event as the protobuf message of its type; null if it is none, or if it has more than 1 MiB. */
  decoded: Record<string, unknown> | null;
  /** The event as it is; empty if it has more than 3 MiB. */
  value: string;
};

/** Which dead letters to replay. Of those that match all of it, only the ones that wait, unless they are named by their ids. */
export type ReplayDeadLettersRequest = {
  /** Exactly these. */
  ids?: string[];
  /** Those about this message. */
  message_id?: string;
  /** Those about deliveries over this channel. */
  channel?: string;
  /** Those of this topic. */
  topic?: string;
  /** Those given up at this time or later. */
  from?: string | null;
  /** Those given up before this time. */
  to?: string | null;
  /**
   * How many at most, 1 to 500, 100 if not said: the oldest first. Those of one message are replayed together, so that it
   * may be a few more.
   */
  limit?: number | null;
};

/** What was done. */
export type ReplayDeadLettersResponse = {
  /** Dead letters that were replayed. */
  replayed: number;
  /** Messages of which deliveries begin anew by that. */
  messages: number;
  /** Dead letters with nothing left to do: what they are about was delivered meanwhile. They don't wait any more. */
  settled: number;
  /** Dead letters whose messages are still open. Try again when these have ended. */
  open: number;
  /** How many still wait and match. */
  remaining: number;
};

/** Which period. */
export type GetAuditRequest = {
  /** Messages accepted at this time or later; an hour before `to` if not said. */
  from?: string | null;
  /** Messages accepted before this time; now if not said. */
  to?: string | null;
};

/** How much of something there is, by what became of it. */
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
  /** The first position that was looked at. */
  from_seq: number;
  /** The last one; the last that was given out, if that is greater than what is there. */
  to_seq: number;
  /** How many positions between these have no message. */
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

/** How far a group is behind. */
export type TopicLag = {
  /** The topic. */
  topic: string;
  /** The group. */
  group: string;
  /** Events that it has not handled, on all partitions. */
  events: number;
  /** The same for each partition. */
  partitions: PartitionLag[];
};

/** How far a group is behind on one partition. */
export type PartitionLag = {
  /** Number of the partition. */
  partition: number;
  /** Events that the group has not handled. */
  events: number;
};

/** The books. */
export type GetAuditResponse = {
  /** The period, from here on. */
  from: string;
  /** The end of what these books are for, exclusive: that of the period, or the same as `next`. */
  to: string;
  /**
   * Whether the books balance: accepted = delivered + failed + in flight, for messages and for deliveries; each message has
   * the deliveries that it was accepted with, a status that goes with theirs, and a history that ends in it; no position is
   * missing; nothing is overdue.
   */
  balanced: boolean;
  /** Messages accepted in the period. */
  messages: Balance;
  /** Their deliveries. */
  deliveries: Balance;
  /** Messages whose deliveries or history don't go with them; 20 at most. */
  mismatched: string[];
  /** How many of these there are. */
  mismatched_total: number;
  /** Messages in flight that should have ended by now. */
  overdue: number;
  /** Gaps in the positions of conversations with messages in the period; 20 at most. Of one conversation there may be several. */
  gaps: SeqGap[];
  /** How many of these there are. */
  gaps_total: number;
  /** The message of the period that has been in flight for longest. */
  oldest_in_flight: OpenMessage | null;
  /** Events that were not brought to the bus so far, whatever the period. */
  outbox_events: number;
  /** How long the oldest of these has been waiting, in milliseconds. */
  outbox_age_ms: number;
  /** Dead letters that wait, whatever the period. */
  dead_letters_waiting: number;
  /**
   * How far each group is behind on its topic at present. It is asked of the bus, so it is not of the same moment as the
   * books; empty while the bus can't be asked.
   */
  lag: TopicLag[];
  /** Whether the bus could be asked. */
  lag_known: boolean;
  /** Up to when messages were looked at, if that is not the whole period: the `from` to go on with. Null if it is. */
  next: string | null;
  /**
   * Messages accepted before this were removed at the end of the time that they are kept, and are in no books. Null if none was so
   * far.
   */
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

/** What administrators need to see of the hub, and to mend in it. */
export class OperationsService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** The events that could not be handled and were given up, oldest first. */
  listDeadLetters(request: ListDeadLettersRequest = {}, options?: CallOptions): Reply<ListDeadLettersResponse, ListDeadLettersCode> {
    return this.#caller.reply<ListDeadLettersResponse>({ verb: 'GET', path: '/v1/admin/dead-letters', isRepeatable: true }, request, options);
  }

  /** One of them with what the event says, the content of its message included. */
  getDeadLetter(request: GetDeadLetterRequest, options?: CallOptions): Reply<GetDeadLetterResponse, GetDeadLetterCode> {
    return this.#caller.reply<GetDeadLetterResponse>({ verb: 'GET', path: '/v1/admin/dead-letters/{id}', isRepeatable: true }, request, options);
  }

  /**
   * Tries again what was given up, once its cause is gone: those that are named by their ids, or all that wait and match
   * the filters.
   *
   * Of a message that has failed, the failed deliveries that the dead letters are about begin anew, with a new deadline;
   * what was delivered is not sent again. A replayed message comes later than its neighbours in the conversation. An event
   * that belongs to no known message is published once more as it was. While its message is still open a dead letter is
   * left as it is, unless it is a report: that is published again.
   *
   * May be repeated, and at once: what is being replayed is open, and is left alone.
   */
  replayDeadLetters(request: ReplayDeadLettersRequest = {}, options?: CallOptions): Reply<ReplayDeadLettersResponse, ReplayDeadLettersCode> {
    return this.#caller.reply<ReplayDeadLettersResponse>({ verb: 'POST', path: '/v1/admin/dead-letters/replay', body: '*' }, request, options);
  }

  /**
   * Balances the books for the messages that were accepted in a period, and tells what waits where at present.
   *
   * A long period is gone through in parts of some thousand messages, each as it was at one moment. An answer has as much of
   * the period as could be looked at within 8 s. If that is not all of it, `next` says where to go on: ask again with that as
   * `from` and the same `to`, until there is no `next`. The period balances if all answers do, and their numbers add up to its.
   */
  getAudit(request: GetAuditRequest = {}, options?: CallOptions): Reply<GetAuditResponse, GetAuditCode> {
    return this.#caller.reply<GetAuditResponse>({ verb: 'GET', path: '/v1/admin/audit', isRepeatable: true }, request, options);
  }
}
