import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import type { ExecutionContext } from 'ava';
import { loadConfig } from '#lib/config.ts';
import type { Running } from '#lib/lifecycle.ts';
import { openLog } from '#lib/log.ts';
import { settings, start } from '../gateway/index.ts';
import { descriptorSet, startEchoBackend, type EchoBackend } from './echo-backend.ts';

/** What was answered; an answer without a body has an empty object for `json`. */
export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  json: Record<string, unknown>;
}

export interface Send {
  /** Sent as JSON; text and bytes are sent as they are. */
  body?: unknown;
  headers?: Record<string, string>;
}

export interface Fixture {
  backend: EchoBackend;
  gateway: Running;
  lines: Record<string, unknown>[];
  /** Sends `GET /path` as it is written. */
  send(line: string, send?: Send): Promise<Answer>;
}

/** A gateway in front of an echoing backend, until the test ends. */
export async function fixture(t: ExecutionContext, env: NodeJS.ProcessEnv = {}): Promise<Fixture> {
  const backend = await startEchoBackend();
  const lines: Record<string, unknown>[] = [];
  const log = openLog({
    name: 'gateway',
    format: 'json',
    level: 'info',
    destination: { write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
  });
  const config = loadConfig(settings, {
    PORT: '0',
    BACKENDS: `transcoding.v1=${backend.address}`,
    DESCRIPTOR_SET: descriptorSet,
    ...env,
  });
  const gateway = await start(config, log);
  t.teardown(async () => {
    await gateway.stop();
    backend.stop();
  });
  return { backend, gateway, lines, send: (line, send) => exchange(gateway.port, line, send) };
}

/** Sends one request on a connection of its own. */
export function exchange(port: number, line: string, { body, headers = {} }: Send = {}): Promise<Answer> {
  const [method, path] = line.split(' ');
  const raw = body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        port,
        host: '127.0.0.1',
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
          const text = Buffer.concat(chunks).toString();
          const json = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
          resolve({ status: response.statusCode as number, headers: response.headers, text, json });
        });
      },
    );
    request.on('error', reject);
    request.end(raw);
  });
}
