// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as wire from '../../../../wire.ts';
import type * as codes from '../../../codes.ts';

/** How a network treats the recipients of an exception. */
export const Treatment = {
  /** Each request is told to retry a second later, for ever. */
  TREATMENT_THROTTLED: 'throttled',
  /** Each request is told that the network is out of order. */
  TREATMENT_OUT_OF_ORDER: 'out_of_order',
  /** No request is answered. */
  TREATMENT_SILENT: 'silent',
} as const;
export type Treatment = (typeof Treatment)[keyof typeof Treatment];

/** Which message. */
export type ListAttemptsRequest = {
  /** UUID of the message. */
  message_id: string;
};

/** What became of one delivery. */
export type Attempt = {
  /** User id of the recipient. */
  recipient_id: string;
  /** Name of the channel. */
  channel: string;
  /** Whether the channel has delivered it. */
  delivered: boolean;
  /** The number of attempts. */
  attempts: number;
  /** Why it failed, if it did. */
  error: string;
  /** When it ended. */
  ended_at: string;
};

/** The deliveries that have ended, at most one for each recipient and channel. */
export type ListAttemptsResponse = {
  /** The deliveries that have ended. */
  attempts: Attempt[];
};

/** How a simulated network behaves. With an empty profile it accepts every message at once and stores nothing. */
export type Profile = {
  /**
   * The maximum number of requests per second, from all processes together; further ones are told to retry in the next second. 0 for no
   * limit.
   */
  rate_limit?: number;
  /** How long it takes to answer. */
  latency?: Latency | null;
  /** Share of requests, 0 to 1, that fail transiently and without effect. */
  transient_errors?: number;
  /** Share of requests, 0 to 1, that take effect, but whose answer is lost: to the caller that is a transient error. */
  lost_answers?: number;
  /**
   * Share of deliveries, 0 to 1, that it refuses for good. A refused one is refused again when repeated, as long as the share stays the
   * same.
   */
  final_errors?: number;
  /** When it is out of order: then it accepts nothing and reports nothing. */
  outages?: Outage[];
  /** Its later reports on accepted messages. If not set, an accepted message is delivered at once. */
  receipts?: Receipts | null;
  /**
   * Whether it stores what it has accepted, for ListEffects, and so recognises repeated requests for seven days. A network with receipts
   * does so in any case; without either, each process remembers the last 10,000.
   */
  record?: boolean;
  /** Recipients that it treats differently. The first exception with a recipient counts. */
  exceptions?: Exception[];
};

/** Recipients that a network treats differently: no request for them has an effect. */
export type Exception = {
  /** User ids of the recipients. */
  recipients?: string[];
  /** How they are treated. */
  treatment: Treatment;
};

/** A random duration: half are shorter than `p50_ms`, one in a hundred is longer than `p99_ms`. None is longer than ten minutes. */
export type Latency = {
  /** The median, in milliseconds. */
  p50_ms?: number;
  /** The 99th percentile, in milliseconds; 0 to make all durations equal to the median. */
  p99_ms?: number;
};

/** A time during which a network is out of order. */
export type Outage = {
  /** When it begins. */
  from: string;
  /** When it is over. */
  to: string;
  /** The time from one beginning to the next, in milliseconds; 0 for no repetition. */
  repeat_ms?: number;
};

/**
 * A network's reports on an accepted message: `sent`, then `delivered` and `read`, or `failed`. A delivery is open until one of the last
 * three arrives.
 */
export type Receipts = {
  /** How long after its acceptance a message is delivered or fails. It is reported sent after half that time, and read after one and a half. */
  delay?: Latency | null;
  /** Share of messages, 0 to 1, that fail. */
  failed?: number;
  /** Share of reports, 0 to 1, that are sent twice. */
  duplicates?: number;
  /** Share of messages, 0 to 1, whose reports are sent in reverse order. */
  out_of_order?: number;
  /** Share of messages, 0 to 1, whose reports are all sent `late_ms` later. */
  late?: number;
  /** The delay of late reports, in milliseconds. */
  late_ms?: number;
};

/** Which channel. */
export type GetProfileRequest = {
  /** Name of the channel. */
  channel: string;
};

/** The channel's profile. */
export type GetProfileResponse = {
  /** The profile. */
  profile: wire.Answered<Profile>;
};

/** The new profile of a channel. */
export type SetProfileRequest = {
  /** Name of the channel. */
  channel: string;
  /** The profile. */
  profile: Profile;
};

/** The channel's new profile. */
export type SetProfileResponse = {
  /** The profile. */
  profile: wire.Answered<Profile>;
};

/** Which channel. */
export type ResetProfileRequest = {
  /** Name of the channel. */
  channel: string;
};

/** The channel's new profile. */
export type ResetProfileResponse = {
  /** The profile. */
  profile: wire.Answered<Profile>;
};

/** Which effects to list. */
export type ListEffectsRequest = {
  /** Only those of this channel; all channels if empty. */
  channel?: string;
  /** Only those of this message. UUID. */
  message_id?: string;
  /** Only those with a greater `position`: to continue after a page, however long the list is. */
  after?: number | null;
  /** The maximum number to return: 1 to 100, 50 by default. */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
};

/** A message that a network has accepted for a recipient. */
export type Effect = {
  /** Position in the order of acceptance. There may be gaps. */
  position: number;
  /** Name of the channel. */
  channel: string;
  /** Idempotency key of the delivery: UUID, the same for all its requests. */
  idempotency_key: string;
  /** UUID of the message. */
  message_id: string;
  /** UUID of its conversation. */
  conversation_id: string;
  /** Its position in the conversation. */
  seq: number;
  /** User id of the recipient. */
  recipient: string;
  /** When the network accepted it. */
  first_at: string;
  /** The number of requests with this key, including the first; the others had no effect. */
  requests: number;
  /** How often the network accepted this message for this recipient, under all keys. More than 1 means that it was sent twice. */
  effects: number;
};

/** A page of effects, by position. */
export type ListEffectsResponse = {
  /** The page. */
  effects: Effect[];
  /** The total number of matches. */
  total: number;
  /** The limit that was applied. */
  limit: number;
  /** The offset that was applied. */
  offset: number;
};

/** The error codes of `listAttempts`. */
export type ListAttemptsCode = 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `getProfile`. */
export type GetProfileCode = 'CHANNEL_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `setProfile`. */
export type SetProfileCode = 'CHANNEL_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `resetProfile`. */
export type ResetProfileCode = 'CHANNEL_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `listEffects`. */
export type ListEffectsCode = 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** Lists the channels and what was handed to them. Deliveries themselves are requested over the bus. */
export class ConnectorsService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /**
   * Lists the ended deliveries of one message as the connectors recorded them, for administrators: what a network has really accepted, even
   * if that became known only after the message's deadline. Empty while no delivery has ended, and for an unknown message.
   */
  listAttempts(request: ListAttemptsRequest, options?: CallOptions): Reply<ListAttemptsResponse, ListAttemptsCode> {
    return this.#caller.reply<ListAttemptsResponse>({ verb: 'GET', path: '/v1/admin/messages/{message_id}/attempts', isRepeatable: true }, request, options);
  }
}

/** Simulated networks, for administrators. */
export class SimulationService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** Returns the current profile of a simulated network. */
  getProfile(request: GetProfileRequest, options?: CallOptions): Reply<wire.Answered<Profile>, GetProfileCode> {
    return this.#caller.reply<wire.Answered<Profile>>({ verb: 'GET', path: '/v1/admin/channels/{channel}/profile', isRepeatable: true }, request, options);
  }

  /**
   * Changes the profile of a simulated network, within a second in every process, until it is set again or reset. Fields that are not set
   * are as in an empty profile: the network accepts everything at once.
   */
  setProfile(request: SetProfileRequest, options?: CallOptions): Reply<wire.Answered<Profile>, SetProfileCode> {
    return this.#caller.reply<wire.Answered<Profile>>({ verb: 'PUT', path: '/v1/admin/channels/{channel}/profile', body: 'profile', empty: {}, isRepeatable: true }, request, options);
  }

  /** Resets a simulated network to its configured profile, within a second. */
  resetProfile(request: ResetProfileRequest, options?: CallOptions): Reply<wire.Answered<Profile>, ResetProfileCode> {
    return this.#caller.reply<wire.Answered<Profile>>({ verb: 'DELETE', path: '/v1/admin/channels/{channel}/profile', isRepeatable: true }, request, options);
  }

  /** Lists what simulated networks have accepted while their profile had `record`, in order. It is kept for seven days. */
  listEffects(request: ListEffectsRequest = {}, options?: CallOptions): Reply<ListEffectsResponse, ListEffectsCode> {
    return this.#caller.reply<ListEffectsResponse>({ verb: 'GET', path: '/v1/admin/effects', isRepeatable: true }, request, options);
  }
}
