// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as Chat4allEventsV1Events from './events.pb.ts';
import type * as codes from '../../../codes.ts';

/** Whether events are sent to a webhook. */
export const WebhookStatus = {
  /** Events are sent. */
  WEBHOOK_STATUS_ACTIVE: 'active',
  /** Events wait: its owner has paused it, or three days of failures have, or an administrator who has disabled the owner. */
  WEBHOOK_STATUS_PAUSED: 'paused',
  /** Its endpoint has answered 410 (Gone). Events wait. */
  WEBHOOK_STATUS_DISABLED: 'disabled',
} as const;
export type WebhookStatus = (typeof WebhookStatus)[keyof typeof WebhookStatus];

/** How an attempt has ended. */
export const AttemptOutcome = {
  /** It was answered with 2xx. */
  ATTEMPT_OUTCOME_DELIVERED: 'delivered',
  /** It has failed, and is repeated later, unless it was a ping. */
  ATTEMPT_OUTCOME_FAILED: 'failed',
  /** It has failed, and is not repeated, since that has gone on for three days. */
  ATTEMPT_OUTCOME_GIVEN_UP: 'given_up',
} as const;
export type AttemptOutcome = (typeof AttemptOutcome)[keyof typeof AttemptOutcome];

/** A URL that events are sent to. */
export type Webhook = {
  /** UUID. */
  webhook_id: string;
  /** Where events are sent to. */
  url: string;
  /** Which types of events; all where it is empty. */
  types: Chat4allEventsV1Events.EventType[];
  /** Of which conversations, by their UUIDs; of all, and those of no conversation as well, where it is empty. */
  conversation_ids: string[];
  /** Whether events are sent. */
  status: WebhookStatus;
  /** When it was made. */
  created_at: string | null;
  /** When it was changed last. */
  updated_at: string | null;
  /** Since when everything that was sent has failed; not set if the last attempt went well. */
  failing_since: string | null;
  /** Until when what is sent is signed with the old secret as well; not set if there is none. */
  old_secret_until: string | null;
};

/** A webhook to be made. */
export type CreateWebhookRequest = {
  /** An http or https URL at a public address. What stands behind `#` is not sent. */
  url: string;
  /** Only events of these types. Empty: of all. */
  types?: Chat4allEventsV1Events.EventType[];
  /** Only events of these conversations, and none that belong to no conversation. Empty: of all. */
  conversation_ids?: string[];
};

/** The webhook, with its secret. */
export type CreateWebhookResponse = {
  /** The webhook. */
  webhook: Webhook | null;
  /** What the signatures are made with: `whsec_…`. Secret; it is not shown again. */
  secret: string;
};

/** Whose webhooks: the caller's. */
export type ListWebhooksRequest = Record<string, never>;

/** The webhooks. */
export type ListWebhooksResponse = {
  /** All of them, the oldest first. */
  webhooks: Webhook[];
};

/** Which webhook. */
export type GetWebhookRequest = {
  /** UUID of the webhook. */
  webhook_id: string;
};

/** The webhook. */
export type GetWebhookResponse = {
  /** The webhook. */
  webhook: Webhook | null;
};

/** What is to be changed of a webhook. */
export type UpdateWebhookRequest = {
  /** UUID of the webhook. */
  webhook_id: string;
  /** The new URL; as it is if not set. */
  url?: string | null;
  /** The new types, in place of those that there are; as they are if empty. */
  types?: Chat4allEventsV1Events.EventType[];
  /** Whether to send events of all types from now on. Then `types` has to be empty. */
  all_types?: boolean;
  /** The new conversations, in place of those that there are; as they are if empty. */
  conversation_ids?: string[];
  /** Whether to send events of all conversations from now on. Then `conversation_ids` has to be empty. */
  all_conversations?: boolean;
};

/** The webhook, changed. */
export type UpdateWebhookResponse = {
  /** The webhook. */
  webhook: Webhook | null;
};

/** Which webhook. */
export type DeleteWebhookRequest = {
  /** UUID of the webhook. */
  webhook_id: string;
};

/** Nothing: it is deleted. */
export type DeleteWebhookResponse = Record<string, never>;

/** Which webhook. */
export type RotateWebhookSecretRequest = {
  /** UUID of the webhook. */
  webhook_id: string;
};

/** The new secret. */
export type RotateWebhookSecretResponse = {
  /** The new secret: `whsec_…`. Secret; it is not shown again. */
  secret: string;
  /** Until when the old one signs as well. */
  old_secret_until: string | null;
};

/** Which webhook. */
export type PingWebhookRequest = {
  /** UUID of the webhook. */
  webhook_id: string;
};

/** How the ping was answered. */
export type PingWebhookResponse = {
  /** The one attempt. */
  attempt: WebhookAttempt | null;
};

/** Which webhook. */
export type PauseWebhookRequest = {
  /** UUID of the webhook. */
  webhook_id: string;
};

/** The webhook, paused. */
export type PauseWebhookResponse = {
  /** The webhook. */
  webhook: Webhook | null;
};

/** Which webhook, and from where. */
export type ResumeWebhookRequest = {
  /** UUID of the webhook. */
  webhook_id: string;
  /** Whether to leave out what has happened meanwhile, and what had failed before. */
  skip?: boolean;
};

/** The webhook, active. */
export type ResumeWebhookResponse = {
  /** The webhook. */
  webhook: Webhook | null;
};

/** Which webhook, and which part of the list. */
export type ListWebhookAttemptsRequest = {
  /** UUID of the webhook. */
  webhook_id: string;
  /** How many to list at most: 1 to 100, 50 if not said. */
  limit?: number | null;
  /** Only attempts that were before this one, by its `attempt_id`: to go on behind the last one of a list. Empty: from the newest on. */
  before?: string;
};

/** One request that was sent to a webhook. */
export type WebhookAttempt = {
  /** UUID of the attempt. */
  attempt_id: string;
  /** UUID of the event. */
  event_id: string;
  /** The event's type as it was sent: `message.accepted`. */
  type: string;
  /** When it was sent. */
  at: string | null;
  /** Milliseconds until it was answered, or had failed. */
  duration_ms: number;
  /** The HTTP status of the answer; 0 if there was none. */
  status_code: number;
  /** How it has ended. */
  outcome: AttemptOutcome;
  /** Why it failed, for people; empty if it did not. */
  error: string;
  /** How often the event was sent by then, this time included. */
  number: number;
  /** When it is repeated; not set if it is not. */
  next_at: string | null;
};

/** The attempts. */
export type ListWebhookAttemptsResponse = {
  /** The newest first. */
  attempts: WebhookAttempt[];
};

/** Which webhook, and from where on. One of `cursor` and `since` has to be there. */
export type ReplayWebhookRequest = {
  /** UUID of the webhook. */
  webhook_id: string;
  /** Events behind this cursor, which is in `data` of what a webhook is sent. */
  cursor?: string;
  /** Events from this time on. */
  since?: string | null;
  /** How many events at most: 1 to 10,000; 1,000 if not said. */
  limit?: number | null;
};

/** The replay has begun. */
export type ReplayWebhookResponse = {
  /** No event behind this one is replayed. */
  until_cursor: string;
};

/** The error codes of `createWebhook`. */
export type CreateWebhookCode = 'DATABASE_UNAVAILABLE' | 'TOO_MANY_WEBHOOKS' | codes.CommonCode;

/** The error codes of `listWebhooks`. */
export type ListWebhooksCode = 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `getWebhook`. */
export type GetWebhookCode = 'DATABASE_UNAVAILABLE' | 'WEBHOOK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `updateWebhook`. */
export type UpdateWebhookCode = 'DATABASE_UNAVAILABLE' | 'WEBHOOK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `deleteWebhook`. */
export type DeleteWebhookCode = 'DATABASE_UNAVAILABLE' | 'WEBHOOK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `rotateWebhookSecret`. */
export type RotateWebhookSecretCode = 'DATABASE_UNAVAILABLE' | 'WEBHOOK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `pingWebhook`. */
export type PingWebhookCode = 'DATABASE_UNAVAILABLE' | 'TOO_MANY_PINGS' | 'WEBHOOK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `pauseWebhook`. */
export type PauseWebhookCode = 'DATABASE_UNAVAILABLE' | 'WEBHOOK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `resumeWebhook`. */
export type ResumeWebhookCode = 'DATABASE_UNAVAILABLE' | 'WEBHOOK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `listWebhookAttempts`. */
export type ListWebhookAttemptsCode = 'DATABASE_UNAVAILABLE' | 'WEBHOOK_NOT_FOUND' | codes.CommonCode;

/** The error codes of `replayWebhook`. */
export type ReplayWebhookCode = 'CURSOR_INVALID' | 'DATABASE_UNAVAILABLE' | 'EVENTS_EXPIRED' | 'REPLAY_UNDER_WAY' | 'WEBHOOK_NOT_ACTIVE' | 'WEBHOOK_NOT_FOUND' | codes.CommonCode;

/**
 * Sends a user's events to URLs of theirs, by the Standard Webhooks specification (https://www.standardwebhooks.com).
 *
 * Each event is a POST with the body `{"type": "message.accepted", "timestamp": …, "data": …}`. `data` is the event as StreamEvents tells it.
 * The headers are `webhook-id` (the event's `event_id`), `webhook-timestamp` and `webhook-signature`. Each event comes at least once; one
 * that comes again has the same `webhook-id`. Events of a conversation come in their order, one after the other; those of different
 * conversations come independently of each other.
 *
 * Whatever is not answered with 2xx within 15 s has failed, and is tried again for three days, after pauses that grow from 5 s to 4 h. The
 * later events of its conversation wait. An endpoint that answers 410 is disabled. One for which everything has failed for three days is
 * paused, and its owner is told by the event `webhook_paused`. The webhooks of a user who is disabled are paused, too; once active again, the
 * user resumes them.
 */
export class WebhooksService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** Makes a webhook. It is sent events that happen from now on. Its secret is shown in this answer and never again. */
  createWebhook(request: CreateWebhookRequest, options?: CallOptions): Reply<CreateWebhookResponse, CreateWebhookCode> {
    return this.#caller.reply<CreateWebhookResponse>({ verb: 'POST', path: '/v1/webhooks', body: '*' }, request, options);
  }

  /** The caller's webhooks, the oldest first. */
  listWebhooks(request: ListWebhooksRequest = {}, options?: CallOptions): Reply<ListWebhooksResponse, ListWebhooksCode> {
    return this.#caller.reply<ListWebhooksResponse>({ verb: 'GET', path: '/v1/webhooks', isRepeatable: true }, request, options);
  }

  /** One webhook of the caller. */
  getWebhook(request: GetWebhookRequest, options?: CallOptions): Reply<Webhook | null, GetWebhookCode> {
    return this.#caller.reply<Webhook | null>({ verb: 'GET', path: '/v1/webhooks/{webhook_id}', isRepeatable: true }, request, options);
  }

  /** Changes where events are sent to, and which. What is left out stays as it is. */
  updateWebhook(request: UpdateWebhookRequest, options?: CallOptions): Reply<Webhook | null, UpdateWebhookCode> {
    return this.#caller.reply<Webhook | null>({ verb: 'PATCH', path: '/v1/webhooks/{webhook_id}', body: '*', isRepeatable: true }, request, options);
  }

  /** Deletes a webhook, with all that was waiting for it. */
  deleteWebhook(request: DeleteWebhookRequest, options?: CallOptions): Reply<DeleteWebhookResponse, DeleteWebhookCode> {
    return this.#caller.reply<DeleteWebhookResponse>({ verb: 'DELETE', path: '/v1/webhooks/{webhook_id}' }, request, options);
  }

  /** Makes a new secret. For 24 h what is sent is signed with the old one as well. */
  rotateWebhookSecret(request: RotateWebhookSecretRequest, options?: CallOptions): Reply<RotateWebhookSecretResponse, RotateWebhookSecretCode> {
    return this.#caller.reply<RotateWebhookSecretResponse>({ verb: 'POST', path: '/v1/webhooks/{webhook_id}/secret', body: '*' }, request, options);
  }

  /** Sends an event of type `ping` at once, and says how it was answered. It is not repeated. */
  pingWebhook(request: PingWebhookRequest, options?: CallOptions): Reply<WebhookAttempt | null, PingWebhookCode> {
    return this.#caller.reply<WebhookAttempt | null>({ verb: 'POST', path: '/v1/webhooks/{webhook_id}/ping', body: '*', timeout: 35000 }, request, options);
  }

  /** Stops sending to a webhook. What happens meanwhile waits, as long as events are kept. */
  pauseWebhook(request: PauseWebhookRequest, options?: CallOptions): Reply<Webhook | null, PauseWebhookCode> {
    return this.#caller.reply<Webhook | null>({ verb: 'POST', path: '/v1/webhooks/{webhook_id}/pause', body: '*', isRepeatable: true }, request, options);
  }

  /** Goes on with a webhook that is paused or disabled, from where it stopped. */
  resumeWebhook(request: ResumeWebhookRequest, options?: CallOptions): Reply<Webhook | null, ResumeWebhookCode> {
    return this.#caller.reply<Webhook | null>({ verb: 'POST', path: '/v1/webhooks/{webhook_id}/resume', body: '*', isRepeatable: true }, request, options);
  }

  /** What was sent to a webhook, the newest first: of the last 1,000 or so, and no longer than events are kept. */
  listWebhookAttempts(request: ListWebhookAttemptsRequest, options?: CallOptions): Reply<ListWebhookAttemptsResponse, ListWebhookAttemptsCode> {
    return this.#caller.reply<ListWebhookAttemptsResponse>({ verb: 'GET', path: '/v1/webhooks/{webhook_id}/attempts', isRepeatable: true }, request, options);
  }

  /**
   * Sends events once more, from a place or a time on: those that the webhook takes now and that were before this call. They come in their
   * order, one after the other, while new events go on.
   */
  replayWebhook(request: ReplayWebhookRequest, options?: CallOptions): Reply<ReplayWebhookResponse, ReplayWebhookCode> {
    return this.#caller.reply<ReplayWebhookResponse>({ verb: 'POST', path: '/v1/webhooks/{webhook_id}/replay', body: '*' }, request, options);
  }
}
