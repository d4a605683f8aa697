import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials, status, type ServiceError } from '@grpc/grpc-js';
import { v4 as uuid } from 'uuid';
import { chunkPath, contentOf, mebibyte } from '../flows/files.ts';
import type { Person } from '../flows/meshes.ts';
import { openRest } from '../rest.ts';

/** What became of all that an honest client asked for. */
export interface Honest {
  /** Milliseconds of each send and each read of a message. */
  latencies: number[];
  logins: number;
  /** The ids of the messages that were accepted. */
  accepted: string[];
  /** Whatever was refused, cut off or wrong. */
  harmed: string[];
}

const pause = 50;
const loginPause = 2_000;
const size = 5 * mebibyte;
const pieceSize = mebibyte / 8;

/**
 * A client that minds its own business for so many seconds: sends messages and reads them one after the other, logs in now and then,
 * uploads a file and downloads it again at a steady pace, and watches the health of a service over gRPC.
 */
export async function beHonest(
  url: string,
  filePort: number,
  [writer, reader]: Person[],
  seconds: number,
): Promise<Honest> {
  const found: Honest = { latencies: [], logins: 0, accepted: [], harmed: [] };
  const me = writer as Person;
  const members = [me.userId, (reader as Person).userId];
  const asked = { type: 'private', members };
  const { conversation_id } = await me.rest.post<{ conversation_id: string }>('/v1/conversations', asked);
  const end = performance.now() + seconds * 1_000;
  const isOver = () => performance.now() >= end;
  const attempt = async (what: string, work: () => Promise<void>) => {
    await work().catch((error: unknown) => found.harmed.push(`${what}: ${String(error)}`));
  };

  const write = async () => {
    while (!isOver()) {
      await attempt('a message', async () => {
        const message_id = uuid();
        const payload = { type: 'text', text: 'Oi' };
        const json = { message_id, conversation_id, from: me.userId, channels: ['whatsapp'], payload };
        const began = performance.now();
        await me.rest.post('/v1/messages', json);
        const sent = performance.now();
        found.accepted.push(message_id);
        await me.rest.get(`/v1/messages/${message_id}`);
        found.latencies.push(sent - began, performance.now() - sent);
      });
      await sleep(pause);
    }
  };
  const logIn = async () => {
    while (!isOver()) {
      await attempt('a login', async () => {
        await openRest(url).post('/auth/token', { username: me.username, password: 'password123' });
        found.logins += 1;
      });
      await sleep(loginPause);
    }
  };
  /** Half of the time up, half of it down. */
  const transfer = () =>
    attempt('a file', async () => {
      const content = contentOf('honest', size);
      const asked = { filename: 'honest', file_size: size, chunk_size: size };
      const { file_id } = await me.rest.post<{ file_id: string }>('/v1/files/initiate', asked);
      const perPiece = (seconds * 1_000 * pieceSize) / (2.2 * size);
      const { status: taken, body } = await me.rest.call('PATCH', chunkPath(file_id, 0), {
        headers: { 'content-length': String(size), 'content-type': 'application/octet-stream' },
        timeout: seconds * 2_000 + 30_000,
        body: (async function* () {
          for (let at = 0; at < size; at += pieceSize) {
            yield content.bytes(at, at + pieceSize);
            await sleep(perPiece);
          }
        })(),
      });
      if (taken !== 200) throw new Error(`${taken} ${JSON.stringify(body)}`);
      const checksum = await content.sha256();
      await me.rest.post('/v1/files/complete', { file_id, checksum });
      const answer = await me.rest.raw('GET', `/v1/files/${file_id}/content`, { timeout: seconds * 2_000 + 30_000 });
      const hash = createHash('sha256');
      for await (const piece of answer.body as AsyncIterable<Buffer>) {
        hash.update(piece);
        await sleep((perPiece * piece.length) / pieceSize);
      }
      if (hash.digest('hex') !== checksum) throw new Error(`${answer.status}: the download is another file`);
    });
  const watch = () =>
    attempt('a watch', async () => {
      const client = new Client(`127.0.0.1:${filePort}`, credentials.createInsecure());
      try {
        const same = (bytes: Buffer) => bytes;
        const stream = client.makeServerStreamRequest('/grpc.health.v1.Health/Watch', same, same, Buffer.alloc(0));
        let answers = 0;
        const ended = new Promise<ServiceError>((resolve) => stream.on('error', resolve));
        stream.on('data', () => (answers += 1));
        const early = await Promise.race([ended, sleep(Math.max(0, end - performance.now()))]);
        if (early !== undefined) throw new Error(`it ended: ${status[early.code]} ${early.details}`);
        if (answers === 0) throw new Error('it was told nothing');
        stream.cancel();
        await ended;
      } finally {
        client.close();
      }
    });

  await Promise.all([write(), logIn(), transfer(), watch()]);
  return found;
}
