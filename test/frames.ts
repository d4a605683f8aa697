import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import type { ExecutionContext } from 'ava';
import { flags, headSize, types } from '../gateway/grpc/http2/frames.ts';

/** What a client sent on one stream of HTTP/2. */
export interface SentOnStream {
  /** Whether a frame said that nothing follows (END_STREAM). */
  isEnded: boolean;
  /** The error code of RST_STREAM; undefined if there was none. */
  resetWith: number | undefined;
}

const prefaceSize = 24;

/**
 * Stands in front of a server of HTTP/2 without TLS, and notes what its clients send.
 *
 * @param address host:port of the server
 */
export async function watchFrames(t: ExecutionContext, address: string) {
  const [host, port] = address.split(':') as [string, string];
  const streams: SentOnStream[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(Number(port), host);
    const ofClient = new Map<number, SentOnStream>();
    let rest = Buffer.alloc(0);
    let isGreeted = false;
    client.on('data', (bytes: Buffer) => {
      rest = Buffer.concat([rest, bytes]);
      if (!isGreeted && rest.length >= prefaceSize) {
        isGreeted = true;
        rest = rest.subarray(prefaceSize);
      }
      while (isGreeted && rest.length >= headSize && rest.length >= headSize + rest.readUIntBE(0, 3)) {
        const size = headSize + rest.readUIntBE(0, 3);
        note(rest.subarray(0, size));
        rest = rest.subarray(size);
      }
    });
    const note = (frame: Buffer) => {
      const [type, flag, id] = [frame[3], frame[4] as number, frame.readUInt32BE(5)];
      if (id === 0 || (type !== types.headers && type !== types.data && type !== types.resetStream)) return;
      let stream = ofClient.get(id);
      if (stream === undefined) {
        stream = { isEnded: false, resetWith: undefined };
        ofClient.set(id, stream);
        streams.push(stream);
      }
      if (type === types.resetStream) stream.resetWith = frame.readUInt32BE(headSize);
      else if ((flag & flags.endStream) !== 0) stream.isEnded = true;
    };
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(one);
      one.on('error', () => {});
      one.on('close', () => other.destroy());
      one.pipe(other);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, streams };
}
