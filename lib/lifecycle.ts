import cluster from 'node:cluster';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ConfigError,
  duration,
  environment,
  environmentOf,
  laptopSettings,
  loadConfig,
  type Config,
  type Settings,
} from './config.ts';
import { innermostText, isTransient } from './errors.ts';
import { logSettings, openLog, type Logger } from './log.ts';
import { metricsSettings, serveMetrics } from './metrics.ts';
import { readinessOf, type PartsHealth } from './readiness.ts';
import { ending, StartError } from './starting.ts';
import { unknownSettings } from './unknown-settings.ts';

/** Settings that every process takes for its life as a whole. */
export const lifecycleSettings = {
  ...laptopSettings,
  SHUTDOWN_TIMEOUT: duration({ max: 300_000 })
    .default(10_000)
    .describe('how long work under way may take to finish when the process is told to stop; after that it ends anyway'),
  SHUTDOWN_NOTICE: duration({ min: 0, max: 300_000 })
    .default(2_000)
    .describe(
      'how long a process that is told to stop still takes calls, so that load balancers notice; comes before that',
    ),
};

/** A service or gateway that takes calls. */
export interface Running {
  /** The TCP port that it listens on. */
  port: number;
  /** How it is, and all that it depends on. */
  health?(): PartsHealth | Promise<PartsHealth>;
  /** Tells whoever asks that it is about to stop. Everything is taken as before. */
  retire(): void;
  /** Takes nothing new, finishes what is under way and lets go of everything. */
  stop(): Promise<void>;
}

/** A service or gateway: its `index.ts` exports the settings and the start. */
export interface ProcessDefinition<S extends Settings = Settings> {
  /** Stands in each of its log lines, and before the variables that are for it alone. */
  name: string;
  settings: S;
  start(config: Config<S>, log: Logger): Promise<Running>;
}

/** Sent over the IPC channel to the supervisor, where there is one, once the process takes calls. */
export interface ReadyMessage {
  ready: true;
  port: number;
}

/** Exit code of a process that can't start because of its configuration (EX_CONFIG of sysexits.h): again is no use. */
export const configurationExitCode = 78;

/** Ctrl-C under npm comes twice, from the terminal and from npm; only what comes later than this is meant as a second one. */
const sameSignal = 500;

/**
 * Is the whole life of a process, of one service or of several that share it: reads the configuration, starts, and stops in order at
 * SIGINT, SIGTERM or the loss of the supervisor's IPC channel. At a signal it first says that it is not ready any more, and goes on
 * for SHUTDOWN_NOTICE. A second signal, or work that takes longer than SHUTDOWN_TIMEOUT, ends it at once.
 *
 * Those of one group stop together, and group after group in their order: whoever calls stops before those that it calls. What the
 * process has only one of (SHUTDOWN_TIMEOUT, SHUTDOWN_NOTICE, METRICS_PORT) is as the first service says.
 *
 * Exit codes: 0 after an orderly stop, 78 for an unusable configuration, 1 for anything else: what may be otherwise the next time
 * (StartError) in one line, and bugs with where they come from. What no code caught is a bug after which nothing can be relied on: it is
 * logged and ends the process.
 */
export async function runProcess(...groups: readonly (readonly ProcessDefinition[])[]): Promise<void> {
  const configured = groups.map((group) => group.map(configure));
  const all = configured.flat();
  const { log, config: own } = all[0]!;
  const { SHUTDOWN_TIMEOUT: timeout, SHUTDOWN_NOTICE: notice } = own;
  // Workers are told what their primary is.
  if (!cluster.isWorker) for (const line of unknownSettings(environment)) log.warn(line);

  const fail = (error: unknown, text: string, by = log): never => {
    by.fatal({ err: error }, text);
    process.exit(1);
  };
  process.on('uncaughtException', (error) => fail(error, 'ended by an error that nothing caught'));
  process.on('unhandledRejection', (error) => fail(error, 'ended by a rejection that nothing handled'));

  const failStart = (error: unknown, name: string, by: Logger): never => {
    if (error instanceof ConfigError) refuse(name, error);
    // What went away in the middle of the start is no bug, either.
    const isAway = isTransient(error);
    if (!isAway && !(error instanceof StartError)) return fail(error, 'failed to start', by);
    const { message } = error as Error;
    by.fatal(isAway ? `failed to start: ${message}: ${innermostText(error)}` : message);
    process.exit(1);
  };

  let running: Promise<Running>[][];
  let stopping: number | undefined;
  let areAllReady = false;
  const stop = async (why: string, noticeFor = notice) => {
    if (stopping !== undefined) {
      if (Date.now() - stopping > sameSignal) process.exit(1);
      return;
    }
    stopping = Date.now();
    ending.abort();
    for (const each of all) each.log.info(`stopping: ${why}`);
    setTimeout(() => {
      log.error(`not stopped after ${(noticeFor + timeout) / 1000} s: ended by force`);
      process.exit(1);
    }, noticeFor + timeout).unref();
    try {
      // Those that haven't started have nothing to stop.
      const started = await Promise.all(
        running.map(async (group) =>
          (await Promise.allSettled(group)).flatMap((each) => (each.status === 'fulfilled' ? [each.value] : [])),
        ),
      );
      for (const each of started.flat()) each.retire();
      if (started.flat().length > 0) await sleep(noticeFor);
      for (const group of started) await Promise.all(group.map((each) => each.stop()));
    } catch (error) {
      fail(error, 'failed to stop in order');
    }
    for (const each of all) each.log.info('stopped');
    process.exit(0);
  };
  process.on('SIGINT', () => void stop('SIGINT'));
  process.on('SIGTERM', () => void stop('SIGTERM'));
  if (process.connected) process.once('disconnect', () => void stop('the supervisor is gone', 0));

  running = configured.map((group) =>
    group.map(async ({ definition, config, log }) => {
      try {
        const started = await definition.start(config, log);
        if (stopping === undefined) log.info({ port: started.port }, 'ready');
        return started;
      } catch (error) {
        if (stopping !== undefined) throw error;
        return failStart(error, definition.name, log);
      }
    }),
  );
  try {
    const metricsPort = await serveMetrics(own, {
      isEnding: () => stopping !== undefined,
      readiness: async () => {
        if (stopping !== undefined) return readinessOf({ dependencies: {}, optional: {} }, 'stopping');
        if (!areAllReady) return readinessOf({ dependencies: {}, optional: {} }, 'starting');
        const started = await Promise.all(running.flat());
        const parts = await Promise.all(started.map(async (each) => each.health?.()));
        return readinessOf({
          dependencies: Object.assign({}, ...parts.map((part) => part?.dependencies)) as PartsHealth['dependencies'],
          optional: Object.assign({}, ...parts.map((part) => part?.optional)) as PartsHealth['optional'],
        });
      },
    });
    if (metricsPort !== undefined) log.info({ port: metricsPort }, 'metrics');
    const [first] = await Promise.all(running.flat());
    areAllReady = true;
    if (stopping !== undefined) return;
    if (process.connected) process.send?.({ ready: true, port: first!.port } satisfies ReadyMessage);
  } catch (error) {
    if (stopping === undefined) failStart(error, all[0]!.definition.name, log);
  }
}

function configure(definition: ProcessDefinition) {
  try {
    const settings = { ...definition.settings, ...logSettings, ...lifecycleSettings, ...metricsSettings };
    const config = loadConfig(settings, environmentOf(definition.name));
    return {
      definition,
      config,
      log: openLog({ name: definition.name, format: config.LOG_FORMAT, level: config.LOG_LEVEL }),
    };
  } catch (error) {
    if (error instanceof ConfigError) refuse(definition.name, error);
    throw error;
  }
}

function refuse(name: string, error: ConfigError): never {
  console.error(`${name}: ${error.message}`);
  process.exit(configurationExitCode);
}
