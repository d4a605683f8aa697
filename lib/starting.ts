import { ConfigError } from './config.ts';

/** Why a process can't start, for people, naming the setting: no bug, and starting again later may work. */
export class StartError extends Error {
  override name = 'StartError';
}

/**
 * Why nothing can be served at an address: a StartError if the port is in use and may be free later, a ConfigError if the setting is wrong.
 *
 * @param names of the settings of the host and the port
 */
export function listenFailure(
  error: Error,
  names: { host: string; port: string },
  { host, port }: { host: string; port: number },
): Error {
  const text = error.message;
  if (/EADDRINUSE/.test(text)) return new StartError(`${names.port}: ${host}:${port} is in use by another program`);
  if (/EACCES/.test(text)) return new ConfigError([`${names.port} is ${port}, which this user may not listen on`]);
  if (/EADDRNOTAVAIL|ENOTFOUND|EAI_|EINVAL/.test(text)) {
    return new ConfigError([`${names.host} is ${host}, which is no address of this machine`]);
  }
  return new Error(`Can't listen on ${host}:${port}: ${text}`, { cause: error });
}

/** Aborted once this process is told to stop: ends the waits of a service that has not started yet. */
export const ending: AbortController = new AbortController();
