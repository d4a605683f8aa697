import { setTimeout as sleep } from 'node:timers/promises';
import { ConfigError, duration, laptopSettings, loadConfig, type Config, type Settings } from './config.ts';
import { logSettings, openLog, type Logger } from './log.ts';
import { metricsSettings, serveMetrics } from './metrics.ts';

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
  /** Tells whoever asks that it is about to stop. Everything is taken as before. */
  retire(): void;
  /** Takes nothing new, finishes what is under way and lets go of everything. */
  stop(): Promise<void>;
}

/** What a process of ours is: its `index.ts` exports the settings and the start. */
export interface ProcessDefinition<S extends Settings> {
  /** Stands in each of its log lines. */
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
 * Is the whole life of a process: reads the configuration, starts, and stops in order at SIGINT, SIGTERM or the loss of
 * the supervisor's IPC channel. At a signal it first says that it is not ready any more, and goes on for SHUTDOWN_NOTICE. A
 * second signal, or work that takes longer than SHUTDOWN_TIMEOUT, ends it at once.
 *
 * Exit codes: 0 after an orderly stop, 78 for an unusable configuration, 1 for anything else. What no code caught is a
 * bug after which nothing can be relied on: it is logged and ends the process.
 */
export async function runProcess<S extends Settings>(definition: ProcessDefinition<S>): Promise<void> {
  const { log, config, timeout, notice, metrics } = configure(definition);

  const fail = (error: unknown, text: string) => {
    log.fatal({ err: error }, text);
    process.exit(1);
  };
  process.on('uncaughtException', (error) => fail(error, 'ended by an error that nothing caught'));
  process.on('unhandledRejection', (error) => fail(error, 'ended by a rejection that nothing handled'));

  let running: Promise<Running>;
  let stopping: number | undefined;
  const stop = async (why: string, noticeFor = notice) => {
    if (stopping !== undefined) {
      if (Date.now() - stopping > sameSignal) process.exit(1);
      return;
    }
    stopping = Date.now();
    log.info(`stopping: ${why}`);
    setTimeout(() => {
      log.error(`not stopped after ${(noticeFor + timeout) / 1000} s: ended by force`);
      process.exit(1);
    }, noticeFor + timeout).unref();
    try {
      const started = await running;
      started.retire();
      await sleep(noticeFor);
      await started.stop();
    } catch (error) {
      fail(error, 'failed to stop in order');
    }
    log.info('stopped');
    process.exit(0);
  };
  process.on('SIGINT', () => void stop('SIGINT'));
  process.on('SIGTERM', () => void stop('SIGTERM'));
  if (process.connected) process.once('disconnect', () => void stop('the supervisor is gone', 0));

  running = definition.start(config, log);
  try {
    const metricsPort = await serveMetrics(metrics);
    if (metricsPort !== undefined) log.info({ port: metricsPort }, 'metrics');
    const { port } = await running;
    if (stopping !== undefined) return;
    log.info({ port }, 'ready');
    if (process.connected) process.send?.({ ready: true, port } satisfies ReadyMessage);
  } catch (error) {
    if (stopping !== undefined) return;
    if (error instanceof ConfigError) refuse(definition.name, error);
    fail(error, 'failed to start');
  }
}

function configure<S extends Settings>(definition: ProcessDefinition<S>) {
  try {
    const all = loadConfig({
      ...definition.settings,
      ...logSettings,
      ...lifecycleSettings,
      ...metricsSettings,
    } as Settings);
    const own = all as Config<typeof logSettings & typeof lifecycleSettings & typeof metricsSettings>;
    return {
      config: all as Config<S>,
      log: openLog({ name: definition.name, format: own.LOG_FORMAT, level: own.LOG_LEVEL }),
      timeout: own.SHUTDOWN_TIMEOUT,
      notice: own.SHUTDOWN_NOTICE,
      metrics: own,
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
