import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import baseTest, { type ExecutionContext } from 'ava';
import { freePorts } from '../ports.ts';
import { startToxiproxy, toxiproxyAvailable, type Link } from './toxiproxy.ts';

const test = toxiproxyAvailable() || process.env.CI === 'true' ? baseTest : baseTest.skip;
/** With the build, the first time. */
const testLimit = 300_000;

test('a link cuts, resets, slows and silences what goes over it, new and old connections alike, until it is healed', async (t) => {
  t.timeout(testLimit);
  const { link, port } = await startEcho(t);
  const open = async () => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    t.teardown(() => socket.destroy());
    return socket;
  };
  const before = await open();
  t.is(await echo(before, 'a'), 'a');

  await link.slow({ latency: 200, kilobytes: 64 });
  const begun = performance.now();
  t.is(await echo(before, 'b'), 'b');
  t.true(performance.now() - begun >= 300);
  await link.heal();

  await link.silence();
  const silent = await open();
  await once(silent, 'connect');
  silent.write('c');
  before.write('c');
  let heard = '';
  for (const socket of [silent, before]) socket.on('data', (data) => (heard += String(data)));
  await new Promise((resolve) => setTimeout(resolve, 200));
  t.is(heard, '');
  t.false(silent.destroyed || before.destroyed);
  const ended = Promise.all([closed(silent), closed(before)]);
  await link.heal();
  await ended;
  t.is(heard, '');

  const second = await open();
  t.is(await echo(second, 'd'), 'd');
  await link.reset();
  second.write('e');
  await closed(second);
  await link.heal();

  const third = await open();
  t.is(await echo(third, 'f'), 'f');
  await link.cut();
  await closed(third);
  await closed(await open());
  await link.heal();
  t.is(await echo(await open(), 'g'), 'g');
});

/** A server that says what it is told, and the way to it. */
async function startEcho(t: ExecutionContext): Promise<{ link: Link; port: number }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-toxiproxy-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.pipe(socket);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const proxy = await startToxiproxy({ dataDir: folder });
  t.teardown(() => proxy.stop());
  const [port] = (await freePorts(1)) as [number];
  const link = await proxy.open('echo', { port, upstream: (server.address() as AddressInfo).port });
  return { link, port };
}

async function echo(socket: Socket, text: string): Promise<string> {
  const answered = once(socket, 'data');
  socket.write(text);
  return String((await answered)[0]);
}

/** However it ends. */
async function closed(socket: Socket): Promise<void> {
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
}
