import type { TopicLag } from '#gen/chat4all/message/v1/operations.ts';
import { groups, topics } from '#gen/events.ts';
import type { Bus } from '#lib/bus/bus.ts';
import { HubError } from '#lib/errors.ts';
import type { Channels } from '../messages/channels.ts';

/** The lag of each consumer group of the hub; undefined while the bus is unavailable. */
export type ConsumerLag = () => Promise<TopicLag[] | undefined>;

export function consumerLag({
  bus,
  channels,
}: {
  bus: Pick<Bus, 'lag'>;
  channels: Pick<Channels, 'known'>;
}): ConsumerLag {
  return async () => {
    const consumed = [
      { topic: topics.messageProcessing, group: groups.router },
      { topic: topics.messageStatus, group: groups.message },
      { topic: topics.messageChanges, group: groups.events },
      ...(channels.known() ?? []).map((channel) => ({
        topic: topics.outgoing(channel),
        group: groups.connector(channel),
      })),
    ];
    try {
      return await Promise.all(
        consumed.map(async ({ topic, group }) => {
          const partitions = await bus.lag(topic, group);
          return {
            topic,
            group,
            events: BigInt(partitions.reduce((sum, { events }) => sum + events, 0)),
            partitions: partitions.map(({ partition, events }) => ({ partition, events: BigInt(events) })),
          };
        }),
      );
    } catch (error) {
      if (error instanceof HubError) return undefined;
      throw error;
    }
  };
}
