import { loadConfig, port } from '#lib/config.ts';
import { isServing } from '#lib/rpc/health.ts';
import { transportSettings } from '#lib/rpc/transport.ts';

/**
 * `node bin/health.ts`: a health check for containers, with the environment of the process that it checks. A service is asked on GRPC_PORT;
 * without GRPC_PORT it is the gateway, on PORT, whose health includes everything behind it. Exit code 0 or 1.
 */

const limit = 3_000;

const config = loadConfig({ ...transportSettings, GRPC_PORT: port().optional(), PORT: port().default(8000) });
const isUp =
  config.GRPC_PORT === undefined ? await isReady(config.PORT) : await isServing(config.GRPC_PORT, config, limit);
process.exitCode = isUp ? 0 : 1;

async function isReady(at: number): Promise<boolean> {
  try {
    const answer = await fetch(`http://127.0.0.1:${at}/ready`, { signal: AbortSignal.timeout(limit) });
    await answer.arrayBuffer();
    return answer.ok;
  } catch {
    return false;
  }
}
