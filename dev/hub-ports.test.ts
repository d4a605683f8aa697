import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import test from 'ava';
import { choosePorts, portOrder, type PortOptions, type Replica } from './hub-ports.ts';
import { freePorts, isFree, usualPort } from './ports.ts';

const services: Replica[] = portOrder.map((service) => ({ name: service, service, number: 0 }));
const twice: Replica[] = [
  ...services,
  ...services.map(({ service }) => ({ name: `${service}-2`, service, number: 1 })),
];

const given = (options: Partial<PortOptions> & { grpcPortBase: number }): PortOptions => ({
  port: 0,
  mayMove: true,
  patienceMs: 0,
  ...options,
});

async function listen(port: number): Promise<Server> {
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

async function close(server: Server): Promise<void> {
  server.close();
  await once(server, 'close');
}

/** The first of 120 free ports in a row, below those that systems give to connections and those that other tests choose from. */
async function findBase(): Promise<number> {
  for (let first = 2_000; first < 9_000; first += 120) {
    const all = await Promise.all(Array.from({ length: 120 }, (_, index) => isFree(first + index, '127.0.0.1')));
    if (all.every(Boolean)) return first;
  }
  throw new Error('no 120 free ports in a row');
}

test.serial('choosePorts: the usual ones, in their order, and those of second processes 100 higher', async (t) => {
  const first = await findBase();
  const { services: chosen, taken } = await choosePorts(twice, given({ grpcPortBase: first }));
  t.is(taken, undefined);
  t.deepEqual(
    Object.values(chosen),
    [0, 100].flatMap((step) => portOrder.map((_, index) => first + step + index)),
  );
});

test.serial('choosePorts: where one is taken, all are of the next free block, until it is free again', async (t) => {
  const first = await findBase();
  const server = await listen(first + 2);
  const next = await listen(first + 10);
  const moved = await choosePorts(services, given({ grpcPortBase: first }));
  t.is(moved.taken, first + 2);
  t.deepEqual(
    Object.values(moved.services),
    portOrder.map((_, index) => first + 20 + index),
  );
  await Promise.all([close(server), close(next)]);
  const again = await choosePorts(services, given({ grpcPortBase: first }));
  t.is(again.taken, undefined);
  t.is(again.services['auth'], first);
});

test.serial('choosePorts: an outgoing connection takes a port, too', async (t) => {
  const server = await listen(0);
  server.on('connection', (socket) => socket.resume());
  const { port } = server.address() as AddressInfo;
  // Its port is the system's choice: one that a program has asked for may be shared.
  const socket = connect({ port, host: '127.0.0.1' });
  await once(socket, 'connect');
  const one = services.slice(0, 1);
  const { services: chosen, taken } = await choosePorts(one, given({ grpcPortBase: socket.localPort! }));
  t.is(taken, socket.localPort);
  t.true(chosen['auth']! > socket.localPort!);
  socket.destroy();
  await close(server);
});

test.serial('choosePorts: a block that the gateway has a port of is not taken', async (t) => {
  const first = await findBase();
  const server = await listen(first);
  const { services: chosen } = await choosePorts(services, given({ port: first + 12, grpcPortBase: first }));
  t.is(chosen['auth'], first + 20);
  await close(server);
});

test.serial(
  'choosePorts: where somebody counts on the ports, one that is taken is named with what to do',
  async (t) => {
    const first = await findBase();
    const server = await listen(first + 1);
    await t.throwsAsync(choosePorts(services, given({ grpcPortBase: first, mayMove: false })), {
      message: `Port ${first + 1} is taken by another program. The conversation service needs it. Stop it, or choose other ports: GRPC_PORT_BASE=${first + 1_000} npm start`,
    });
    await t.throwsAsync(choosePorts(services, given({ grpcPortBase: 0, port: first + 1 })), {
      message: `Port ${first + 1} is taken by another program. Stop it, or choose another port: PORT=${first + 2} npm start`,
    });
    await close(server);
  },
);

test.serial('choosePorts: a hub that is about to end is waited for', async (t) => {
  const first = await findBase();
  const server = await listen(first);
  const chosen = choosePorts(services, given({ grpcPortBase: first, patienceMs: 30_000 }));
  setTimeout(() => server.close(), 300);
  t.is((await chosen).services['auth'], first);
});

test('usualPort: a free one where another program has the usual one', async (t) => {
  const [usual] = (await freePorts(1)) as [number];
  t.is(await usualPort(usual), usual);
  const other = createServer().listen(usual, '127.0.0.1');
  await once(other, 'listening');
  const found = await usualPort(usual);
  t.not(found, usual);
  t.is(await usualPort(found), found);
  other.close();
});
