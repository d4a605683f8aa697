import { beginAtZero, counter, durationHistogram, sample, sharedGauge } from '../metrics.ts';
import { handlingEvents, publishingEvents } from '../tracing.ts';
import type { Bus } from './bus.ts';

const published = counter('bus_published_total', 'Events stored on a topic', ['topic']);
const publications = counter('bus_publishes_total', 'Calls that stored events on a topic', ['topic']);
const unpublished = counter('bus_publish_failures_total', 'Publications that failed', ['topic']);
const consumed = counter('bus_handled_total', 'Events that a group has handled', ['topic', 'group']);
const rounds = counter('bus_rounds_total', 'Rounds of events that a group has handled', ['topic', 'group']);
const took = durationHistogram('bus_round_duration_seconds', 'How long a group works on a round of events', [
  'topic',
  'group',
]);
const failed = counter('bus_failures_total', 'Rounds of events that were tried and failed', ['topic', 'group']);
const deadLettered = counter('bus_dead_letters_total', 'Events that a group has given up', ['topic', 'group']);
const behind = sharedGauge('bus_lag_events', 'Events on a topic that a group has not handled', [
  'topic',
  'group',
  'partition',
]);

/**
 * The same bus with metrics and traces.
 *
 * @param topics the topics that are known to be published on
 */
export function observed(bus: Bus, topics: readonly string[] = []): Bus {
  for (const each of [published, publications, unpublished]) beginAtZero(each, { topic: topics });
  return {
    ...bus,
    async publish(topic, events) {
      try {
        await publishingEvents(`send ${topic}`, events, (marked) => bus.publish(topic, marked));
      } catch (error) {
        unpublished.inc({ topic });
        throw error;
      }
      if (events.length > 0) publications.inc({ topic });
      published.inc({ topic }, events.length);
    },
    async consume(options) {
      const { topics, group, handle, onDeadLetter } = options;
      for (const each of [consumed, rounds, failed, deadLettered]) beginAtZero(each, { topic: topics, group: [group] });
      for (const topic of topics) took.zero({ topic, group });
      const consumer = await bus.consume({
        ...options,
        async handle(events) {
          // All events of a round are of one topic.
          const labels = { topic: events[0]!.topic, group };
          const began = performance.now();
          try {
            await handlingEvents(`process ${labels.topic}`, events, () => handle(events));
          } catch (error) {
            failed.inc(labels);
            throw error;
          } finally {
            took.observe(labels, (performance.now() - began) / 1_000);
          }
          rounds.inc(labels);
          consumed.inc(labels, events.length);
        },
        async onDeadLetter(event, error) {
          await onDeadLetter?.(event, error);
          deadLettered.inc({ topic: event.topic, group });
        },
      });
      const forget = sample(async (tell) => {
        const lags = await Promise.all(topics.map(async (topic) => ({ topic, lag: await bus.lag(topic, group) })));
        for (const { topic, lag } of lags) {
          for (const { partition, events } of lag) tell(behind, { topic, group, partition: String(partition) }, events);
        }
      });
      return {
        stop() {
          forget();
          return consumer.stop();
        },
      };
    },
  };
}
