// Made by `npm run generate` from the options `topics` and `topic` of the protos.

/** The topics of the event bus. */
export const topics = {
  conversationChanges: 'conversation_changes',
  fileChanges: 'file_changes',
  messageChanges: 'message_changes',
  messageProcessing: 'message_processing',
  messageStatus: 'message_status',
  outgoing: (channel: string) => `${channel}_outgoing`,
} as const;

/** The consumer groups. */
export const groups = {
  connector: (channel: string) => `${channel}_connector`,
  conversation: 'conversation',
  events: 'events',
  message: 'message',
  router: 'router',
} as const;

/** The types of the events. */
export const eventTypes = {
  ConversationCreated: 'chat4all.conversation.v1.ConversationCreated',
  DeliveryAttempted: 'chat4all.message.v1.DeliveryAttempted',
  DeliveryEnded: 'chat4all.message.v1.DeliveryEnded',
  DeliveryRequested: 'chat4all.router.v1.DeliveryRequested',
  FileCompleted: 'chat4all.file.v1.FileCompleted',
  MemberJoined: 'chat4all.conversation.v1.MemberJoined',
  MemberLeft: 'chat4all.conversation.v1.MemberLeft',
  MessageAccepted: 'chat4all.message.v1.MessageAccepted',
  MessageChanged: 'chat4all.message.v1.MessageChanged',
  MessageRead: 'chat4all.message.v1.MessageRead',
  MessageRejected: 'chat4all.message.v1.MessageRejected',
  MessageRouted: 'chat4all.message.v1.MessageRouted',
} as const;

/** The channel whose topic this is; undefined if it is no topic `{channel}_outgoing`. */
export function channelOfOutgoing(topic: string): string | undefined {
  return /^(.*)_outgoing$/.exec(topic)?.[1];
}
