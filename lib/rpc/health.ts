import { Client } from '@grpc/grpc-js';
import type { Config } from '../config.ts';
import { openTransport, type transportSettings } from './transport.ts';

/** grpc.health.v1.HealthCheckResponse with the status SERVING. */
const serving = Buffer.from([8, 1]);
const asIs = (bytes: Buffer) => bytes;

/**
 * Whether the server at a port of this machine reports SERVING (grpc.health.v1).
 *
 * @param limit milliseconds
 */
export async function isServing(
  port: number,
  config: Config<typeof transportSettings>,
  limit: number,
): Promise<boolean> {
  const client = new Client(`127.0.0.1:${port}`, openTransport(config).neighbour);
  try {
    return await new Promise((resolve) => {
      client.makeUnaryRequest(
        '/grpc.health.v1.Health/Check',
        asIs,
        asIs,
        Buffer.alloc(0),
        { deadline: Date.now() + limit },
        (error, answer?: Buffer) => resolve(error === null && answer !== undefined && serving.equals(answer)),
      );
    });
  } finally {
    client.close();
  }
}
