import { z } from 'zod';
import { ConfigError, integer, list, postgresUrl, type Config } from '../config.ts';
import { isTransient } from '../errors.ts';
import { awaitEngine, engineSettings, placeOf, type Engine } from '../engines.ts';
import type { Logger } from '../log.ts';
import { kafkaAccess, kafkaAccessSettings } from './kafka-access.ts';
import type { Bus, ReceivedEvent } from './bus.ts';
import { observed } from './observed.ts';

/** Settings of a process that publishes or consumes events: the bus is Kafka or a PostgreSQL database. */
export const busSettings = {
  KAFKA_BROKERS: list()
    .refine(
      (brokers) => brokers.every((broker) => /^([\w.-]+|\[[\da-f:.]+\]):\d+$/i.test(broker)),
      'must be host:port, …',
    )
    .optional()
    .describe('addresses of Kafka brokers, host:port with commas between them; or set BUS_DATABASE_URL'),
  ...kafkaAccessSettings,
  BUS_DATABASE_URL: postgresUrl()
    .optional()
    .describe('PostgreSQL URL of a role that owns the schema `bus`: a bus for a single machine, instead of Kafka'),
  BUS_PARTITIONS: integer({ min: 1, max: 1_000 })
    .default(8)
    .describe('partitions of each topic: as many keys can be worked on at once. Must be the same in all processes'),
  BUS_PREFIX: z
    .string()
    .regex(/^[A-Za-z0-9._-]{0,50}$/, 'must be at most 50 of the characters A-Z a-z 0-9 . _ -')
    .default('')
    .describe('stands before the names of all topics and groups, so that several hubs can share one Kafka'),
  ...engineSettings,
};

export interface OpenBusOptions {
  log: Logger;
  clientId: string;
  /** The topics that the process is known to publish on, for its counters. */
  publishes?: readonly string[];
  /** Whether to wait up to START_PATIENCE for an unavailable engine; otherwise that fails at once. */
  waits?: boolean;
}

/**
 * Opens the bus that the configuration names, once its engine is available.
 *
 * @throws ConfigError unless exactly one engine is configured completely and accepts us
 * @throws StartError if the engine stays unavailable; HubError UNAVAILABLE `BUS_UNAVAILABLE` if it is and `waits` is not set
 */
export async function openBus(
  config: Config<typeof busSettings>,
  { log, clientId, publishes, waits = true }: OpenBusOptions,
): Promise<Bus> {
  const { KAFKA_BROKERS: brokers, BUS_DATABASE_URL: url, BUS_PARTITIONS: partitions, BUS_PREFIX: prefix } = config;
  if ((brokers === undefined) === (url === undefined)) {
    throw new ConfigError([`set one of KAFKA_BROKERS and BUS_DATABASE_URL${url === undefined ? '' : ', not both'}`]);
  }
  // Imported here so that a process only loads the library of one engine.
  if (brokers !== undefined) {
    const { openKafkaBus } = await import('./kafka.ts');
    const { ask, ...kafka } = openKafkaBus({ brokers, access: kafkaAccess(config), partitions, clientId, log });
    try {
      await there({ setting: 'KAFKA_BROKERS', what: `Kafka at ${brokers.join(', ')}`, ask });
    } catch (error) {
      await kafka.stop();
      throw error;
    }
    return observed(withPrefix(prefix, kafka), publishes);
  }
  const { openPostgresBus } = await import('./postgres.ts');
  let postgres: Bus | undefined;
  await there({
    setting: 'BUS_DATABASE_URL',
    what: `PostgreSQL at ${placeOf(url!)}`,
    ask: async () => void (postgres = await openPostgresBus({ url: url!, partitions, clientId, log })),
  });
  return observed(withPrefix(prefix, postgres!), publishes);

  async function there(engine: Engine): Promise<void> {
    await awaitEngine(engine, { log, patienceMs: waits ? config.START_PATIENCE : undefined });
  }
}

/**
 * Opens the bus for a process that only publishes, and that starts and works without it: while it is away, what is published fails.
 *
 * @throws what `openBus` throws, unless the bus is just away
 */
export async function openPublisher(
  config: Config<typeof busSettings>,
  options: Omit<OpenBusOptions, 'waits'>,
): Promise<Pick<Bus, 'publish' | 'stop'>> {
  let opening: Promise<Bus> | undefined;
  const open = () => {
    opening ??= openBus(config, { ...options, waits: false }).catch((error: unknown) => {
      opening = undefined;
      throw error;
    });
    return opening;
  };
  await open().catch((error: unknown) => {
    if (!isTransient(error)) throw error;
  });
  return {
    publish: async (topic, events) => (await open()).publish(topic, events),
    stop: async () => (await opening?.catch(() => undefined))?.stop(),
  };
}

/** A bus that adds a prefix to the names of its topics and groups. */
function withPrefix(prefix: string, bus: Bus): Bus {
  if (prefix === '') return bus;
  const cut = (name: string) => name.slice(prefix.length);
  function plain({ topic, deadLetter, ...event }: ReceivedEvent): ReceivedEvent {
    if (deadLetter === undefined) return { ...event, topic: cut(topic) };
    const origin = { ...deadLetter, topic: cut(deadLetter.topic), group: cut(deadLetter.group) };
    return { ...event, topic: cut(topic), deadLetter: origin };
  }
  return {
    publish: (topic, events) => bus.publish(prefix + topic, events),
    consume({ topics, group, handle, onDeadLetter, ...options }) {
      return bus.consume({
        ...options,
        topics: topics.map((topic) => prefix + topic),
        group: prefix + group,
        handle: (events) => handle(events.map(plain)),
        onDeadLetter: onDeadLetter && ((event, error) => onDeadLetter(plain(event), error)),
      });
    },
    probe: () => bus.probe(),
    lag: (topic, group) => bus.lag(prefix + topic, prefix + group),
    stop: () => bus.stop(),
  };
}
