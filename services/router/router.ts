/** A message, as far as deciding about it goes. Ids in lower case. */
export interface MessageToRoute {
  messageId: string;
  conversationId: string;
  recipientIds: readonly string[];
  channels: readonly string[];
  /** From this moment on no delivery may begin. */
  deliverBy: Date;
  /** How often the message was replayed. */
  replay: number;
  /** In a replay: the deliveries that are to be made again. Otherwise empty: to each recipient over each channel. */
  only: readonly Target[];
}

/** To whom, and over what. */
export interface Target {
  recipientId: string;
  channel: string;
}

/** What was decided for one round of a message. The first decision stands. */
export interface Route {
  messageId: string;
  /** How often the message had been replayed. */
  replay: number;
  conversationId: string;
  recipientIds: readonly string[];
  channels: readonly string[];
  routedAt: Date;
  /** Why it goes nowhere, for people; null if it goes to each recipient over each channel, or to `targets` only. */
  rejectedReason: string | null;
  /** Of a replay: what of it is to be done again. */
  targets: readonly Target[] | null;
}

/** One event that asks for deliveries: to these people over one channel. */
export interface Request {
  channel: string;
  recipientIds: readonly string[];
}

/** Whatever else a channel is called can't be part of a topic's name, so nobody can listen there. */
const channelName = /^[a-z][a-z0-9_-]{0,62}$/;

/**
 * Decides where a message goes. A recipient or channel that is named twice counts once.
 *
 * @param fileProblem why the file that it carries can't be delivered, for people; nothing if nothing is known against it
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

/** The most recipients that one event may have. */
const maxRecipients = 100;

/** What is asked for so that the copies are sent out: the content goes once to each channel, in as few events as may be. */
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

/** The copies that a message is sent out in: by channel, then by recipient. None if it was rejected. */
export function copiesOf({ recipientIds, channels, rejectedReason, targets }: Route): Target[] {
  if (rejectedReason !== null) return [];
  const wanted = targets && new Set(targets.map(({ recipientId, channel }) => `${recipientId} ${channel}`));
  return channels.flatMap((channel) =>
    recipientIds
      .filter((recipientId) => wanted === null || wanted.has(`${recipientId} ${channel}`))
      .map((recipientId) => ({ recipientId, channel })),
  );
}
