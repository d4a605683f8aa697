import { randomUUID } from 'node:crypto';
import test from 'ava';
import { eventually } from '../eventually.ts';
import { installedConnectors } from '../../services/connectors/installed.ts';
import {
  openRest,
  type AttemptList,
  type Route,
  type Conversation,
  type Message,
  type MessagePage,
  type Token,
} from '../rest.ts';
import {
  deliveryLine,
  deliveryLines,
  ended,
  everyMessage,
  messageOf,
  openConversation,
  send,
  openedMeshes,
  type Person,
} from './meshes.ts';

const connectors = await installedConnectors();
const meshes = openedMeshes(['embedded', 'kafka'], { people: 13, env: { ADMIN_USERS: 'user13' } });

/** What people call the networks, by the names of their channels. */
const titles = new Map(connectors.map(({ name, title }) => [name, title]));

for (const mesh of meshes) {
  const { bus, people, anonymous } = mesh;
  const [user1, user2, user3] = people as [Person, Person, Person];

  test.serial(`${bus}: user1 logs in, writes to user2 over WhatsApp, and sees it delivered`, async (t) => {
    const login = await anonymous.post<Token>('/auth/token', { username: 'user1', password: 'password123' });
    t.is(login.token, login.access_token);
    t.is(login.token_type, 'bearer');
    t.true(login.expires_in >= 3600);
    t.like(login, { username: 'user1', user_id: user1.userId });
    const mine = openRest(mesh.url, login.token);

    const conversation = await mine.post<Conversation>('/v1/conversations', {
      type: 'private',
      members: ['user1', 'user2'],
    });
    t.deepEqual(conversation.members, [user1.userId, user2.userId]);
    t.deepEqual(conversation.metadata, { name: '', description: '' });
    const path = `/v1/conversations/${conversation.conversation_id}`;
    t.deepEqual(await mine.get(path), conversation);

    const message = messageOf(user1, conversation.conversation_id, { payload: { type: 'text', text: 'Olá, mundo' } });
    const sent = await mine.call('POST', '/v1/messages', { json: message });
    t.is(sent.status, 200);
    t.deepEqual(sent.body, { status: 'accepted', message_id: message.message_id });

    const seen = await ended(user2, message.message_id);
    t.is(seen.status, 'delivered');
    t.deepEqual(
      seen.history.map(({ status, note }) => [status, note]),
      [
        ['accepted', ''],
        ['in_transit', ''],
        ['delivered', ''],
      ],
    );
    const times = seen.history.map(({ at }) => Date.parse(at));
    t.deepEqual(
      times,
      times.toSorted((a, b) => a - b),
    );
    t.is(seen.history[0]!.at, seen.created_at);
    t.is(seen.history[2]!.at, seen.updated_at);
    t.is(seen.deliveries.length, 1);
    t.like(seen.deliveries[0], {
      recipient: user2.userId,
      channel: 'whatsapp',
      status: 'delivered',
      attempts: 1,
      error: '',
    });

    const { history: _, deliveries: __, ...listed } = seen;
    t.deepEqual(await mine.get<MessagePage>(`${path}/messages`), {
      conversation_id: conversation.conversation_id,
      messages: [{ ...listed, read_by: 0 }],
      total: 1,
      limit: 50,
      offset: 0,
    });
    t.like(listed, {
      seq: 1,
      from: user1.userId,
      sender: { user_id: user1.userId, username: 'user1' },
      to: [user2.userId],
      channels: ['whatsapp'],
      payload: { type: 'text', text: 'Olá, mundo' },
      priority: 'normal',
    });
    t.deepEqual(deliveryLines(mesh, message.message_id), [deliveryLine(message.message_id, user2.userId, 'WhatsApp')]);

    const again = await mine.call('POST', '/v1/messages', { json: message });
    t.is(again.status, 200);
    t.deepEqual(again.body, sent.body);
    t.is((await mine.get<MessagePage>(`${path}/messages`)).total, 1);
    t.deepEqual(await mine.get(`/v1/messages/${message.message_id}`), seen);
    t.is(deliveryLines(mesh, message.message_id).length, 1);
  });

  test.serial(`${bus}: in a group of ten everybody reads what all have written, in one order`, async (t) => {
    const members = people.slice(0, 10);
    const outsider = people[10]!;
    const id = await openConversation(members);
    const sent = await Promise.all(
      members.map(async (member) => [
        await send(member, id, { payload: { type: 'text', text: `Aqui é ${member.username}` } }),
        member,
      ]),
    );
    const senders = new Map(sent as [string, Person][]);

    const seen = await Promise.all(
      members.map(async (member) => {
        const messages = await everyMessage(member, id);
        return messages.map(({ status: _, updated_at: __, ...message }) => message);
      }),
    );
    const first = seen[0]!;
    t.deepEqual(
      first.map((message) => message.seq),
      members.map((_, index) => index + 1),
    );
    for (const message of first) {
      const sender = senders.get(message.message_id)!;
      t.deepEqual(message.sender, { user_id: sender.userId, username: sender.username });
      t.is(message.payload.text, `Aqui é ${sender.username}`);
      const others = members.filter((member) => member !== sender).map((member) => member.userId);
      t.deepEqual(message.to, others);
    }
    for (const other of seen) t.deepEqual(other, first);

    for (const [messageId, sender] of senders) {
      const { status, deliveries } = await ended(sender, messageId);
      t.is(status, 'delivered');
      t.is(deliveries.length, 9);
      t.is(deliveryLines(mesh, messageId).length, 9);
      t.like(await outsider.rest.refused(403, 'GET', `/v1/messages/${messageId}`), { error_code: 'NOT_A_MEMBER' });
    }
    for (const path of ['', '/messages']) {
      await outsider.rest.refused(403, 'GET', `/v1/conversations/${id}${path}`);
    }
    const refused = await outsider.rest.refused(403, 'POST', '/v1/messages', { json: messageOf(outsider, id) });
    t.is(refused.error_code, 'NOT_A_MEMBER');
    t.is((await everyMessage(members[0]!, id)).length, 10);
  });

  const selections = [
    { channels: ['whatsapp'], over: ['whatsapp'] },
    { channels: ['instagram'], over: ['instagram'] },
    { channels: ['whatsapp', 'instagram'], over: ['instagram', 'whatsapp'] },
    { channels: ['all'], over: [...titles.keys()] },
    { channels: ['WhatsApp', 'whatsapp', 'whatsapp'], over: ['whatsapp'] },
  ];
  for (const { channels, over } of selections) {
    test.serial(`${bus}: ${JSON.stringify(channels)} goes over ${over.join(' and ')}, and nothing else`, async (t) => {
      const login = await anonymous.post<Token>('/auth/token', { username: 'user13', password: 'password123' });
      const admin = openRest(mesh.url, login.token);
      const id = await openConversation([user1, user2, user3]);
      const messageId = await send(user1, id, { channels });
      const message = await ended(user1, messageId);
      t.is(message.status, 'delivered');
      t.deepEqual(message.channels.toSorted(), over);

      const pairs = over.flatMap((channel) => [user2, user3].map(({ userId }) => `${channel} ${userId}`));
      const route = await admin.get<Route>(`/v1/admin/messages/${messageId}/route`);
      t.like(route, { message_id: messageId, conversation_id: id, rejected_reason: '' });
      t.deepEqual(
        route.deliveries.map(({ topic, recipient_id: recipient }) => `${topic} ${recipient}`).toSorted(),
        pairs.map((pair) => pair.replace(' ', '_outgoing ')).toSorted(),
      );
      const { attempts } = await admin.get<AttemptList>(`/v1/admin/messages/${messageId}/attempts`);
      t.deepEqual(
        attempts
          .map(({ channel, recipient_id: recipient, delivered }) => `${channel} ${recipient} ${delivered}`)
          .toSorted(),
        pairs.map((pair) => `${pair} true`).toSorted(),
      );
      for (const what of ['route', 'attempts']) {
        await user1.rest.refused(403, 'GET', `/v1/admin/messages/${messageId}/${what}`);
      }
      t.like(await admin.refused(404, 'GET', `/v1/admin/messages/${randomUUID()}/route`), {
        error_code: 'ROUTE_NOT_FOUND',
      });
      t.deepEqual(
        message.deliveries.map(({ channel, recipient, status }) => `${channel} ${recipient} ${status}`).toSorted(),
        pairs.map((pair) => `${pair} delivered`).toSorted(),
      );
      t.deepEqual(
        deliveryLines(mesh, messageId).toSorted(),
        pairs
          .map((pair) => pair.split(' ') as [string, string])
          .map(([channel, userId]) => deliveryLine(messageId, userId, titles.get(channel)!))
          .toSorted(),
      );
    });
  }

  test.serial(`${bus}: only those in \`to\` get the message, and \`to\` may be a single id`, async (t) => {
    const id = await openConversation([user1, user2, user3]);
    const messageId = await send(user1, id, { to: user3.userId, channels: 'whatsapp' });
    const message = await ended(user2, messageId);
    t.deepEqual(message.to, [user3.userId]);
    t.deepEqual(
      message.deliveries.map((delivery) => delivery.recipient),
      [user3.userId],
    );
    t.deepEqual(deliveryLines(mesh, messageId), [deliveryLine(messageId, user3.userId, 'WhatsApp')]);

    const twice = await send(user1, id, { to: [user3.userId, user3.userId.toUpperCase()] });
    t.deepEqual((await ended(user1, twice)).to, [user3.userId]);
  });

  test.serial(
    `${bus}: ids are taken in any case and answered in lower case, enums are taken in any case`,
    async (t) => {
      const members = [user1.userId.toUpperCase(), 'user2', user3.userId];
      const conversation = await user1.rest.post<Conversation>('/v1/conversations', { type: 'GROUP', members });
      t.is(conversation.type, 'group');
      t.deepEqual(conversation.members, [user1.userId, user2.userId, user3.userId]);
      const id = conversation.conversation_id;
      const message = messageOf(user1, id.toUpperCase(), {
        from: user1.userId.toUpperCase(),
        to: [user2.userId.toUpperCase()],
        channels: ['WHATSAPP'],
        payload: { type: 'Text', text: 'Oi' },
        priority: 'High',
      });
      const upper = message.message_id.toUpperCase();
      const sent = await user1.rest.post('/v1/messages', { ...message, message_id: upper });
      t.deepEqual(sent, { status: 'accepted', message_id: message.message_id });
      t.deepEqual(await user1.rest.post('/v1/messages', { ...message, priority: 'PRIORITY_HIGH' }), sent);

      await ended(user1, message.message_id);
      const seen = await user1.rest.get<Message>(`/v1/messages/${upper}`);
      t.like(seen, {
        message_id: message.message_id,
        conversation_id: id,
        from: user1.userId,
        to: [user2.userId],
        channels: ['whatsapp'],
        priority: 'high',
      });
      const page = await user1.rest.get<MessagePage>(`/v1/conversations/${id.toUpperCase()}/messages?order=ASC`);
      t.is(page.conversation_id, id);
      t.is(page.total, 1);
    },
  );

  test.serial(
    `${bus}: whoever has left a conversation neither writes to it, nor reads it, nor gets anything`,
    async (t) => {
      const id = await openConversation([user1, user2, user3]);
      const before = await send(user1, id);
      t.is((await ended(user3, before)).deliveries.length, 2);
      t.deepEqual(await user3.rest.post(`/v1/conversations/${id}/leave`, {}), {});

      const path = `/v1/conversations/${id}`;
      const attempts = [
        user3.rest.refused(403, 'POST', '/v1/messages', { json: messageOf(user3, id) }),
        user3.rest.refused(403, 'GET', path),
        user3.rest.refused(403, 'GET', `${path}/messages`),
        user3.rest.refused(403, 'GET', `/v1/messages/${before}`),
        user3.rest.refused(403, 'POST', `${path}/leave`, { json: {} }),
        user1.rest.refused(403, 'POST', '/v1/messages', { json: messageOf(user1, id, { to: [user3.userId] }) }),
      ];
      for (const refused of await Promise.all(attempts)) t.is(refused.error_code, 'NOT_A_MEMBER');

      const after = await send(user1, id);
      const message = await ended(user1, after);
      t.deepEqual(message.to, [user2.userId]);
      t.deepEqual(deliveryLines(mesh, after), [deliveryLine(after, user2.userId, 'WhatsApp')]);
      t.deepEqual((await user1.rest.get<Conversation>(path)).members, [user1.userId, user2.userId]);
      const { conversations } = await user3.rest.get<{ conversations: Conversation[] }>('/v1/conversations?limit=100');
      t.false(conversations.some((conversation) => conversation.conversation_id === id));
    },
  );

  test.serial(`${bus}: what was accepted stays so for who repeats it after leaving`, async (t) => {
    const id = await openConversation([user1, user2, user3]);
    const message = messageOf(user3, id);
    const first = await user3.rest.post('/v1/messages', message);
    await user3.rest.post(`/v1/conversations/${id}/leave`, {});
    t.deepEqual(await user3.rest.post('/v1/messages', message), first);
    t.is((await everyMessage(user1, id)).length, 1);
  });

  test.serial(`${bus}: the conversation with the newest message is listed first`, async (t) => {
    const [reader, other, third] = people.slice(10, 13) as [Person, Person, Person];
    const older = await openConversation([reader, other]);
    const newer = await openConversation([reader, third]);
    const first = async () => {
      const page = await reader.rest.get<{ conversations: Conversation[] }>('/v1/conversations?limit=2');
      return page.conversations.map((conversation) => conversation.conversation_id);
    };
    t.deepEqual(await first(), [newer, older]);
    await send(other, older);
    t.deepEqual(await eventually('the older one is first', first, ([id]) => id === older), [older, newer]);
  });

  test.serial(`${bus}: the hub says that it is well, and what it depends on`, async (t) => {
    const well = await anonymous.get<object>('/health');
    t.like(well, { status: 'ok', service: 'gateway' });
    t.deepEqual(await anonymous.get('/'), well);
    const ready = await anonymous.get<{ dependencies: Record<string, string> }>('/ready');
    t.like(ready, { ...well, status: 'ready', database: 'connected' });
    t.deepEqual(await anonymous.get('/api/v1/health'), well);
    t.deepEqual(await anonymous.get('/api/v1/ready'), ready);
    const names = Object.keys(mesh.services).flatMap((name) => [name, `${name}.database`]);
    for (const name of [...names, 'message.bus', 'router.bus', 'connectors.bus']) {
      t.is(ready.dependencies[name], 'up', name);
    }
  });

  test.serial(`${bus}: a call's request id is in the log lines of every service that it reaches`, async (t) => {
    const id = await openConversation([user1, user2]);
    const given = `flow:${bus}.${Date.now()}_A-z`;
    const message = messageOf(user1, id);
    const { requestId } = await user1.rest.call('POST', '/v1/messages', {
      json: message,
      headers: { 'X-Request-ID': given },
    });
    t.is(requestId, given);
    t.is((await ended(user1, message.message_id)).status, 'delivered');

    const linesOf = (process: { lines: string[] }) =>
      process.lines
        .map((line) => JSON.parse(line) as { request_id?: string; message_id?: string; msg: string })
        .filter((line) => line.request_id === given);
    const { conversation, message: messages, connectors } = mesh.services;
    t.is(linesOf(mesh.gateway).length, 1);
    t.is(linesOf(conversation!).length, 1);
    t.deepEqual(
      linesOf(messages!).map((line) => line.message_id),
      [message.message_id],
    );
    t.deepEqual(
      linesOf(connectors!).map((line) => [line.message_id, line.msg]),
      [[message.message_id, deliveryLine(message.message_id, user2.userId, 'WhatsApp')]],
    );
  });
}
