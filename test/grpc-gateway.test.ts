import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { JsonValue } from '@bufbuild/protobuf';
import { Metadata } from '@grpc/grpc-js';
import test from 'ava';
import { loadConfig } from '#lib/config.ts';
import { openLog } from '#lib/log.ts';
import { transportSettings } from '#lib/rpc/transport.ts';
import { startStandalone } from '../gateway/standalone.ts';
import { descriptorSet, startEchoBackend, type EchoBackend } from './echo-backend.ts';
import { exchange, type Answer, type Send } from './echo-gateway.ts';
import { buildGrpcGateway, foreignDescriptors, goIsThere, startGo } from './grpc-gateway/build.ts';
import { differences, requests } from './grpc-gateway/requests.ts';

/** What a client sees of an answer, and what the backend saw of the request. */
interface Seen {
  status: number;
  headers: Record<string, unknown>;
  body: unknown;
  calls: { request: JsonValue; metadata: Record<string, unknown> }[];
}

/** Says how an answer came, or is of HTTP itself. Which compression a server of grpc-js takes isn't told of streams. */
const headersOfHttp =
  /^(date|connection|keep-alive|content-length|transfer-encoding|grpc-metadata-(date|grpc-accept-encoding)|vary)$/;
/** What each client of gRPC says by itself. */
const metadataOfClients = /^(user-agent|accept-encoding|grpc-accept-encoding|grpcgateway-user-agent)$/;

async function seen(port: number, backend: EchoBackend, line: string, send: Send): Promise<Seen> {
  backend.calls.length = 0;
  // The ports are different.
  const answer = await exchange(port, line, { ...send, headers: { host: 'gateway.test', ...send.headers } });
  const calls = backend.calls.map(({ request, metadata }) => ({
    request,
    metadata: Object.fromEntries(
      Object.keys(metadata.getMap())
        .filter((key) => !metadataOfClients.test(key))
        .sort()
        .map((key) => [key, metadata.get(key).map(String)]),
    ),
  }));
  // Of a stream that is wrong in the middle, what came before may have been sent.
  const isError = answer.status >= 400;
  const headers = Object.fromEntries(
    Object.entries(answer.headers).filter(([name]) => {
      return !headersOfHttp.test(name) && !(isError && /^(content-type|x-content-type-options)$/.test(name));
    }),
  );
  return {
    status: answer.status,
    headers: { ...headers, ...('trailer' in headers && { trailer: inOrder(String(headers['trailer'])) }) },
    body: isError ? undefined : bodyOf(answer),
    calls: isError && line.includes('/streams:') ? [] : calls,
  };
}

/** What an answer holds, whatever spaces are in it and whatever the body of an error is. */
/** Go announces its trailers in an order that is another one each time. */
function inOrder(names: string): string {
  return names.split(', ').toSorted().join(', ');
}

function bodyOf({ headers, text }: Answer): unknown {
  if (!/json/.test(headers['content-type'] ?? '')) return text;
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.map((line) => {
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch {
      return line;
    }
    const { error } = (json ?? {}) as { error?: { code: number; message: string } };
    return error === undefined ? json : { error: { code: error.code, message: error.message } };
  });
}

const compare = goIsThere() || process.env['CI'] === 'true' ? test.serial : test.serial.skip;

compare('the gateway alone answers as grpc-gateway does', async (t) => {
  t.timeout(20 * 60_000);
  const program = await buildGrpcGateway({ log: (line) => t.log(line) });
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-grpc-gateway-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const descriptors = path.join(folder, 'descriptors.binpb');
  await foreignDescriptors(descriptorSet, descriptors);

  const backend = await startEchoBackend();
  t.teardown(() => backend.stop());
  const go = await startGo(program, 'gateway', backend.address);
  t.teardown(() => go.stop());
  const log = openLog({ name: 'gateway', format: 'json', level: 'silent', destination: { write() {} } });
  const options = { descriptorSet: descriptors, backend: backend.address, port: 0, host: '127.0.0.1' } as const;
  const ours = await startStandalone({ ...options, enumNames: 'proto' }, loadConfig(transportSettings, {}), log);
  t.teardown(() => ours.stop());

  backend.handler = (call, callback) => {
    const [code] = call.metadata.get('x-fail');
    const initial = new Metadata();
    for (const value of call.metadata.get('x-say')) initial.add('x-said', value);
    if (call.metadata.get('x-say').length > 0) call.sendMetadata(initial);
    const trailer = new Metadata();
    for (const value of call.metadata.get('x-end')) trailer.add('x-ended', value);
    if (code !== undefined) {
      callback({ code: Number(code), details: `Failed with ${String(code)}`, metadata: trailer });
      return;
    }
    const { handler } = backend;
    backend.handler = undefined;
    backend.echo(call, callback, trailer);
    backend.handler = handler;
  };
  const wrong: string[] = [];
  for (const { line, ...send } of requests) {
    // oxlint-disable-next-line no-await-in-loop -- the backend tells nobody apart
    const [theirs, own] = [await seen(go.port, backend, line, send), await seen(ours.port, backend, line, send)];
    const allowed = differences.find(({ applies }) => applies(line, send));
    const apart = differing(theirs, own);
    const title = `${line} ${JSON.stringify(send)}`;
    if (apart.length > 0 && allowed === undefined) wrong.push(`${title}\n  ${apart.join('\n  ')}`);
    if (apart.length === 0 && allowed !== undefined)
      wrong.push(`${title} is no difference any more: ${allowed.reason}`);
  }
  t.log(`${requests.length} requests`);
  t.is(wrong.join('\n'), '');
});

/** Where two values are different, and how. */
function differing(theirs: unknown, ours: unknown, at = ''): string[] {
  const [a, b] = [JSON.stringify(sorted(theirs)), JSON.stringify(sorted(ours))];
  if (a === b) return [];
  if (!isObject(theirs) || !isObject(ours)) return [`${at} ${a} is ${b} here`];
  const keys = new Set([...Object.keys(theirs), ...Object.keys(ours)]);
  return [...keys].flatMap((key) => differing(theirs[key], ours[key], `${at}.${key}`));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** With the members of objects in order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]),
  );
}
