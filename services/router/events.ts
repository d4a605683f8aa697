import { v5 as uuidOf } from 'uuid';
import { MessageAccepted, MessageRejected, MessageRouted } from '#gen/chat4all/message/v1/events.ts';
import type { FileServiceService } from '#gen/chat4all/file/v1/file.ts';
import { PayloadType } from '#gen/chat4all/message/v1/message.ts';
import { DeliveryRequested } from '#gen/chat4all/router/v1/events.ts';
import { eventTypes, groups, topics } from '#gen/events.ts';
import type { Bus, BusEvent, Consumer, ReceivedEvent } from '#lib/bus/bus.ts';
import { hubDate, hubTime } from '#lib/clock.ts';
import { withContext } from '#lib/context.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { ageHistogram } from '#lib/metrics.ts';
import type { Connection } from '#lib/rpc/client.ts';
import { isUuid } from '#lib/uuid.ts';
import { decide, requestsFor, type Request, type Route } from './router.ts';
import { keyOf, type Store } from './store.ts';
import { encode } from '#lib/encode.ts';

const routedAge = ageHistogram(
  'message_routed_age_seconds',
  'From the acceptance of a message to its routing, without replays',
);

const missingFile = 'The file is not in the store';

/** The namespace for ids of events, which are derived from their content, so that a repeated event has the same id. */
const eventNamespace = 'c4c3b8d0-54f5-4b4d-8a3e-6a1f2f1d7c10';

/** Texts may be long: not all events of a batch may be encoded or published at once. */
const maxPublicationBytes = 2 * 1024 * 1024;

export interface RoutingOptions {
  store: Pick<Store, 'record'>;
  files: Files;
  publish: Bus['publish'];
  log: Logger;
}

/** The part of the file service that is needed here. */
export type Files = Pick<Connection<typeof FileServiceService>, 'verifyFile'>;

/** Routes accepted messages from the bus. */
export function consumeMessages(options: { bus: Bus; store: Store; files: Files; log: Logger }): Promise<Consumer> {
  const { bus, store, files, log } = options;
  return bus.consume({
    topics: [topics.messageProcessing],
    group: groups.router,
    handle: routing({ store, files, publish: bus.publish, log }),
    onDeadLetter: rejection(bus.publish),
  });
}

/**
 * Makes the handler of a batch. Its effects may stop anywhere and are then repeated in the same order: the decision is recorded, then
 * published on `message_status`, and only then are the deliveries requested, so that no report of a delivery comes before it.
 */
export function routing({ store, files, publish, log }: RoutingOptions) {
  return async (events: readonly ReceivedEvent[]): Promise<void> => {
    const messages = new Map(events.map((event) => [event.id, readAccepted(event)]));
    const now = hubDate();
    const fileProblems = await problemsOf([...messages.values()], files, now);
    const standing = await store.record(
      [...messages.values()].map(({ message }) =>
        decide(message, now, fileProblems.get(message.payload?.fileId ?? '')),
      ),
    );
    const routed = [...messages.values()].map((each) => ({ ...each, route: standing.get(keyOf(each.message))! }));

    await publish(
      topics.messageStatus,
      routed.map(({ event, route }) => decisionEvent(event, route)),
    );
    for (const { event, route } of routed) {
      const context = { requestId: event.requestId, messageId: route.messageId };
      withContext(context, () => {
        if (route.rejectedReason === null) log.debug('routed');
        else if (route.rejectedReason === missingFile) log.error({ reason: route.rejectedReason }, 'rejected');
        else log.warn({ reason: route.rejectedReason }, 'rejected');
      });
    }

    for (const { message } of routed) {
      const { acceptedAt, replay } = message;
      if (acceptedAt !== undefined && replay === 0) routedAge.observe((hubTime() - acceptedAt.getTime()) / 1_000);
    }

    const requests = routed.flatMap((each) => requestsFor(each.route).map((request) => ({ ...each, request })));
    const byChannel = Map.groupBy(requests, ({ request }) => request.channel);
    await Promise.all(
      [...byChannel].map(async ([channel, some]) => {
        const topic = topics.outgoing(channel);
        let run: BusEvent[] = [];
        let bytes = 0;
        for (const { event, message, request } of some) {
          const next = requestEvent(event, message, request);
          if (bytes + next.value.byteLength > maxPublicationBytes && run.length > 0) {
            await publish(topic, run);
            run = [];
            bytes = 0;
          }
          run.push(next);
          bytes += next.value.byteLength;
        }
        await publish(topic, run);
      }),
    );
  };
}

/**
 * What is wrong with the files of messages, by file id. Files of messages past their deadline are not checked.
 *
 * @throws HubError that is transient while the file service is unavailable
 */
async function problemsOf(messages: readonly Accepted[], files: Files, now: Date): Promise<Map<string, string>> {
  const fileIds = messages.flatMap(({ message: { payload, deliverBy } }) =>
    payload?.type === PayloadType.PAYLOAD_TYPE_FILE && now < deliverBy ? [payload.fileId] : [],
  );
  const problems = new Map<string, string>();
  await Promise.all(
    [...new Set(fileIds)].map(async (fileId) => {
      try {
        await files.verifyFile({ fileId });
      } catch (error) {
        if (!(error instanceof HubError) || (error.kind !== 'NOT_FOUND' && error.kind !== 'ABORTED')) throw error;
        problems.set(fileId, missingFile);
      }
    }),
  );
  return problems;
}

/** Publishes that a message that can't be routed has failed. Needs only the bus. */
export function rejection(publish: Bus['publish']) {
  return async (event: ReceivedEvent, error: unknown): Promise<void> => {
    const reason = error instanceof HubError ? error.message : 'Something went wrong while it was routed';
    const about = roundOf(event);
    // Its message is unknown, so there is nothing to end.
    if (about === undefined) return;
    await publish(topics.messageStatus, [rejectedEvent(event, { ...about, at: hubDate(), reason })]);
  };
}

interface Accepted {
  event: ReceivedEvent;
  message: MessageAccepted & { deliverBy: Date };
}

/** @throws HubError INVALID_ARGUMENT for an event that lacks something or can't be read */
function readAccepted(event: ReceivedEvent): Accepted {
  const unreadable = (what: string, cause?: unknown) =>
    new HubError('INVALID_ARGUMENT', 'UNREADABLE_EVENT', `The event could not be read: ${what}`, { cause });
  if (event.type !== eventTypes.MessageAccepted) throw unreadable(`its type is ${event.type}`);
  let message: MessageAccepted;
  try {
    message = MessageAccepted.decode(event.value);
  } catch (error) {
    throw unreadable(`it is no ${eventTypes.MessageAccepted}`, error);
  }
  const { deliverBy } = message;
  if (!isUuid(message.messageId)) throw unreadable('message_id is no UUID');
  if (!isUuid(event.id)) throw unreadable('its id is no UUID');
  // The event of a replay has an id of its own.
  if (message.replay === 0 && message.messageId !== event.id) throw unreadable('message_id is not its id');
  if (message.conversationId !== event.key || !isUuid(event.key)) {
    throw unreadable('conversation_id is not its key');
  }
  message.recipientIds.forEach((id, index) => {
    if (!isUuid(id)) throw unreadable(`recipient_ids[${index}] is no UUID`);
  });
  if (deliverBy === undefined) throw unreadable('deliver_by is missing');
  if (message.replay < 0) throw unreadable('replay is negative');
  return { event, message: { ...message, deliverBy } };
}

/** The message and round of an event, if they can be read. An unreadable event has the id of its message. */
function roundOf({ id, value }: ReceivedEvent): { messageId: string; replay: number } | undefined {
  try {
    const { messageId, replay } = MessageAccepted.decode(value);
    if (isUuid(messageId)) return { messageId, replay };
  } catch {
    // The error was logged when routing failed.
  }
  return isUuid(id) ? { messageId: id, replay: 0 } : undefined;
}

function idOf(what: string, replay: number): string {
  return uuidOf(replay === 0 ? what : `${what}/${replay}`, eventNamespace);
}

function decisionEvent(cause: ReceivedEvent, { messageId, routedAt: at, rejectedReason, replay }: Route): BusEvent {
  if (rejectedReason !== null) return rejectedEvent(cause, { messageId, at, reason: rejectedReason, replay });
  return {
    id: idOf(`${messageId}/routed`, replay),
    type: eventTypes.MessageRouted,
    key: cause.key,
    value: encode(MessageRouted, { messageId, at, replay }),
    requestId: cause.requestId,
  };
}

function rejectedEvent(cause: ReceivedEvent, rejected: MessageRejected): BusEvent {
  return {
    id: idOf(`${rejected.messageId}/rejected`, rejected.replay),
    type: eventTypes.MessageRejected,
    key: cause.key,
    value: encode(MessageRejected, rejected),
    requestId: cause.requestId,
  };
}

/**
 * The event that requests the deliveries of a message over a channel. For a single recipient it has the older format, which earlier
 * connectors understand.
 */
function requestEvent(cause: ReceivedEvent, message: MessageAccepted, { recipientIds, channel }: Request): BusEvent {
  const { messageId, conversationId, seq, senderId, payload, priority, deliverBy, replay, acceptedAt } = message;
  const [first] = recipientIds;
  const isForOne = recipientIds.length === 1;
  return {
    // The id is derived from the first recipient: routing the message again groups the recipients in the same way.
    id: idOf(isForOne ? `${messageId}/${first}/${channel}` : `${messageId}/${channel}/${first}`, replay),
    type: eventTypes.DeliveryRequested,
    key: cause.key,
    value: encode(DeliveryRequested, {
      messageId,
      conversationId,
      seq,
      senderId,
      recipientId: isForOne ? first! : '',
      channel,
      payload,
      priority,
      deliverBy,
      replay,
      recipientIds: isForOne ? [] : [...recipientIds],
      acceptedAt,
    }),
    requestId: cause.requestId,
  };
}
