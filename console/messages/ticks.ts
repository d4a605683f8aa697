import type { Delivery, Message, MessageStatus } from '#client/message';

/** How far a message has come over one channel. */
export interface ChannelState {
  channel: string;
  /** The worst of its deliveries, where one has failed; else that of the one that is least far. */
  status: MessageStatus;
  delivered: number;
  /** How many people it goes to. */
  total: number;
}

/**
 * How far a message has come over each channel.
 *
 * @param deliveries those that are known; the others are as far as the message is as a whole
 */
export function channelStates(
  { to, channels, status }: Pick<Message, 'to' | 'channels' | 'status'>,
  deliveries: Iterable<Delivery>,
): ChannelState[] {
  const known = [...deliveries];
  return channels.map((channel) => {
    const told = known.filter((delivery) => delivery.channel === channel);
    const total = Math.max(to.length, told.length);
    // A message that has failed may have been delivered to some: until that is known, nothing is said of them.
    const others = status === 'failed' && told.length > 0 ? 'delivered' : status;
    const statuses = [
      ...told.map((delivery) => delivery.status),
      ...Array<MessageStatus>(total - told.length).fill(others),
    ];
    return {
      channel,
      status: order.find((each) => statuses.includes(each)) ?? status,
      delivered: statuses.filter((each) => each === 'delivered').length,
      total,
    };
  });
}

const order: readonly MessageStatus[] = ['failed', 'accepted', 'in_transit', 'delivered'];

/** What a status is called. */
export const statusWords: Readonly<Record<MessageStatus, string>> = {
  accepted: 'Accepted',
  in_transit: 'In transit',
  delivered: 'Delivered',
  failed: 'Failed',
};

/** What networks are called. One that the console does not know goes by its name. */
const titles: Readonly<Record<string, string>> = { whatsapp: 'WhatsApp', instagram: 'Instagram' };

/** The channels that can be chosen: no API lists them. */
export const knownChannels: readonly string[] = Object.keys(titles);

export function channelTitle(channel: string): string {
  return titles[channel] ?? channel;
}
