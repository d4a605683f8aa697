import type { Config } from './config.ts';
import { startDatabase, type ServiceDatabase } from './database-start.ts';
import { databaseSettings } from './database.ts';
import type { DatabaseDefinition } from './database-definition.ts';
import { identitySettings, openIdentities, type Identities } from './identity.ts';
import type { Running } from './lifecycle.ts';
import type { Logger } from './log.ts';
import { authoritySettings, connectAuthority } from './rpc/authority.ts';
import { connect, type Connection } from './rpc/client.ts';
import { serve, serverSettings, type RunningServer, type ServedService, type ServeOptions } from './rpc/server.ts';

/** Settings of every service, without the address of the auth service. */
export const ownServiceSettings = { ...serverSettings, ...identitySettings, ...databaseSettings };

/** Settings of every service but auth: with where to ask for API keys and standings. */
export const serviceSettings = { ...ownServiceSettings, ...authoritySettings };

/** What the composition root of a service starts with. */
export interface Starting {
  /** The service's database; `serve` includes it in the health checks. */
  readonly db: ServiceDatabase;
  readonly identities: Identities;
  /** Registers something to be stopped or closed when the service stops or fails to start, in reverse order. @returns its argument */
  own<T extends Stoppable>(opened: T): T;
  /** Like `own`, for what is stopped in another way. */
  onStop(stop: () => void | Promise<void>): void;
  /** Opens a client of another service. */
  connect<D extends Parameters<typeof connect>[0]>(definition: D, target: string, address: string): Connection<D>;
  /** Starts to accept calls. The database is among its dependencies. By default the auth service is the authority. */
  serve(services: readonly ServedService[], options?: ServiceServeOptions): Promise<RunningServer>;
}

export type Stoppable = { stop(): unknown } | { close(): unknown };

export type ServiceServeOptions = Partial<
  Pick<ServeOptions, 'authority' | 'dependencies' | 'optionalDependencies' | 'onDisabled'>
>;

export interface StartOptions {
  /** The service's name, in its token and of its connections. */
  name: string;
  config: Config<typeof ownServiceSettings> | Config<typeof serviceSettings>;
  log: Logger;
  database: DatabaseDefinition;
}

/**
 * Starts a service: opens its identities and its database, and calls `compose` to create the rest and serve. Everything is stopped in
 * reverse order, also if the start fails.
 *
 * @throws ConfigError, StartError or what `compose` throws
 */
export async function startService(
  { name, config, log, database }: StartOptions,
  compose: (service: Starting) => Promise<RunningServer>,
): Promise<Running> {
  await using opened = new AsyncDisposableStack();
  const onStop = (stop: () => void | Promise<void>) => opened.defer(stop);
  function own<T extends Stoppable>(each: T): T {
    onStop(async () => void (await ('close' in each ? each.close() : each.stop())));
    return each;
  }
  const identities = openIdentities(config, { service: name, log });
  const db = own(await startDatabase(database, { config, name, log }));
  const server = await compose({
    db,
    identities,
    own,
    onStop,
    connect: (definition, target, address) => own(connect(definition, { config, target, address, identities })),
    async serve(services, { authority, dependencies, ...options } = {}) {
      return own(
        await serve({
          config,
          identities,
          authority: authority ?? connectAuthority({ config: config as Config<typeof serviceSettings>, identities }),
          log,
          services,
          dependencies: { ...db.dependencies, ...dependencies },
          ...options,
        }),
      );
    },
  });
  const everything = opened.move();
  return { ...server, stop: () => everything.disposeAsync() };
}
