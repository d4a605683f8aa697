import { setTimeout as sleep } from 'node:timers/promises';
import { freePorts, isFree } from './ports.ts';

/** One of the processes that a service runs in. */
export interface Replica {
  /** `message`, `message-2`, … */
  name: string;
  service: string;
  /** From 0. */
  number: number;
}

export interface Ports {
  gateway: number;
  /** By the names of the processes. */
  services: Record<string, number>;
  /** A port of another program, if the services have a later block of ports because of it. */
  taken?: number;
}

export interface PortOptions {
  /** Of the gateway; 0 takes a free one. */
  port: number;
  /** The first of the gRPC ports; 0 takes free ones. */
  grpcPortBase: number;
  /** Whether the services may have a later block of ports where one of theirs is taken. */
  mayMove: boolean;
  /** Where the gateway and the services listen; on loopback by default. */
  host?: string | undefined;
  grpcHost?: string | undefined;
  /** Milliseconds to wait for ports that are taken: their programs may be about to end. */
  patienceMs: number;
}

/** gRPC ports are counted in this order; a service that isn't there leaves its number free. */
export const portOrder: readonly string[] = [
  'auth',
  'conversation',
  'message',
  'file',
  'router',
  'connectors',
  'tools',
  'assistant',
  'events',
];
/** The distance between the ports of a service's first, second, … process. */
const replicaStep = 100;
/** The minimum distance between two blocks of ports. */
const blockStep = 10;
const mostBlocks = 100;

/**
 * Chooses the ports of a hub.
 *
 * @throws Error naming the port that is taken, and what to do
 */
export async function choosePorts(replicas: readonly Replica[], options: PortOptions): Promise<Ports> {
  const { grpcPortBase, grpcHost } = options;
  const free = await freePorts(replicas.length + 1);
  const gateway = options.port === 0 ? free.at(-1)! : options.port;
  const giveUp = Date.now() + options.patienceMs;
  const advice = `Stop it, or choose another port: PORT=${gateway + 1} npm start`;
  if (!(await becomesFree(gateway, options.host, giveUp))) throw takenPort(gateway, advice);
  if (grpcPortBase === 0) {
    return { gateway, services: Object.fromEntries(replicas.map(({ name }, index) => [name, free[index]!])) };
  }

  const first = countPorts(replicas, grpcPortBase);
  const taken = await findTaken(first, (port) => becomesFree(port, grpcHost, giveUp));
  if (taken === undefined) return { gateway, services: first };
  const [name, port] = taken;
  const step = Math.max(blockStep, orderOf(replicas).length);
  for (let block = 1; options.mayMove && block <= mostBlocks; block += 1) {
    const services = countPorts(replicas, grpcPortBase + block * step);
    if (Math.max(...Object.values(services)) > 65_535) break;
    const found = await findTaken(services, async (each) => each !== gateway && (await isFree(each, hostOf(grpcHost))));
    if (found === undefined) return { gateway, services, taken: port };
  }
  throw takenPort(
    port,
    `The ${name} service needs it. Stop it, or choose other ports: GRPC_PORT_BASE=${grpcPortBase + 1_000} npm start`,
  );
}

function orderOf(replicas: readonly Replica[]): string[] {
  return [...new Set([...portOrder, ...replicas.map(({ service }) => service)])];
}

/** A port for each process, by its name: the first ones of all services from `base` on, then the second ones, higher by a step. */
export function countPorts(replicas: readonly Replica[], base: number): Record<string, number> {
  const order = orderOf(replicas);
  return Object.fromEntries(
    replicas.map(({ name, service, number }) => [name, base + order.indexOf(service) + number * replicaStep]),
  );
}

async function findTaken(
  ports: Record<string, number>,
  isAvailable: (port: number) => Promise<boolean>,
): Promise<[name: string, port: number] | undefined> {
  for (const entry of Object.entries(ports)) if (!(await isAvailable(entry[1]))) return entry;
  return undefined;
}

async function becomesFree(port: number, host: string | undefined, giveUp: number): Promise<boolean> {
  while (!(await isFree(port, hostOf(host)))) {
    if (Date.now() >= giveUp) return false;
    await sleep(100);
  }
  return true;
}

function hostOf(host: string | undefined): string {
  return host || '127.0.0.1';
}

function takenPort(port: number, advice: string): Error {
  return new Error(`Port ${port} is taken by another program. ${advice}`);
}
