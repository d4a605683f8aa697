import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Ports below those that systems give to outgoing connections (Linux from 32768 on, others from 49152): else such a connection may
 * have the port of a program that was killed when that starts again.
 */
const [first, last] = [10_000, 32_000];
/** Each process begins at a place of its own, and goes on from there, so that two at once hardly meet. */
let next = first + ((process.pid * 101) % (last - first));

/** Finds TCP ports that nothing on this machine listens on now; all different, also from those found before. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  for (let tried = 0; ports.length < count; tried += 1) {
    if (tried > last - first) throw new Error(`There are no ${count} free ports from ${first} to ${last}`);
    const port = next;
    next = port + 1 < last ? port + 1 : first;
    if (await isFree(port, '127.0.0.1')) ports.push(port);
  }
  return ports;
}

/** This port on loopback, or a free one where another program has it. */
export async function usualPort(port: number): Promise<number> {
  return (await isFree(port, '127.0.0.1')) ? port : (await freePorts(1))[0]!;
}

/** Whether one may listen on this port. @throws Error if that fails for another reason than another program */
export async function isFree(port: number, host: string): Promise<boolean> {
  const server = createServer();
  try {
    server.listen({ port, host, exclusive: true });
    await once(server, 'listening');
    await once(server.close(), 'close');
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return false;
    throw error;
  }
}
