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

/** Settings of every service, save where it asks about API keys and standings. */
export const ownServiceSettings = { ...serverSettings, ...identitySettings, ...databaseSettings };

/** Settings of every service but auth, which has the API keys and standings itself. */
export const serviceSettings = { ...ownServiceSettings, ...authoritySettings };

/** What a service is put together with while it starts. */
export interface Starting {
  /** Its database; `serve` has the health service show it. */
  readonly db: ServiceDatabase;
  readonly identities: Identities;
  /** Has something stopped, or closed, when the service stops or can't start: what came last goes first. @returns the same */
  own<T extends Stoppable>(opened: T): T;
  /** Does the same for what has another way to stop. */
  onStop(stop: () => void | Promise<void>): void;
  /** A client of another service, by its name and address. */
  connect<D extends Parameters<typeof connect>[0]>(definition: D, target: string, address: string): Connection<D>;
  /** Takes calls from now on. The database is among its dependencies. Without `authority` the auth service is asked. */
  serve(services: readonly ServedService[], options?: ServiceServeOptions): Promise<RunningServer>;
}

export type Stoppable = { stop(): unknown } | { close(): unknown };

export type ServiceServeOptions = Partial<Pick<ServeOptions, 'authority' | 'dependencies' | 'optionalDependencies'>>;

export interface StartOptions {
  /** Of the service: in its token, and as the name of its connections. */
  name: string;
  config: Config<typeof ownServiceSettings> | Config<typeof serviceSettings>;
  log: Logger;
  database: DatabaseDefinition;
}

/**
 * Starts a service: opens its identities and its database, and has `compose` put together the rest and serve it. All of that stops in
 * the reverse order of its start; if the start fails, so does what has been started by then.
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
    async serve(services, { authority, dependencies, optionalDependencies } = {}) {
      return own(
        await serve({
          config,
          identities,
          authority: authority ?? connectAuthority({ config: config as Config<typeof serviceSettings>, identities }),
          log,
          services,
          dependencies: { ...db.dependencies, ...dependencies },
          optionalDependencies,
        }),
      );
    },
  });
  const everything = opened.move();
  return { ...server, stop: () => everything.disposeAsync() };
}
