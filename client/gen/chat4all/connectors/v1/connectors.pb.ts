// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as wire from '../../../../wire.ts';
import type * as codes from '../../../codes.ts';

/** How a network treats people whom it doesn't serve. */
export const Treatment = {
  /** Each request is told to come back a second later, for ever. */
  TREATMENT_THROTTLED: 'throttled',
  /** Each request is told that the network is out of order. */
  TREATMENT_OUT_OF_ORDER: 'out_of_order',
  /** No request is answered, until whoever asks gives up. */
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
  /** Whether the channel took it. */
  delivered: boolean;
  /** How often it was tried. */
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

/**
 * How a simulated network behaves. Everything left out is as little as possible: an empty profile takes every message at
 * once and remembers nothing.
 */
export type Profile = {
  /**
   * The most requests that it takes in a second, from all processes together; further ones are told to come back in the
   * next second. 0 is no limit.
   */
  rate_limit?: number;
  /** How long it takes to answer. */
  latency?: Latency | null;
  /** Share of requests, 0 to 1, that fail without effect in a way that is worth trying again. */
  transient_errors?: number;
  /** Share of requests, 0 to 1, that take effect, but whose answer gets lost: they look like a transient error. */
  lost_answers?: number;
  /**
   * Share of deliveries, 0 to 1, that it refuses for good. One that is asked for again is refused again, as long as the
   * share stays.
   */
  final_errors?: number;
  /** When it is out of order: then it takes nothing and reports nothing. */
  outages?: Outage[];
  /** What it reports after it took a message. Without it, a message is delivered once it is taken. */
  receipts?: Receipts | null;
  /**
   * Whether it keeps what it took, for ListEffects, and so knows for seven days what it is asked for again. A network with
   * receipts does in any case; without, each process knows the last 10,000.
   */
  record?: boolean;
  /** People whom it treats in another way than everybody else. Who is in several of these is treated as the first one says. */
  exceptions?: Exception[];
};

/** People whom a network treats in another way than everybody else: nothing has an effect for them. */
export type Exception = {
  /** User ids of the recipients. */
  recipients?: string[];
  /** How they are treated. */
  treatment: Treatment;
};

/**
 * A length of time that differs from one time to the next: half are shorter than `p50_ms`, one in a hundred is longer than
 * `p99_ms`. None is longer than ten minutes.
 */
export type Latency = {
  /** The median, in milliseconds. */
  p50_ms?: number;
  /** The 99th percentile, in milliseconds. 0 is that of the median: it never differs. */
  p99_ms?: number;
};

/** A time during which a network is out of order. */
export type Outage = {
  /** When it begins. */
  from: string;
  /** When it is over. */
  to: string;
  /** How long after its beginning it begins again, in milliseconds; 0 is never. */
  repeat_ms?: number;
};

/**
 * What a network reports of a message that it took: `sent`, then `delivered` and `read`, or `failed`. A delivery is open
 * until one of the last three comes.
 */
export type Receipts = {
  /** How long after it was taken a message is delivered, or fails. It is sent half of that time before, and read as long after. */
  delay?: Latency | null;
  /** Share of messages, 0 to 1, that fail. */
  failed?: number;
  /** Share of reports, 0 to 1, that come twice. */
  duplicates?: number;
  /** Share of messages, 0 to 1, whose reports come in the opposite order. */
  out_of_order?: number;
  /** Share of messages, 0 to 1, whose reports all come `late_ms` later. */
  late?: number;
  /** By how much late reports are late, in milliseconds. */
  late_ms?: number;
};

/** Which channel. */
export type GetProfileRequest = {
  /** Name of the channel. */
  channel: string;
};

/** How the channel behaves. */
export type GetProfileResponse = {
  /** The profile. */
  profile: wire.Answered<Profile>;
};

/** How a channel is to behave. */
export type SetProfileRequest = {
  /** Name of the channel. */
  channel: string;
  /** The profile. */
  profile: Profile;
};

/** How the channel behaves from now on. */
export type SetProfileResponse = {
  /** The profile. */
  profile: wire.Answered<Profile>;
};

/** Which channel. */
export type ResetProfileRequest = {
  /** Name of the channel. */
  channel: string;
};

/** How the channel behaves from now on. */
export type ResetProfileResponse = {
  /** The profile. */
  profile: wire.Answered<Profile>;
};

/** Which effects to list. */
export type ListEffectsRequest = {
  /** Only what this channel took; all channels if empty. */
  channel?: string;
  /** Only what was taken of this message. UUID. */
  message_id?: string;
  /** Only what has a greater `position`: to go on behind a page, however long the list is. */
  after?: number | null;
  /** How many to return: 1 to 100, 50 if not said. */
  limit?: number | null;
  /** How many to pass over. */
  offset?: number;
};

/** That a network took a message for somebody. */
export type Effect = {
  /** Place in the order in which networks took messages. There may be gaps. */
  position: number;
  /** Name of the channel. */
  channel: string;
  /** UUID by which the network knows the delivery: the same each time that it is asked for. */
  idempotency_key: string;
  /** UUID of the message. */
  message_id: string;
  /** UUID of its conversation. */
  conversation_id: string;
  /** Its position in the conversation. */
  seq: number;
  /** User id of the recipient. */
  recipient: string;
  /** When the network took it. */
  first_at: string;
  /** How often it was asked for since, the first time included: the others had no effect. */
  requests: number;
  /**
   * How often the network took this message for this recipient, under whatever keys. More than 1 is one that was sent
   * twice.
   */
  effects: number;
};

/** A page of effects, by position. */
export type ListEffectsResponse = {
  /** The page. */
  effects: Effect[];
  /** How many match in all. */
  total: number;
  /** The limit that was used. */
  limit: number;
  /** The offset that was used. */
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

/** Tells which channels there are and what was handed to them. Deliveries themselves come over the bus. */
export class ConnectorsService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /**
   * What was handed to the channels of one message, as the connectors recorded it, for administrators: what a network has really taken, also
   * where that became known only after the message's deadline. Empty while no delivery has ended, and of a message that is not known.
   */
  listAttempts(request: ListAttemptsRequest, options?: CallOptions): Reply<ListAttemptsResponse, ListAttemptsCode> {
    return this.#caller.reply<ListAttemptsResponse>({ verb: 'GET', path: '/v1/admin/messages/{message_id}/attempts', isRepeatable: true }, request, options);
  }
}

/** What the networks that are only simulated do, and what they have done, for administrators. */
export class SimulationService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** How a simulated network behaves at present. */
  getProfile(request: GetProfileRequest, options?: CallOptions): Reply<wire.Answered<Profile>, GetProfileCode> {
    return this.#caller.reply<wire.Answered<Profile>>({ verb: 'GET', path: '/v1/admin/channels/{channel}/profile', isRepeatable: true }, request, options);
  }

  /**
   * Makes a simulated network behave so, within a second, in every process, until it is set again or reset. What is not
   * said is as in an empty profile: the network takes everything at once.
   */
  setProfile(request: SetProfileRequest, options?: CallOptions): Reply<wire.Answered<Profile>, SetProfileCode> {
    return this.#caller.reply<wire.Answered<Profile>>({ verb: 'PUT', path: '/v1/admin/channels/{channel}/profile', body: 'profile', empty: {}, isRepeatable: true }, request, options);
  }

  /** Makes a simulated network behave as it is configured, within a second. */
  resetProfile(request: ResetProfileRequest, options?: CallOptions): Reply<wire.Answered<Profile>, ResetProfileCode> {
    return this.#caller.reply<wire.Answered<Profile>>({ verb: 'DELETE', path: '/v1/admin/channels/{channel}/profile', isRepeatable: true }, request, options);
  }

  /**
   * What simulated networks took while their profiles said `record`, in the order in which they took it. It is kept for
   * seven days.
   */
  listEffects(request: ListEffectsRequest = {}, options?: CallOptions): Reply<ListEffectsResponse, ListEffectsCode> {
    return this.#caller.reply<ListEffectsResponse>({ verb: 'GET', path: '/v1/admin/effects', isRepeatable: true }, request, options);
  }
}
