/** The parts of a message that routing needs. Ids in lower case. */
export interface MessageToRoute {
  messageId: string;
  conversationId: string;
  recipientIds: readonly string[];
  channels: readonly string[];
  /** No delivery attempt may begin after this. */
  deliverBy: Date;
  /** How often the message was replayed. */
  replay: number;
  /** In a replay: the deliveries to make again. Otherwise empty, for all recipients over all channels. */
  only: readonly Target[];
}

/** A recipient over a channel. */
export interface Target {
  recipientId: string;
  channel: string;
}

/** The decision for one round of a message. The first decision stands. */
export interface Route {
  messageId: string;
  /** The round: how often the message has been replayed. */
  replay: number;
  conversationId: string;
  recipientIds: readonly string[];
  channels: readonly string[];
  routedAt: Date;
  /** Why it is not delivered, for people; null if it goes to all recipients over all channels, or to `targets` only. */
  rejectedReason: string | null;
  /** In a replay: the deliveries to make again. */
  targets: readonly Target[] | null;
}

/** An event that requests deliveries to these recipients over one channel. */
export interface Request {
  channel: string;
  recipientIds: readonly string[];
}

/** Other names can't be part of a topic's name, so no connector can have them. */
const channelName = /^[a-z][a-z0-9_-]{0,62}$/;

/**
 * Decides where a message goes. A recipient or channel that is named twice counts once.
 *
 * @param fileProblem why its file can't be delivered, for people; undefined if nothing is known against it
 */
export function decide(message: MessageToRoute, now: Date, fileProblem?: string): Route {
  const recipientIds = [...new Set(message.recipientIds)];
  const channels = [...new Set(message.channels)];
  return {
    messageId: message.messageId,
    replay: message.replay,
    conversationId: message.conversationId,
    recipientIds,
    channels,
    routedAt: now,
    rejectedReason: objection(recipientIds, channels, message.deliverBy, now) ?? fileProblem ?? null,
    targets: message.replay === 0 ? null : message.only,
  };
}

function objection(
  recipientIds: readonly string[],
  channels: readonly string[],
  deliverBy: Date,
  now: Date,
): string | null {
  if (now >= deliverBy) return 'The delivery deadline had passed before it could be routed';
  if (recipientIds.length === 0) return 'It has no recipients';
  if (channels.length === 0) return 'It has no channels';
  const unknown = channels.filter((channel) => !channelName.test(channel));
  return unknown.length === 0 ? null : `There is no channel ${unknown.map((name) => JSON.stringify(name)).join(', ')}`;
}

const maxRecipients = 100;

/** The events that request the deliveries: the content goes once to each channel, in as few events as possible. */
export function requestsFor(route: Route): Request[] {
  const byChannel = Map.groupBy(copiesOf(route), ({ channel }) => channel);
  return [...byChannel].flatMap(([channel, copies]) => {
    const requests: Request[] = [];
    for (let next = 0; next < copies.length; next += maxRecipients) {
      const some = copies.slice(next, next + maxRecipients);
      requests.push({ channel, recipientIds: some.map(({ recipientId }) => recipientId) });
    }
    return requests;
  });
}

/** The deliveries of a message, by channel, then by recipient. None if it was rejected. */
export function copiesOf({ recipientIds, channels, rejectedReason, targets }: Route): Target[] {
  if (rejectedReason !== null) return [];
  const wanted = targets && new Set(targets.map(({ recipientId, channel }) => `${recipientId} ${channel}`));
  return channels.flatMap((channel) =>
    recipientIds
      .filter((recipientId) => wanted === null || wanted.has(`${recipientId} ${channel}`))
      .map((recipientId) => ({ recipientId, channel })),
  );
}
