import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { EventSource, type FetchLike } from 'eventsource';
import { grpcTools } from '../../dev/engines/grpc-tools.ts';
import { isOnPath } from '../../dev/engines/install.ts';
import type { StreamEventsResponse } from '../../client/gen/chat4all/events/v1/events.pb.ts';
import { eventually } from '../eventually.ts';
import { nginxIsThere, startNginx } from '../nginx.ts';
import { openConversation, send, startFlowMesh, type Person } from './meshes.ts';
import { opened } from '../opened.ts';

/** Events as clients that are not ours take them: EventSource, curl through a reverse proxy, grpcurl. */

const mesh = opened(
  () => startFlowMesh('embedded', { env: { EVENT_HEARTBEAT: '300ms' } }),
  (mesh) => mesh.stop(),
);

const inCi = process.env['CI'] === 'true';
const throughNginx = (nginxIsThere && isOnPath('curl')) || inCi ? test : test.skip;
const byGrpcurl = grpcTools.isAvailable() || inCi ? test : test.skip;

/** A TCP proxy in front of the gateway whose connections can be cut. */
async function startCable(t: ExecutionContext): Promise<{ url: string; cut(): void }> {
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    const onward = connect(mesh.gateway.port, '127.0.0.1');
    for (const [from, to] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      open.add(from);
      from.on('error', () => {}).on('close', () => void (open.delete(from), to.destroy()));
      from.pipe(to);
    }
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const cut = () => open.forEach((socket) => socket.destroy());
  t.teardown(async () => {
    cut();
    await once(server.close(), 'close');
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, cut };
}

/** What an EventSource is told, and how its requests have failed. */
function follow(t: ExecutionContext, source: EventSource) {
  t.teardown(() => source.close());
  const ids: string[] = [];
  const messages: string[] = [];
  const resets: string[] = [];
  const failures: (number | undefined)[] = [];
  source.addEventListener('error', ({ code }) => void failures.push(code));
  for (const type of ['hello', 'message_accepted', 'heartbeat', 'reset']) {
    source.addEventListener(type, (event) => {
      const told = JSON.parse(String(event.data)) as StreamEventsResponse;
      ids.push(event.lastEventId);
      if (type === 'message_accepted') messages.push(told.message_accepted!.message!.message_id);
      if (type === 'reset') resets.push(String(event.data));
    });
  }
  return {
    ids,
    messages,
    resets,
    failures,
    until: (what: string, isSo: () => boolean) => eventually(`the EventSource ${what}`, isSo, Boolean),
  };
}

for (const way of ['ticket', 'token'] as const) {
  test(`an EventSource that is cut off goes on by its Last-Event-ID, without a gap or a twin (${way})`, async (t) => {
    const [ana, bia] = mesh.people as [Person, Person];
    const conversation = await openConversation([ana, bia]);
    const cable = await startCable(t);
    const lastEventIds: (string | null)[] = [];
    // Each of its requests comes with a ticket, or a token, of its own.
    const permitted: FetchLike = async (url, init) => {
      const target = new URL(url);
      const headers = new Headers(init.headers);
      lastEventIds.push(headers.get('last-event-id'));
      if (way === 'ticket') target.searchParams.set('ticket', (await bia.rest.client.events.createTicket({})).ticket);
      else headers.set('authorization', `Bearer ${await mesh.userToken(bia)}`);
      return fetch(target, { ...init, headers });
    };
    const where = way === 'ticket' ? '/v1/events/by-ticket' : '/v1/events';
    const source = new EventSource(`${cable.url}${where}?conversation_ids=${conversation}`, { fetch: permitted });
    const { ids, messages, resets, failures, until } = follow(t, source);
    await until('has begun', () => ids.length > 0);
    const sent = [await send(ana, conversation), await send(ana, conversation)];
    await until('is told what comes', () => messages.length >= 2);
    cable.cut();
    for (let count = 0; count < 3; count += 1) sent.push(await send(ana, conversation));
    await until('is told what it has missed', () => messages.length >= 5);
    sent.push(await send(ana, conversation));
    await until('is told what comes then', () => messages.length >= 6);
    t.deepEqual(messages, sent);
    t.is(lastEventIds.length, 2);
    t.is(lastEventIds[0], null);
    t.true(ids.includes(lastEventIds[1]!));
    t.deepEqual(failures, [undefined], 'its connection was lost once, and it was never refused');
    t.deepEqual(resets, []);
  });
}

test('an EventSource that can only repeat its URL is refused then, and goes on with a new ticket and its last id', async (t) => {
  const [ana, bia] = mesh.people as [Person, Person];
  const conversation = await openConversation([ana, bia]);
  const cable = await startCable(t);
  const open = async (cursor = '') => {
    const { ticket } = await bia.rest.client.events.createTicket({});
    const query = new URLSearchParams({ ticket, cursor, conversation_ids: conversation });
    return new EventSource(`${cable.url}/v1/events/by-ticket?${query.toString()}`);
  };
  const first = await open();
  const before = follow(t, first);
  await before.until('has begun', () => before.ids.length > 0);
  const sent = [await send(ana, conversation)];
  await before.until('is told what comes', () => before.messages.length >= 1);
  cable.cut();
  sent.push(await send(ana, conversation));
  await before.until('has given up', () => first.readyState === first.CLOSED);
  t.deepEqual(before.failures, [undefined, 401]);
  const after = follow(t, await open(before.ids.at(-1)));
  await after.until('is told what it has missed', () => after.messages.length >= 1);
  t.deepEqual([...before.messages, ...after.messages], sent);
});

/** A program that reads a stream until it is stopped. */
function read(t: ExecutionContext, program: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env) {
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const ended = once(child, 'close');
  t.teardown(async () => {
    child.kill();
    await ended;
  });
  return {
    output: () => output,
    until: (what: string, shown: RegExp) =>
      eventually(
        `${program} shows ${what}`,
        () => output,
        (text) => shown.test(text),
      ),
  };
}

for (const [form, accept] of [
  ['server-sent events', 'text/event-stream'],
  ['lines of JSON', '*/*'],
] as const) {
  throughNginx(`curl reads ${form} through nginx with nothing but proxy_pass, as they come`, async (t) => {
    const [ana, bia] = mesh.people as [Person, Person];
    const conversation = await openConversation([ana, bia]);
    // To see that it would: an nginx that isn't asked holds answers back, until its buffers are full.
    const nginx = await startNginx({
      server: `location / { proxy_pass ${mesh.url}; }
        location /held/ { proxy_pass ${mesh.url}/; proxy_ignore_headers X-Accel-Buffering; proxy_buffer_size 256k; proxy_buffers 8 256k; }`,
    });
    t.teardown(() => nginx.stop());
    const headers = ['-H', `Accept: ${accept}`, '-H', `Authorization: Bearer ${await mesh.userToken(bia)}`];
    const curl = (path: string) =>
      read(t, 'curl', ['-sSN', ...headers, `http://${nginx.address}${path}?conversation_ids=${conversation}`]);
    const held = curl('/held/v1/events');
    const passed = curl('/v1/events');
    // None of them comes with, or pushed on by, a later one: that is only made when this one is here.
    await passed.until('the first bytes', /hello/);
    const messages: string[] = [];
    for (let count = 0; count < 3; count += 1) {
      messages.push(await send(ana, conversation));
      await passed.until('a message', new RegExp(`message_accepted.*${messages.at(-1)}`));
    }
    await passed.until('heartbeats', /(heartbeat":\{\}[^]*){2}/);
    const shown = [...passed.output().matchAll(/"message_accepted":\{"message":\{"message_id":"([^"]+)"/g)];
    t.deepEqual(
      shown.map(([, id]) => id),
      messages,
    );
    t.is(passed.output().startsWith('retry: '), accept === 'text/event-stream');
    t.is(held.output(), '');
  });
}

byGrpcurl('grpcurl follows StreamEvents by reflection, and goes on from a cursor', async (t) => {
  t.timeout(20 * 60_000);
  await grpcTools.install({ log: (line) => t.log(line) });
  const [ana, bia] = mesh.people as [Person, Person];
  const conversation = await openConversation([ana, bia]);
  const authorization = `authorization: Bearer ${await mesh.userToken(bia)}`;
  const grpcurl = path.join(grpcTools.folders[0]!, 'grpcurl');
  const { address } = mesh.services.events!;
  const argsFor = (request: object) => {
    const flags = ['-plaintext', '-H', authorization, '-d', JSON.stringify(request)];
    return [...flags, address, 'chat4all.events.v1.EventsService/StreamEvents'];
  };
  const first = read(t, grpcurl, argsFor({ conversation_ids: [conversation], ephemeral: true }));
  await first.until('hello', /"hello": \{/);
  const [, cursor] = /"cursor": "([^"]+)"/.exec(first.output())!;
  const message = await send(ana, conversation);
  await first.until('the message', new RegExp(`"messageAccepted"[^]*"messageId": "${message}"`));
  await ana.rest.client.events.sendTyping({ conversation_id: conversation });
  await first.until('who is typing', new RegExp(`"typing": \\{[^}]*"userId": "${ana.userId}"`));
  await first.until('a heartbeat', /"heartbeat": \{/);
  const again = read(t, grpcurl, argsFor({ cursor, types: ['EVENT_TYPE_MESSAGE_ACCEPTED'] }));
  await again.until('the message again', new RegExp(`"messageAccepted"[^]*"messageId": "${message}"`));

  const refused = await promisify(execFile)(grpcurl, argsFor({ cursor: 'x' })).catch((error: unknown) => error);
  const { code, stderr } = refused as { code: number; stderr: string };
  // 64 and the gRPC status.
  t.is(code, 64 + 3);
  t.regex(stderr, /CURSOR_INVALID/);
});
