// Made by `npm run generate` from the options `topics` and `topic` of the protos.

/** The topics of the event bus. */
export const topics = {
  messageProcessing: 'message_processing',
  messageStatus: 'message_status',
  outgoing: (channel: string) => `${channel}_outgoing`,
} as const;

/** The consumer groups. */
export const groups = {
  connector: (channel: string) => `${channel}_connector`,
  conversation: 'conversation',
  message: 'message',
  router: 'router',
} as const;

/** The types of the events. */
export const eventTypes = {
  DeliveryAttempted: 'chat4all.message.v1.DeliveryAttempted',
  DeliveryEnded: 'chat4all.message.v1.DeliveryEnded',
  DeliveryRequested: 'chat4all.router.v1.DeliveryRequested',
  MessageAccepted: 'chat4all.message.v1.MessageAccepted',
  MessageRejected: 'chat4all.message.v1.MessageRejected',
  MessageRouted: 'chat4all.message.v1.MessageRouted',
} as const;

/** The channel whose topic this is; undefined if it is no topic `{channel}_outgoing`. */
export function channelOfOutgoing(topic: string): string | undefined {
  return /^(.*)_outgoing$/.exec(topic)?.[1];
}
