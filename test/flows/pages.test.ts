import test from 'ava';
import { type Conversation, type ConversationPage, type MessagePage } from '../rest.ts';
import { everyMessage, openConversation, send, sendPatiently, openedMeshes, type Person } from './meshes.ts';

const meshes = openedMeshes(['embedded', 'kafka'], { people: 12 });

for (const { bus, people } of meshes) {
  const [user1, user2, user3] = people as [Person, Person, Person];

  test.serial(`${bus}: a list of messages is what its filters, order, limit and offset say`, async (t) => {
    const id = await openConversation([user1, user2]);
    const empty = { conversation_id: id, messages: [], total: 0, limit: 50, offset: 0 };
    t.deepEqual(await user1.rest.get(`/v1/conversations/${id}/messages`), empty);

    const sent: string[] = [];
    for (let seq = 1; seq <= 9; seq++) sent.push(await send(seq % 2 === 0 ? user1 : user2, id));
    const queries = ['', 'order=desc', 'order=asc'].flatMap((order) =>
      ['', 'after_seq=0', 'after_seq=3', 'after_seq=9', 'before_seq=7', 'before_seq=0', 'after_seq=2&before_seq=6']
        .concat(['after_seq=5&before_seq=5', 'before_seq=9223372036854775807'])
        .flatMap((filter) =>
          ['', 'limit=3&offset=2', 'limit=100&offset=4'].map((page) =>
            [order, filter, page].filter((part) => part !== '').join('&'),
          ),
        ),
    );
    await Promise.all(
      queries.map(async (query) => {
        const asked = new URLSearchParams(query);
        const number = (name: string, otherwise: number) => Number(asked.get(name) ?? otherwise);
        const [limit, offset] = [number('limit', 50), number('offset', 0)];
        const matching = sent
          .map((messageId, index) => ({ messageId, seq: index + 1 }))
          .filter(({ seq }) => seq > number('after_seq', 0) && seq < number('before_seq', Infinity));
        if (asked.get('order') !== 'asc') matching.reverse();
        const page = await user2.rest.get<MessagePage>(`/v1/conversations/${id}/messages?${query}`);
        t.deepEqual(
          { ...page, messages: page.messages.map((message) => ({ messageId: message.message_id, seq: message.seq })) },
          {
            conversation_id: id,
            messages: matching.slice(offset, offset + limit),
            total: matching.length,
            limit,
            offset,
          },
          query,
        );
      }),
    );
    const camel = await user2.rest.get<MessagePage>(`/v1/conversations/${id}/messages?afterSeq=7&order=Asc`);
    t.deepEqual(
      camel.messages.map((message) => message.seq),
      [8, 9],
    );
  });

  test.serial(`${bus}: pages of a conversation that grows hold each message once when they go by seq`, async (t) => {
    const id = await openConversation([user1, user2, user3]);
    let written = false;
    const writing = Promise.all(
      [user1, user2, user3].map(async (sender) => {
        for (let count = 0; count < 15; count++) await sendPatiently(sender, id);
      }),
    ).finally(() => (written = true));
    const seen: number[] = [];
    for (let complete = false; !complete;) {
      complete = written;
      const query = `order=asc&limit=4&after_seq=${seen.at(-1) ?? 0}`;
      const { messages } = await user2.rest.get<MessagePage>(`/v1/conversations/${id}/messages?${query}`);
      seen.push(...messages.map((message) => message.seq));
      if (messages.length > 0) complete = false;
    }
    await writing;
    t.deepEqual(
      seen,
      Array.from({ length: 45 }, (_, index) => index + 1),
    );
    t.is((await everyMessage(user1, id)).length, 45);
  });

  test.serial(`${bus}: everybody lists their own conversations, in pages`, async (t) => {
    const [reader, other, third] = people.slice(9, 12) as [Person, Person, Person];
    const opened: string[] = [];
    for (let count = 0; count < 5; count++) opened.unshift(await openConversation([reader, other]));
    const named = await other.rest.post<Conversation>('/v1/conversations', {
      type: 'group',
      members: [third.username, other.userId, reader.userId],
      metadata: { name: 'Família 👪', description: 'todo mundo' },
    });
    t.deepEqual(named.members, [third.userId, other.userId, reader.userId]);
    t.deepEqual(named.metadata, { name: 'Família 👪', description: 'todo mundo' });
    opened.unshift(named.conversation_id);
    await openConversation([other, third]);

    const page = await reader.rest.get<ConversationPage>('/v1/conversations');
    t.like(page, { total: 6, limit: 50, offset: 0 });
    t.deepEqual(page.conversations[0], named);
    t.deepEqual(
      page.conversations.map((conversation) => conversation.conversation_id),
      opened,
    );
    for (const [limit, offset] of [
      [2, 0],
      [2, 4],
      [4, 3],
      [1, 6],
    ] as const) {
      const part = await reader.rest.get(`/v1/conversations?limit=${limit}&offset=${offset}`);
      const conversations = page.conversations.slice(offset, offset + limit);
      t.deepEqual(part, { conversations, total: 6, limit, offset });
    }
  });

  test.serial(`${bus}: users are listed by name, one of them or all`, async (t) => {
    const me = await user2.rest.get<{ user_id: string; username: string; created_at: string }>('/v1/users/me');
    t.like(me, { user_id: user2.userId, username: 'user2' });
    t.true(Date.parse(me.created_at) <= Date.now());
    const alone = await user1.rest.get('/v1/users?username=user2');
    t.deepEqual(alone, { users: [me], total: 1, limit: 50, offset: 0 });
    const nobody = await user1.rest.get('/v1/users?username=user');
    t.deepEqual(nobody, { users: [], total: 0, limit: 50, offset: 0 });

    const all = await user1.rest.get<{ users: { username: string }[]; total: number }>('/v1/users');
    t.is(all.total, 13);
    const names = all.users.map((user) => user.username);
    t.deepEqual(names, ['admin', ...people.map((person) => person.username).toSorted()]);
    const part = await user1.rest.get<{ users: unknown[]; total: number }>('/v1/users?limit=5&offset=10');
    t.deepEqual(part.users, all.users.slice(10));
    t.is(part.total, 13);
  });
}
