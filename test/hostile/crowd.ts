import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http, { type IncomingMessage } from 'node:http';
import http2 from 'node:http2';
import { connect, type Socket } from 'node:net';
import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { answer } from '../bench/remote.ts';

/**
 * A crowd of clients that mean harm, in a process of its own: each from an address of its own, half of them with a token. None of
 * them asks for more work than the machine can do; they hold on to what they get, and send what breaks others.
 */

export interface CrowdArgument {
  /** Of the gateway. */
  url: string;
  grpcPorts: Record<string, number>;
  /** At most 250. */
  clients: number;
}

/** How often each of their ways was tried, and how many HTTP answers there were, by status; 0 stands for none. */
export interface Tally {
  tried: Record<string, number>;
  answers: Record<number, number>;
}

/** The users of the crowd come behind those of the tests. */
const firstUser = 6;
const password = 'password123';
const chunkSize = 5 * 1024 * 1024;
/** Milliseconds within which each client has tried everything once. */
const firstTry = 10_000;
const tally: Tally = { tried: {}, answers: {} };
const over = new AbortController();
let running: Promise<unknown> = Promise.resolve();

/** They are no part of the machine that they attack: what they compute is not to take anything from it. */
os.setPriority(os.constants.priority.PRIORITY_LOW);

/** One of them. */
interface Client {
  argument: CrowdArgument;
  number: number;
  /** In 127.0.0.0/8, all of which leads here on Linux. */
  address: string;
  token: string | undefined;
}

interface Asked {
  headers?: Record<string, string>;
  body?: string | Buffer;
  /** Milliseconds after which the client hangs up. */
  hangUp?: number;
}

/**
 * What they do, again and again until it is over, with the milliseconds between two tries of one client: so that all together they
 * leave room on a machine with two cores, on which they run themselves.
 */
const ways: Record<string, { pause: number; does(client: Client): Promise<unknown> }> = {
  'heads that never end': {
    pause: 2_000,
    does: (client) => trickle(client, 'POST /v1/messages HTTP/1.1\r\nHost: a\r\nX-Never: ', 'a'),
  },
  'bodies that never end': {
    pause: 2_000,
    does: (client) =>
      trickle(
        client,
        `POST /auth/token HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{`,
        ' ',
      ),
  },
  'connections that say nothing': { pause: 1_000, does: (client) => trickle(client, '', undefined) },
  'bytes that are no HTTP': { pause: 5_000, does: (client) => trickle(client, randomBytes(400), undefined) },
  'metadata about the connection': {
    pause: 10_000,
    async does(client) {
      const name = ['Connection', 'Keep-Alive', 'Upgrade', 'Transfer-Encoding', 'Content-Length', 'Host'][pick(6)]!;
      const headers = { [`Grpc-Metadata-${name}`]: 'close' };
      const file = '00000000-0000-4000-8000-00000000000a';
      await ask(client, 'PATCH', `/v1/files/upload?file_id=${file}&chunk_id=0`, { headers, body: randomBytes(1_000) });
      await ask(client, 'GET', `/v1/files/${file}/content`, { headers });
      await ask(client, 'GET', '/v1/users/me', { headers });
    },
  },
  'calls that are given up': {
    pause: 5_000,
    does: (client) => ask(client, 'GET', '/v1/conversations', { hangUp: 1 + pick(10) }),
  },
  'streams that are reset': {
    pause: 10_000,
    does: (client) => overGrpc(client, 'message', '/chat4all.message.v1.MessageService/GetMessage', 20, 'reset'),
  },
  'streams that say nothing': {
    pause: 3_000,
    does: (client) => overGrpc(client, 'file', '/chat4all.file.v1.FileService/UploadSignedChunk', 8, 'hold'),
  },
  'uploads that trickle': { pause: 3_000, does: trickledUpload },
  'downloads that nobody reads': { pause: 1_000, does: unreadDownload },
  'logins of users who do not exist': {
    pause: 60_000,
    does: (client) =>
      ask(client, 'POST', '/auth/token', {
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ username: `nobody${pick(1_000_000)}`, password: 'wrong password' }),
      }),
  },
  'tokens that are made up': {
    pause: 10_000,
    does: (client) =>
      ask(client, 'GET', '/v1/conversations', {
        headers: { authorization: `Bearer ${randomBytes(20).toString('hex')}` },
      }),
  },
};

/** Lets the crowd in. Answers once half of them have logged in. */
async function start(argument: CrowdArgument): Promise<void> {
  const clients: Client[] = [];
  for (let number = 0; number < argument.clients; number += 1) {
    const client: Client = { argument, number, address: `127.1.0.${number + 1}`, token: undefined };
    if (number % 2 === 0) client.token = await logIn(client);
    clients.push(client);
  }
  running = Promise.all(
    clients.flatMap((client) =>
      Object.entries(ways).map(async ([name, { pause, does }]) => {
        await rest(Math.min(pause, firstTry) * Math.random());
        while (!over.signal.aborted) {
          tally.tried[name] = (tally.tried[name] ?? 0) + 1;
          // Whatever becomes of it is all the same to them.
          await does(client).catch(() => {});
          await rest(pause);
        }
      }),
    ),
  );
}

async function stop(): Promise<Tally> {
  over.abort();
  await running;
  return tally;
}

export const commands = { start, stop };

answer(commands, async () => {
  await stop();
});

async function logIn(client: Client): Promise<string> {
  const credentials = { username: `user${firstUser + client.number}`, password };
  const { status, body } = await ask(client, 'POST', '/auth/token', {
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(credentials),
  });
  if (status !== 200) throw new Error(`The crowd can't log in: ${status} ${body}`);
  return (JSON.parse(body) as { token: string }).token;
}

/** Holds a connection on which hardly anything comes, until it is cut. */
async function trickle(client: Client, begin: string | Buffer, each: string | undefined): Promise<void> {
  const socket = await dial(client);
  try {
    socket.write(begin);
    while (!socket.destroyed && !over.signal.aborted) {
      await rest(1_000);
      if (each !== undefined) socket.write(each);
    }
  } finally {
    socket.destroy();
  }
}

async function dial({ argument, address }: Client): Promise<Socket> {
  const { hostname, port } = new URL(argument.url);
  const socket = connect({ host: hostname, port: Number(port), localAddress: address });
  socket.on('error', () => {});
  await once(socket, 'connect');
  socket.on('data', () => {});
  return socket;
}

async function trickledUpload(client: Client): Promise<void> {
  const fileId = await initiate(client);
  await trickle(
    client,
    `PATCH /v1/files/upload?file_id=${fileId}&chunk_id=0 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${client.token}\r\n` +
      `Content-Type: application/octet-stream\r\nContent-Length: ${chunkSize}\r\n\r\n`,
    'a',
  );
}

/** One in ten has a file, and downloads it without reading. */
async function unreadDownload(client: Client): Promise<void> {
  if (client.number % 10 !== 0) return idle();
  const fileId = await initiate(client);
  const bytes = Buffer.alloc(chunkSize, client.number);
  const json = { 'content-type': 'application/json' };
  await ask(client, 'PATCH', `/v1/files/upload?file_id=${fileId}&chunk_id=0`, { body: bytes });
  const hash = await crypto.subtle.digest('SHA-256', bytes);
  const body = JSON.stringify({ file_id: fileId, checksum: Buffer.from(hash).toString('hex') });
  await ask(client, 'POST', '/v1/files/complete', { headers: json, body });
  const sockets = await Promise.all(Array.from({ length: 10 }, () => dial(client)));
  for (const socket of sockets) {
    socket.pause();
    socket.write(
      `GET /v1/files/${fileId}/content HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${client.token}\r\n\r\n`,
    );
  }
  await idle();
  for (const socket of sockets) socket.destroy();
}

async function initiate(client: Client): Promise<string> {
  if (client.token === undefined) await idle();
  const { body } = await ask(client, 'POST', '/v1/files/initiate', {
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ filename: 'a', file_size: chunkSize, chunk_size: chunkSize }),
  });
  return (JSON.parse(body) as { file_id: string }).file_id;
}

async function overGrpc(client: Client, service: string, path: string, count: number, then: 'reset' | 'hold') {
  const session = http2.connect(`http://127.0.0.1:${client.argument.grpcPorts[service]}`, {
    createConnection: (url: URL) =>
      connect({ host: url.hostname, port: Number(url.port), localAddress: client.address }),
  });
  session.on('error', () => {});
  try {
    await once(session, 'connect');
    const streams = Array.from({ length: count }, () => {
      const head = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' };
      const stream = session.request(head);
      stream.on('error', () => {});
      stream.resume();
      return stream;
    });
    if (then === 'reset') for (const stream of streams) stream.close(http2.constants.NGHTTP2_CANCEL);
    // Until they are cut.
    else await Promise.race([idle(), Promise.all(streams.map((stream) => once(stream, 'close').catch(() => {})))]);
  } finally {
    session.destroy();
  }
}

async function ask(client: Client, method: string, path: string, { headers = {}, body, hangUp }: Asked) {
  const request = http.request(`${client.argument.url}${path}`, {
    method,
    agent: false,
    localAddress: client.address,
    headers: { ...(client.token !== undefined && { authorization: `Bearer ${client.token}` }), ...headers },
    signal: hangUp === undefined ? over.signal : AbortSignal.any([over.signal, AbortSignal.timeout(hangUp)]),
    timeout: 30_000,
  });
  let status = 0;
  try {
    request.end(body);
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    status = response.statusCode as number;
    return { status, body: (await response.toArray()).join('') };
  } finally {
    tally.answers[status] = (tally.answers[status] ?? 0) + 1;
    request.destroy();
  }
}

function idle(): Promise<void> {
  return rest(60_000);
}

async function rest(milliseconds: number): Promise<void> {
  await sleep(milliseconds, undefined, { signal: over.signal }).catch(() => {});
}

function pick(count: number): number {
  return Math.floor(Math.random() * count);
}
