import { v4 as uuid, v7 as orderedUuid } from 'uuid';
import { EventType, StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import { WebhookStatus, type WebhooksServiceService } from '#gen/chat4all/events/v1/webhooks.ts';
import type * as wire from '#gen/chat4all/events/v1/webhooks.ts';
import { hubDate } from '#lib/clock.ts';
import { HubError, type FieldViolation } from '#lib/errors.ts';
import type { Endpoints } from '#lib/public-endpoint.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Checks, Handlers } from '#lib/rpc/server.ts';
import type { LogStore } from '../log/log-store.ts';
import { cursorText, readCursor, whyReset } from '../streams/cursor.ts';
import { fieldOf, fieldsOf } from '../wire.ts';
import { outcomes, type Attempt, type AttemptsStore } from './attempts-store.ts';
import type { Endpoint, EndpointsStore } from './endpoints-store.ts';
import { pingPayload } from './payload.ts';
import type { Sender } from './sender.ts';
import { secretText } from './signature.ts';

export interface WebhookHandlerOptions {
  endpoints: EndpointsStore;
  attempts: AttemptsStore;
  log: Pick<LogStore, 'head' | 'idBefore'>;
  sender: Sender;
  /** Called when something was changed of an endpoint, so that whoever works on it hears of it. */
  changed(endpointId: string): void;
}

const defaultAttempts = 50;
const defaultReplay = 1_000;
/** Pings of this process at once. */
const maxPings = 32;

export function webhookHandlers(options: WebhookHandlerOptions): Handlers<WebhooksServiceService> {
  const { endpoints, attempts, log, sender, changed } = options;
  let pings = 0;

  /** Behind which event to begin, and at which to end. */
  async function rangeOf(
    cursor: string,
    since: Date | undefined,
  ): Promise<{ after: number; upTo: number; epoch: number }> {
    const head = await log.head();
    const { lastId: upTo, epoch } = head;
    if (cursor === '') return { after: await log.idBefore(since!, timeOf), upTo, epoch };
    const from = readCursor(cursor);
    if (whyReset(from, head) !== undefined) {
      throw new HubError('FAILED_PRECONDITION', 'EVENTS_EXPIRED', 'Events behind this cursor are not kept any more');
    }
    return { after: from.position, upTo, epoch };
  }

  return {
    async createWebhook({ url, types, conversationIds }, { caller }: UserCall) {
      const endpoint = await endpoints.create(caller.userId, { url, types: fieldsOf(types), conversationIds });
      changed(endpoint.id);
      return { webhook: webhookOf(endpoint), secret: secretText(endpoint.secret) };
    },

    async listWebhooks(_request, { caller }: UserCall) {
      return { webhooks: (await endpoints.list(caller.userId)).map(webhookOf) };
    },

    async getWebhook({ webhookId }, { caller }: UserCall) {
      return { webhook: webhookOf(await endpoints.get(caller.userId, webhookId)) };
    },

    async updateWebhook(request, { caller }: UserCall) {
      const { webhookId, url, types, allTypes, conversationIds, allConversations } = request;
      const endpoint = await endpoints.update(caller.userId, webhookId, {
        url,
        types: allTypes || types.length > 0 ? fieldsOf(types) : undefined,
        conversationIds: allConversations || conversationIds.length > 0 ? conversationIds : undefined,
      });
      changed(webhookId);
      return { webhook: webhookOf(endpoint) };
    },

    async deleteWebhook({ webhookId }, { caller }: UserCall) {
      await endpoints.delete(caller.userId, webhookId);
      changed(webhookId);
      return {};
    },

    async rotateWebhookSecret({ webhookId }, { caller }: UserCall) {
      const { secret, oldSecretUntil } = await endpoints.rotateSecret(caller.userId, webhookId);
      changed(webhookId);
      return { secret: secretText(secret), oldSecretUntil: oldSecretUntil ?? undefined };
    },

    async pingWebhook({ webhookId }, { caller, signal }: UserCall) {
      const endpoint = await endpoints.get(caller.userId, webhookId);
      if (pings >= maxPings) {
        throw new HubError('RESOURCE_EXHAUSTED', 'TOO_MANY_PINGS', 'Too many pings are under way', { retryAfter: 5 });
      }
      pings += 1;
      try {
        const eventId = uuid();
        const payload = pingPayload(eventId, hubDate());
        const { at, durationMs, isDelivered, statusCode, error } = await sender.send(endpoint, payload, signal);
        const outcome = isDelivered ? outcomes.delivered : outcomes.failed;
        const how = { type: payload.type, at, durationMs, statusCode, error, outcome, number: 1, nextAt: null };
        const attempt: Attempt = { id: orderedUuid(), eventId, ...how };
        await attempts.add(webhookId, attempt);
        return { attempt: attemptOf(attempt) };
      } finally {
        pings -= 1;
      }
    },

    async pauseWebhook({ webhookId }, { caller }: UserCall) {
      const endpoint = await endpoints.pause(caller.userId, webhookId);
      changed(webhookId);
      return { webhook: webhookOf(endpoint) };
    },

    async resumeWebhook({ webhookId, skip }, { caller }: UserCall) {
      const endpoint = await endpoints.resume(caller.userId, webhookId, skip);
      changed(webhookId);
      return { webhook: webhookOf(endpoint) };
    },

    async listWebhookAttempts({ webhookId, limit = defaultAttempts, before }, { caller }: UserCall) {
      await endpoints.get(caller.userId, webhookId);
      const found = await attempts.list(webhookId, before === '' ? undefined : before, limit);
      return { attempts: found.map(attemptOf) };
    },

    async replayWebhook({ webhookId, cursor, since, limit = defaultReplay }, { caller }: UserCall) {
      await endpoints.get(caller.userId, webhookId);
      const { after, upTo, epoch } = await rangeOf(cursor, since);
      await endpoints.replay(caller.userId, webhookId, { after, upTo, limit });
      changed(webhookId);
      return { untilCursor: cursorText({ epoch, position: upTo }) };
    },
  };
}

/** What is wrong with URLs, and with what may not be said together. */
export function webhookChecks(endpoints: Pick<Endpoints, 'problem'>): Checks<WebhooksServiceService> {
  const urlProblems = (url: string | undefined): FieldViolation[] => {
    const problem = url === undefined || url === '' ? undefined : endpoints.problem(url);
    return problem === undefined ? [] : [{ field: 'url', ...problem }];
  };
  const both = (field: string, other: string) => ({ field, rule: 'empty', description: `must be empty with ${other}` });
  return {
    createWebhook: ({ url }) => urlProblems(url),
    updateWebhook: ({ url, types, allTypes, conversationIds, allConversations }) => [
      ...urlProblems(url),
      ...(allTypes && types.length > 0 ? [both('types', 'all_types')] : []),
      ...(allConversations && conversationIds.length > 0 ? [both('conversation_ids', 'all_conversations')] : []),
    ],
    replayWebhook: ({ cursor, since }) =>
      (cursor === '') === (since === undefined)
        ? [{ field: 'cursor', rule: 'one_of', description: 'or `since` must be given, and not both' }]
        : [],
  };
}

const typeOf = new Map(Object.entries(fieldOf).map(([type, number]) => [number, Number(type) as EventType] as const));

const statuses = {
  active: WebhookStatus.WEBHOOK_STATUS_ACTIVE,
  paused: WebhookStatus.WEBHOOK_STATUS_PAUSED,
  disabled: WebhookStatus.WEBHOOK_STATUS_DISABLED,
} as const;

function webhookOf(endpoint: Endpoint): wire.Webhook {
  const { id: webhookId, url, types, conversationIds, status, createdAt, updatedAt, oldSecretUntil } = endpoint;
  return {
    webhookId,
    url,
    types: types.map((number) => typeOf.get(number) ?? EventType.EVENT_TYPE_UNSPECIFIED),
    conversationIds,
    status: statuses[status],
    createdAt,
    updatedAt,
    failingSince: endpoint.failingSince ?? undefined,
    oldSecretUntil: oldSecretUntil !== null && oldSecretUntil > hubDate() ? oldSecretUntil : undefined,
  };
}

function attemptOf({ id: attemptId, nextAt, ...attempt }: Attempt): wire.WebhookAttempt {
  return { attemptId, ...attempt, nextAt: nextAt ?? undefined };
}

/** When an event of the log happened, in milliseconds. */
function timeOf(body: Buffer): number {
  return StreamEventsResponse.decode(body).at?.getTime() ?? 0;
}
