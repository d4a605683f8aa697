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
import { startTracing, tracingSettings } from './tracing.ts';
import { unknownSettings } from './unknown-settings.ts';

/** Settings of every process. */
export const processSettings = {
  ...logSettings,
  ...metricsSettings,
  ...tracingSettings,
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
  /** The health of the service and of what it depends on. */
  health?(): PartsHealth | Promise<PartsHealth>;
  /** Reports not ready, since the process is about to stop. Calls are still accepted. */
  retire(): void;
  /** Accepts nothing new, finishes the work in flight and releases all resources. */
  stop(): Promise<void>;
}

/** A service or gateway: its `index.ts` exports the settings and the start. */
export interface ProcessDefinition<S extends Settings = Settings> {
  /** The name in log lines, and the prefix of variables that apply to it only. */
  name: string;
  settings: S;
  start(config: Config<S>, log: Logger): Promise<Running>;
}

/** Sent to the supervisor over the IPC channel, if there is one, once the process accepts calls. */
export interface ReadyMessage {
  ready: true;
  port: number;
}

/** Exit code of a process whose configuration is unusable (EX_CONFIG of sysexits.h): restarting it is of no use. */
export const configurationExitCode = 78;

/** Ctrl-C under npm comes twice, from the terminal and from npm; only what comes later than this is meant as a second one. */
const sameSignalMs = 500;

/**
 * Runs a process of one service or several: reads the configuration, starts, and stops gracefully at SIGINT, SIGTERM or the loss of the
 * supervisor's IPC channel. At a signal it reports not ready, and goes on for SHUTDOWN_NOTICE before it stops. A second signal, or a stop
 * that takes longer than SHUTDOWN_TIMEOUT, ends it at once.
 *
 * The members of a group stop together, and group after group in order, so that callers stop before the services that they call. Settings
 * that the process has only once (SHUTDOWN_TIMEOUT, SHUTDOWN_NOTICE, METRICS_PORT) are those of the first service.
 *
 * Exit codes: 0 after a graceful stop, 78 for an unusable configuration, 1 for anything else: a StartError, which may be gone the next
 * time, is logged in one line, and bugs with their stack. An uncaught exception is logged and ends the process, since nothing can be relied
 * on after it.
 */
export async function runProcess(...groups: readonly (readonly ProcessDefinition[])[]): Promise<void> {
  const configured = groups.map((group) => group.map(configure));
  const all = configured.flat();
  const { log, config: own } = all[0]!;
  const { SHUTDOWN_TIMEOUT: timeout, SHUTDOWN_NOTICE: notice } = own;
  // Workers have the primary's environment, so it warns for them.
  if (!cluster.isWorker) for (const line of unknownSettings(environment)) log.warn(line);

  const fail = (error: unknown, text: string, by = log): never => {
    by.fatal({ err: error }, text);
    process.exit(1);
  };
  process.on('uncaughtException', (error) => fail(error, 'ended by an error that nothing caught'));
  process.on('unhandledRejection', (error) => fail(error, 'ended by a rejection that nothing handled'));

  const failStart = (error: unknown, name: string, by: Logger): never => {
    if (error instanceof ConfigError) refuse(name, error);
    // Something that became unavailable during the start is no bug, either.
    const isAway = isTransient(error);
    if (!isAway && !(error instanceof StartError)) return fail(error, 'failed to start', by);
    const { message } = error as Error;
    by.fatal(isAway ? `failed to start: ${message}: ${innermostText(error)}` : message);
    process.exit(1);
  };

  // Several services in one process can't be told apart by their process.
  const traces = startTracing(own, all.length === 1 ? all[0]!.definition.name : 'chat4all', log);
  let running: Promise<Running>[][];
  let stopping: number | undefined;
  let areAllReady = false;
  const stop = async (why: string, noticeFor = notice) => {
    if (stopping !== undefined) {
      if (Date.now() - stopping > sameSignalMs) process.exit(1);
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
      // Services that failed to start have nothing to stop.
      const started = await Promise.all(
        running.map(async (group) =>
          (await Promise.allSettled(group)).flatMap((each) => (each.status === 'fulfilled' ? [each.value] : [])),
        ),
      );
      for (const each of started.flat()) each.retire();
      if (started.flat().length > 0) await sleep(noticeFor);
      for (const group of started) await Promise.all(group.map((each) => each.stop()));
      await (
        await traces
      )();
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
        await traces;
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
    const settings = { ...definition.settings, ...processSettings };
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
