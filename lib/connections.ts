import { gauge } from './metrics.ts';

const maxConnections = gauge(
  'database_connections_max',
  'How many connections to PostgreSQL this process may have at once: the sum over all processes is what PostgreSQL has to take',
);

/**
 * Adds to the metric of how many connections to PostgreSQL this process may open.
 *
 * @returns what subtracts them again
 */
export function mayConnect(connections: number): () => void {
  maxConnections.inc(connections);
  let isOver = false;
  return () => {
    if (!isOver) maxConnections.dec(connections);
    isOver = true;
  };
}
