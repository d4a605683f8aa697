import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { clientOf } from '#lib/client-address.ts';
import type { RateFloorOptions } from '#lib/rate-floor.ts';

/**
 * Gives each connection a place, and closes those at once that get none.
 *
 * @param take takes a place for a client, and returns what gives it back; undefined if there is none
 */
export function limitConnections(server: Server, take: (client: string) => (() => void) | undefined): void {
  server.on('connection', (socket: Socket) => {
    const leave = take(clientOf(socket.remoteAddress ?? 'unknown'));
    if (leave === undefined) socket.destroy();
    else socket.once('close', leave);
  });
}

/** How many bytes were written to a connection by some moment, and how many of them the client had read. */
interface Progress {
  written: number;
  taken: number;
}

/**
 * Closes the connections of clients that read their answers more slowly than `rate`: at the end of each window of those that have
 * neither read so much in it nor all that was there for them at its beginning. So a client that waits for us or for a backend is none of them.
 *
 * @returns what ends that
 */
export function closeSlowReaders(server: Server, { window, rate }: RateFloorOptions): () => void {
  const least = (rate * window) / 1_000;
  const connections = new Map<Socket, Progress>();
  server.on('connection', (socket: Socket) => {
    connections.set(socket, { written: 0, taken: 0 });
    socket.once('close', () => connections.delete(socket));
  });
  const timer = setInterval(() => {
    for (const [socket, before] of connections) {
      const { written, taken } = progressOf(socket);
      if (taken < before.written && taken - before.taken < least) socket.destroy();
      before.written = written;
      before.taken = taken;
    }
  }, window);
  // It must not keep the process alive.
  timer.unref();
  return () => clearInterval(timer);
}

/** Node's internal handle of a socket, which knows of partial writes. */
interface Handle {
  bytesWritten?: number;
  writeQueueSize?: number;
}

function progressOf(socket: Socket): Progress {
  const written = socket.bytesWritten;
  const { bytesWritten, writeQueueSize } = (socket as Socket & { _handle?: Handle | null })._handle ?? {};
  const taken =
    bytesWritten === undefined || writeQueueSize === undefined
      ? written - socket.writableLength
      : bytesWritten - writeQueueSize;
  return { written, taken };
}
