import { once } from 'node:events';
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { connect, type Socket } from 'node:net';
import type { ExecutionContext } from 'ava';
import { loadConfig } from '#lib/config.ts';
import type { Running } from '#lib/lifecycle.ts';
import { openLog } from '#lib/log.ts';
import { settings, start } from '../gateway/index.ts';
import type { SentOnStream } from './frames.ts';
import { descriptorSet, startEchoBackend, type EchoBackend } from './echo-backend.ts';

/** What was answered; an answer without a body, or with one of another type, has an empty object for `json`. */
export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  bytes: Buffer;
  text: string;
  json: Record<string, unknown>;
}

export interface Send {
  /** Sent as JSON; text and bytes are sent as they are. */
  body?: unknown;
  headers?: Record<string, string>;
  /** The address that it comes from, to be another client: on Linux any in 127.0.0.0/8. */
  from?: string;
}

export interface Fixture {
  backend: EchoBackend;
  /** What was sent to the backend on each stream of HTTP/2, where that is watched. */
  frames: readonly SentOnStream[];
  gateway: Running;
  lines: Record<string, unknown>[];
  /** Sends `GET /path` as it is written. */
  send(line: string, send?: Send): Promise<Answer>;
}

/** The clients of a test share its process with the gateway, and are no attackers if they get their turn late. */
const unhurried = { headers: 90_000, idle: 90_000 };

/** A gateway in front of an echoing backend, until the test ends. */
export async function fixture(
  t: ExecutionContext,
  env: NodeJS.ProcessEnv = {},
  patience: Parameters<typeof start>[2] = {},
  watch: (address: string) => Promise<{ address: string; streams: readonly SentOnStream[] }> = (address) =>
    Promise.resolve({ address, streams: [] }),
): Promise<Fixture> {
  const backend = await startEchoBackend();
  const { address, streams: frames } = await watch(backend.address);
  const lines: Record<string, unknown>[] = [];
  const log = openLog({
    name: 'gateway',
    format: 'json',
    level: 'info',
    destination: { write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
  });
  const config = loadConfig(settings, {
    PORT: '0',
    BACKENDS: `transcoding.v1=${address}`,
    DESCRIPTOR_SET: descriptorSet,
    ...env,
  });
  const gateway = await start(config, log, { ...unhurried, ...patience });
  t.teardown(async () => {
    await gateway.stop();
    backend.stop();
  });
  return { backend, frames, gateway, lines, send: (line, send) => exchange(gateway.port, line, send) };
}

/** A connection on which bytes are written as they are. */
export async function dial(
  port: number,
  from = '127.0.0.1',
): Promise<{ socket: Socket; until(found: RegExp | 'end'): Promise<string> }> {
  const socket = connect({ port, host: '127.0.0.1', localAddress: from });
  await once(socket, 'connect');
  let received = '';
  let ended = false;
  let wake = () => {};
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1');
    wake();
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    ended = true;
    wake();
  });
  return {
    socket,
    async until(found) {
      while (found === 'end' ? !ended : !found.test(received)) {
        if (ended) throw new Error(`The connection ended after ${JSON.stringify(received)}`);
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return received;
    },
  };
}

/** Of a stream, whose lines are JSON each, nothing. */
function jsonOf(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return {};
  }
}

/** Sends one request on a connection of its own. */
export function exchange(
  port: number,
  line: string,
  { body, headers = {}, from = '127.0.0.1' }: Send = {},
): Promise<Answer> {
  const [method, path] = line.split(' ');
  const raw = body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        port,
        host: '127.0.0.1',
        localAddress: from,
        method,
        path,
        agent: false,
        headers: { ...(raw === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const bytes = Buffer.concat(chunks);
          const text = bytes.toString();
          const { 'content-type': type = '', 'content-encoding': encoding } = response.headers;
          const isJson = text !== '' && /json/.test(type) && encoding === undefined;
          const json = isJson ? jsonOf(text) : {};
          resolve({ status: response.statusCode as number, headers: response.headers, bytes, text, json });
        });
      },
    );
    request.on('error', reject);
    request.end(raw);
  });
}
