import { z } from 'zod';
import { SimulationServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { ConfigError, type Config } from '#lib/config.ts';
import type { Database } from '#lib/database.ts';
import { startForgetting, type effectSettings } from '#lib/forgetting.ts';
import type { Logger } from '#lib/log.ts';
import type { Loop } from '#lib/loop.ts';
import { service, type ServedService } from '#lib/rpc/server.ts';
import type { Connector } from '../connector.ts';
import { handlers } from './handlers.ts';
import { isMock, type MockConnector } from './mock-connector.ts';
import type { Profile } from './profile.ts';
import { openSimulation } from './provider.ts';
import { openSimulationStore } from './store.ts';
import { readProfiles } from './wire.ts';

export const simulationSettings = {
  PROVIDER_PROFILES: z
    .string()
    .transform((text, context) => {
      try {
        return readProfiles(text);
      } catch (error) {
        context.addIssue((error as Error).message);
        return z.NEVER;
      }
    })
    .optional()
    .describe('how simulated networks behave, as JSON: {"<channel>": {"rate_limit": 80, …}, …}'),
};

/** The simulated networks with their configured profiles. */
export interface SimulatedNetworks {
  mocks: readonly MockConnector[];
  configured: ReadonlyMap<string, Profile>;
}

/**
 * Finds the connectors whose network is simulated.
 *
 * @throws ConfigError if PROVIDER_PROFILES names a channel that isn't simulated
 */
export function findSimulated(
  installed: readonly Connector[],
  { PROVIDER_PROFILES: configured = new Map() }: Config<typeof simulationSettings>,
): SimulatedNetworks {
  const mocks = installed.filter(isMock);
  const unknown = [...configured.keys()].filter((channel) => !mocks.some(({ name }) => name === channel));
  if (unknown.length > 0) {
    throw new ConfigError([`PROVIDER_PROFILES names no simulated channel with ${unknown.join(', ')}`]);
  }
  return { mocks, configured };
}

export interface StartedSimulation {
  /** The service for administrators: sets profiles, and lists accepted messages. */
  service: ServedService;
  /** Connects a mock to its simulated network; returns any other connector as it is. */
  connect(connector: Connector): Connector;
  stop(): Promise<void>;
}

export interface StartOptions {
  networks: SimulatedNetworks;
  config: Config<typeof effectSettings>;
  database: Database;
  log: Logger;
}

/** Starts the simulation of all networks that need one. */
export async function startSimulation({
  networks: { mocks, configured },
  config,
  database,
  log,
}: StartOptions): Promise<StartedSimulation> {
  const store = openSimulationStore(database);
  const simulation = await openSimulation({ networks: mocks, configured, store, log });
  const forgetting = forgetEffects({ database, retention: config.EFFECT_RETENTION, log });
  const channels = mocks.map(({ name }) => name);
  return {
    service: service(SimulationServiceService, handlers({ simulation, store, channels, log })),
    connect: (connector) =>
      isMock(connector) ? connector.simulatedBy(simulation.provider(connector.name)) : connector,
    async stop() {
      await Promise.all([simulation.stop(), forgetting.stop()]);
    },
  };
}

/** Deletes accepted messages of networks once no request for them can come again. */
export function forgetEffects(options: { database: Database; retention: number; log: Logger }): Loop {
  return startForgetting({ ...options, table: 'provider_effects', isOld: 'first_at < $3' });
}
