import { gauge } from './metrics.ts';

const most = gauge(
  'database_connections_max',
  'How many connections to PostgreSQL this process may have at once: the sum over all processes is what PostgreSQL has to take',
);

/** Adds to the most connections to PostgreSQL that this process may open, which a metric shows. @returns what takes them off again */
export function mayConnect(connections: number): () => void {
  most.inc(connections);
  let isOver = false;
  return () => {
    if (!isOver) most.dec(connections);
    isOver = true;
  };
}
