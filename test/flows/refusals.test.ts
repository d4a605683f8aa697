import test from 'ava';
import { v4 as uuid } from 'uuid';
import { openRest, type Call, type Conversation, type Problem } from '../rest.ts';
import { ended, everyMessage, messageOf, openConversation, send, openedMeshes, type Person } from './meshes.ts';

const meshes = openedMeshes(['embedded', 'kafka'], { people: 101 });

/** The paths of the wrong fields, in order. */
function wrong({ field_errors: errors = {} }: Problem): string[] {
  return Object.keys(errors).toSorted();
}

for (const mesh of meshes) {
  const { bus, people, anonymous } = mesh;
  const [user1, user2, user3, user4, user5] = people as [Person, Person, Person, Person, Person];
  const mine = user1.rest;
  /** Conversations that the tests of a mesh share. */
  let [pair, trio, theirs] = ['', '', ''];
  test.serial.before(async () => {
    [pair, trio, theirs] = await Promise.all([
      openConversation([user1, user2]),
      openConversation([user1, user2, user3]),
      openConversation([user2, user3]),
    ]);
  });

  const badMessage = (json: unknown) => mine.refused(400, 'POST', '/v1/messages', { json });
  const badConversation = (json: unknown) => mine.refused(400, 'POST', '/v1/conversations', { json });

  test.serial(`${bus}: a wrong password and an unknown user get the same answer`, async (t) => {
    const login = (username: string, password: string) =>
      anonymous.refused(401, 'POST', '/auth/token', { json: { username, password } });
    const [known, unknown] = await Promise.all([login('user4', 'password124'), login('nobody', 'password123')]);
    t.is(known.error_code, 'INVALID_CREDENTIALS');
    for (const member of ['type', 'title', 'status', 'detail', 'error_code'] as const) {
      t.is(known[member], unknown[member]);
    }
  });

  test.serial(`${bus}: a login with missing, malformed or too long fields names each of them`, async (t) => {
    const refused = (json: unknown) => anonymous.refused(400, 'POST', '/auth/token', { json });
    t.deepEqual((await refused({})).field_errors, { username: ['is required'], password: ['is required'] });
    t.deepEqual(wrong(await refused({ username: 5, password: ['x'] })), ['password', 'username']);
    t.deepEqual(wrong(await refused({ username: 'user1', password: 'ç'.repeat(37) })), ['password']);
    t.deepEqual(wrong(await refused({ username: 'user\0', password: 'x' })), ['username']);
  });

  test.serial(
    `${bus}: the twenty-first failed login for a name is turned away for a while, and nobody else's`,
    async (t) => {
      const login = (username: string, password: string) =>
        anonymous.call('POST', '/auth/token', { json: { username, password } });
      // A few at once: each costs a core a while, and all but the first wait.
      for (let failures = 0; failures < 20; failures += 4) {
        const some = await Promise.all(Array.from({ length: 4 }, () => login('user5', 'wrong')));
        for (const { status } of some) t.is(status, 401);
      }
      const late = await login('user5', 'password123');
      t.is(late.status, 429);
      t.is((late.body as Problem).error_code, 'TOO_MANY_LOGIN_FAILURES');
      const wait = (late.body as Problem).retry_after!;
      t.true(wait > 0 && wait <= 900);
      t.is((await login('user3', 'password123')).status, 200);
    },
  );

  test.serial(`${bus}: every call but the login needs a valid token, whatever else is wrong with it`, async (t) => {
    const { userId, username } = user1;
    const messageId = await send(user1, pair);
    const tokens: [token: string | undefined, code: string][] = [
      [undefined, 'TOKEN_MISSING'],
      ['', 'TOKEN_INVALID'],
      ['nonsense', 'TOKEN_INVALID'],
      [await mesh.userToken(user1, new Date(Date.now() - 1_000)), 'TOKEN_EXPIRED'],
      [`${await mesh.userToken(user1)}x`, 'TOKEN_INVALID'],
      // Signed by another service than auth.
      [
        await mesh.identities.message!.userToken({
          userId,
          numId: 1n,
          username,
          admin: false,
          sessionId: uuid(),
          expiresAt: new Date(Date.now() + 60_000),
        }),
        'TOKEN_INVALID',
      ],
    ];
    const calls: [method: string, path: string, json?: unknown][] = [
      ['GET', '/v1/users/me'],
      ['GET', '/v1/users?limit=0'],
      ['POST', '/v1/conversations', {}],
      ['GET', '/v1/conversations'],
      ['GET', `/v1/conversations/${pair}`],
      ['POST', `/v1/conversations/${pair}/leave`, {}],
      ['POST', '/v1/messages', messageOf(user1, pair)],
      ['POST', '/v1/messages', { message_id: 5 }],
      ['GET', `/v1/conversations/${pair}/messages`],
      ['GET', `/v1/messages/${messageId}`],
    ];
    await Promise.all(
      tokens.flatMap(([token, code]) =>
        calls.map(async ([method, path, json]) => {
          const refused = await openRest(mesh.url, token).refused(401, method, path, { json });
          t.is(refused.error_code, code, `${method} ${path} with the token ${token}`);
          t.is(refused.field_errors, undefined);
        }),
      ),
    );
    const basic = { headers: { authorization: 'Basic dXNlcjE6cGFzc3dvcmQxMjM=' } };
    t.is((await anonymous.refused(401, 'GET', '/v1/users/me', basic)).error_code, 'TOKEN_INVALID');
  });

  test.serial(`${bus}: a conversation or message that isn't there is 404, one of others is 403`, async (t) => {
    const unknown = uuid();
    const nowhere = [
      mine.refused(404, 'GET', `/v1/conversations/${unknown}`),
      mine.refused(404, 'GET', `/v1/conversations/${unknown}/messages`),
      mine.refused(404, 'POST', `/v1/conversations/${unknown}/leave`, { json: {} }),
      mine.refused(404, 'POST', '/v1/messages', { json: messageOf(user1, unknown) }),
    ];
    for (const refused of await Promise.all(nowhere)) {
      t.like(refused, { error_code: 'CONVERSATION_NOT_FOUND', detail: 'Conversation not found' });
    }
    t.is((await mine.refused(404, 'GET', `/v1/messages/${unknown}`)).error_code, 'MESSAGE_NOT_FOUND');

    const messageId = await send(user2, theirs);
    const elsewhere = [
      mine.refused(403, 'GET', `/v1/conversations/${theirs}`),
      mine.refused(403, 'GET', `/v1/conversations/${theirs}/messages`),
      mine.refused(403, 'POST', `/v1/conversations/${theirs}/leave`, { json: {} }),
      mine.refused(403, 'POST', '/v1/messages', { json: messageOf(user1, theirs) }),
      mine.refused(403, 'GET', `/v1/messages/${messageId}`),
    ];
    for (const refused of await Promise.all(elsewhere)) t.is(refused.error_code, 'NOT_A_MEMBER');
  });

  test.serial(`${bus}: a message in somebody else's name, or to an outsider, is 403`, async (t) => {
    const forbidden = (changes: object) =>
      mine.refused(403, 'POST', '/v1/messages', { json: messageOf(user1, trio, changes) });
    t.is((await forbidden({ from: user2.userId })).error_code, 'SENDER_MISMATCH');
    t.is((await forbidden({ from: uuid() })).error_code, 'SENDER_MISMATCH');
    t.is((await forbidden({ to: [user2.userId, user4.userId] })).error_code, 'NOT_A_MEMBER');
    t.is((await forbidden({ to: uuid() })).error_code, 'NOT_A_MEMBER');
  });

  test.serial(`${bus}: every wrong field of a message is named at once, by its own path`, async (t) => {
    const required = ['is required'];
    t.deepEqual((await badMessage({})).field_errors, {
      message_id: required,
      conversation_id: required,
      from: required,
      channels: required,
      payload: required,
    });
    const everything = await badMessage({
      message_id: 'x',
      conversation_id: 5,
      from: '',
      to: ['y', user2.userId, null],
      channels: ['sms', 'whatsapp', 'fax', ''],
      payload: { type: 'video', text: 7, file_id: 'z' },
      priority: 'urgent',
    });
    t.is(everything.error_code, 'INVALID_ARGUMENT');
    t.deepEqual(wrong(everything), [
      'channels[0]',
      'channels[2]',
      'channels[3]',
      'conversation_id',
      'from',
      'message_id',
      'payload.file_id',
      'payload.text',
      'payload.type',
      'priority',
      'to[0]',
      'to[2]',
    ]);
    t.deepEqual(everything.field_errors!['payload.type'], ['must be one of text, file']);
    t.deepEqual(everything.field_errors!['channels[0]'], ['must be one of instagram, whatsapp, all']);
    t.regex(everything.field_errors!.conversation_id![0]!, /string/);

    t.deepEqual(wrong(await badMessage({ messageId: 'x', conversationId: pair, from: user1.userId, to: 'y' })), [
      'channels',
      'messageId',
      'payload',
      'to',
    ]);
    t.deepEqual(wrong(await badMessage(messageOf(user1, pair, { payload: 'Oi', channels: 'sms' }))), [
      'channels',
      'payload',
    ]);
  });

  const content = (payload: unknown) => ({ payload });
  /** In place of what is right in a message. */
  const wrongContents: [title: string, changes: object, fields: string[]][] = [
    ['empty channels', { channels: [] }, ['channels']],
    ['channels of null', { channels: null }, ['channels']],
    ['an unknown channel', { channels: ['whatsapp', 'telegram'] }, ['channels[1]']],
    ['an empty text', content({ type: 'text', text: '' }), ['payload.text']],
    ['a missing text', content({ type: 'text' }), ['payload.text']],
    ['an empty payload', content({}), ['payload.text', 'payload.type']],
    ['a text of 65,537 bytes', content({ type: 'text', text: 'a'.repeat(65_537) }), ['payload.text']],
    ['65,537 bytes in 32,769 letters', content({ type: 'text', text: `${'ç'.repeat(32_768)}a` }), ['payload.text']],
    ['a text with NUL', content({ type: 'text', text: 'a\0b' }), ['payload.text']],
    ['half a surrogate pair', content({ type: 'text', text: 'a\ud83d' }), ['payload.text']],
    ['a text that is a list', content({ type: 'text', text: ['a'] }), ['payload.text']],
    ['a file without its id', content({ type: 'file' }), ['payload.file_id']],
    ['a file with a malformed id', content({ type: 'file', file_id: 'x' }), ['payload.file_id']],
    ['a file that nobody has uploaded', content({ type: 'file', file_id: uuid() }), ['payload.file_id']],
  ];
  for (const [title, changes, fields] of wrongContents) {
    test.serial(`${bus}: refused, and named: ${title}`, async (t) => {
      const message = messageOf(user1, pair, changes);
      t.deepEqual(wrong(await badMessage(message)), fields);
      await mine.refused(404, 'GET', `/v1/messages/${message.message_id}`);
    });
  }

  test.serial(`${bus}: a text of 65,536 bytes arrives as it was, and so does any other character`, async (t) => {
    for (const text of ['a'.repeat(65_536), 'ç'.repeat(32_768), '👩‍👩‍👧 "\\ \u0001\u2028 \ufeff', ' ']) {
      const { payload, status } = await ended(user2, await send(user1, pair, { payload: { type: 'text', text } }));
      t.is(status, 'delivered');
      t.true(payload.text === text);
    }
  });

  test.serial(
    `${bus}: a private conversation has exactly 2 members, a group 3 to 100, nobody twice, all of them known`,
    async (t) => {
      const ids = people.map((person) => person.userId);
      const open = (type: string, members: unknown) => badConversation({ type, members });
      for (const members of [ids.slice(0, 1), ids.slice(0, 3), ids]) {
        t.deepEqual(wrong(await open('private', members)), ['members']);
      }
      for (const members of [ids.slice(0, 2), ids]) t.deepEqual(wrong(await open('group', members)), ['members']);
      t.is(ids.length, 101);
      const largest = await mine.post<Conversation>('/v1/conversations', { type: 'group', members: ids.slice(0, 100) });
      t.deepEqual(largest.members, ids.slice(0, 100));

      t.deepEqual(wrong(await open('group', [...ids.slice(0, 3), 'user2', ids[0]!.toUpperCase()])), [
        'members[3]',
        'members[4]',
      ]);
      t.deepEqual(wrong(await open('private', [user1.userId, user1.userId])), ['members[1]']);
      t.deepEqual(wrong(await open('group', [user1.userId, uuid(), 'nobody', 'user1'])), [
        'members[1]',
        'members[2]',
        'members[3]',
      ]);
      t.deepEqual(wrong(await open('group', ['user1', 'nobody'])), ['members', 'members[1]']);
    },
  );

  test.serial(`${bus}: every wrong field of a conversation is named at once`, async (t) => {
    t.deepEqual((await badConversation({})).field_errors, { type: ['is required'], members: ['is required'] });
    const everything = await badConversation({
      type: 'public',
      members: ['user1', 5, '', null],
      metadata: { name: 'ç'.repeat(128), description: 'a\0' },
    });
    t.deepEqual(wrong(everything), [
      'members[1]',
      'members[2]',
      'members[3]',
      'metadata.description',
      'metadata.name',
      'type',
    ]);
    t.deepEqual(wrong(await badConversation({ type: [], members: { a: 1 }, metadata: 'x' })), [
      'members',
      'metadata',
      'type',
    ]);
  });

  test.serial(`${bus}: nobody opens a conversation between others`, async (t) => {
    const json = { type: 'group', members: ['user2', 'user3', 'user4'] };
    t.is((await mine.refused(403, 'POST', '/v1/conversations', { json })).error_code, 'NOT_A_MEMBER');
  });

  test.serial(`${bus}: an id that was used is refused for anything else, and what it was used for stays`, async (t) => {
    const original = messageOf(user1, trio, {
      to: [user2.userId, user3.userId],
      channels: ['whatsapp', 'instagram'],
      priority: 'low',
    });
    const answer = await mine.post('/v1/messages', original);
    const kept = await ended(user1, original.message_id);
    const conflicts: [Person, object][] = [
      [user2, { from: user2.userId, to: [user1.userId, user3.userId] }],
      [user1, { conversation_id: pair, to: [user2.userId] }],
      [user1, { conversation_id: uuid() }],
      [user1, { to: [user2.userId] }],
      [user1, { to: [] }],
      [user1, { channels: ['whatsapp'] }],
      [user1, { channels: ['all'] }],
      [user1, { payload: { type: 'text', text: 'oi' } }],
      [user1, { priority: 'normal' }],
      [user1, { priority: undefined }],
    ];
    for (const [sender, changes] of conflicts) {
      const json = { ...original, ...changes };
      const refused = await sender.rest.refused(409, 'POST', '/v1/messages', { json });
      t.is(refused.error_code, 'MESSAGE_ID_REUSED', JSON.stringify(changes));
    }
    const same = [
      { to: [user3.userId, user2.userId.toUpperCase(), user3.userId] },
      { channels: ['Instagram', 'whatsapp', 'instagram'] },
      { message_id: original.message_id.toUpperCase() },
    ];
    for (const changes of same) t.deepEqual(await mine.post('/v1/messages', { ...original, ...changes }), answer);
    t.deepEqual(await mine.get(`/v1/messages/${original.message_id}`), kept);
    const all = await everyMessage(user1, trio);
    t.is(all.filter((message) => message.message_id === original.message_id).length, 1);
  });

  test.serial(`${bus}: calls with one new id at once are one message, or all but one are refused`, async (t) => {
    const message = messageOf(user1, pair);
    const same = Array.from({ length: 8 }, () => mine.call('POST', '/v1/messages', { json: message }));
    for (const { status } of await Promise.all(same)) t.is(status, 200);
    const { seq } = await ended(user1, message.message_id);
    const all = await everyMessage(user1, pair);
    t.is(all.filter((other) => other.message_id === message.message_id).length, 1);
    t.is(all[seq - 1]!.message_id, message.message_id);

    const contested = messageOf(user1, pair);
    const texts = Array.from({ length: 8 }, (_, index) => `${index}`);
    const answers = await Promise.all(
      texts.map((text) =>
        mine.call('POST', '/v1/messages', { json: { ...contested, payload: { type: 'text', text } } }),
      ),
    );
    const statuses = answers.map(({ status }) => status);
    t.deepEqual(
      statuses.toSorted((a, b) => a - b),
      [200, 409, 409, 409, 409, 409, 409, 409],
    );
    const { payload } = await ended(user1, contested.message_id);
    t.is(payload.text, texts[statuses.indexOf(200)]!);
  });

  test.serial(
    `${bus}: malformed ids in a path are 400 under the field's own name, together with what is wrong in the query`,
    async (t) => {
      const field = async (path: string) => wrong(await mine.refused(400, 'GET', path));
      t.deepEqual(await field('/v1/conversations/x'), ['conversation_id']);
      t.deepEqual(await field('/v1/messages/x'), ['message_id']);
      t.deepEqual(await field(`/v1/messages/${uuid()}0`), ['message_id']);
      t.deepEqual(await field('/v1/conversations/x/messages?limit=0&offset=-1&order=up&after_seq=-1&before_seq=many'), [
        'after_seq',
        'before_seq',
        'conversation_id',
        'limit',
        'offset',
        'order',
      ]);
    },
  );

  test.serial(`${bus}: a limit is 1 to 100 and an offset not negative, on every list`, async (t) => {
    const lists = ['/v1/users', '/v1/conversations', `/v1/conversations/${pair}/messages`];
    const bad = ['0', '101', '-1', '1.5', 'ten', '', '99999999999', '1e9', '5&limit=5'];
    await Promise.all(
      lists.flatMap((list) => [
        ...bad.map(async (limit) => {
          t.deepEqual(wrong(await mine.refused(400, 'GET', `${list}?limit=${limit}`)), ['limit'], `${list} ${limit}`);
        }),
        ...['-1', 'x', '0.5', ''].map(async (offset) => {
          t.deepEqual(wrong(await mine.refused(400, 'GET', `${list}?offset=${offset}`)), ['offset'], list);
        }),
        ...['1', '100'].map(async (limit) => {
          t.like(await mine.get(`${list}?limit=${limit}`), { limit: Number(limit), offset: 0 });
        }),
        mine.get(list).then((page) => t.like(page, { limit: 50, offset: 0 })),
        // Whatever a number of JSON holds: beyond all there is, one is as good as another.
        ...['2147483647', '2147483648', '9007199254740991', '1e15'].map(async (offset) => {
          t.like(await mine.get(`${list}?offset=${offset}`), { offset: 2_147_483_647 });
        }),
        ...['0', '101', 'ten'].map(async (limit) => {
          const { field_errors: errors } = await mine.refused(400, 'GET', `${list}?limit=${limit}`);
          t.regex(String(errors?.['limit']), /1.*100/, limit);
        }),
      ]),
    );
  });

  test.serial(`${bus}: fields and parameters that nobody knows are ignored`, async (t) => {
    const message = messageOf(user1, pair, {
      color: 'red',
      payload: { type: 'text', text: 'Oi', size: { big: true } },
    });
    await mine.post('/v1/messages', message);
    t.is((await ended(user1, message.message_id)).payload.text, 'Oi');
    t.like(await mine.get(`/v1/conversations/${pair}?verbose=1&x[y]=z`), { conversation_id: pair });
  });

  test.serial(`${bus}: an unknown path is 404, a wrong method 405 with those that are right`, async (t) => {
    for (const path of ['/v1', '/v1/nothing', '/v1/messages/x/y', '/v2/messages', '/%2e%2e/etc/passwd']) {
      t.is((await anonymous.refused(404, 'GET', path)).error_code, 'ROUTE_NOT_FOUND');
      t.is((await mine.refused(404, 'POST', path, { json: {} })).error_code, 'ROUTE_NOT_FOUND');
    }
    const wrongMethods: [method: string, path: string, right: string][] = [
      ['GET', '/auth/token', 'POST'],
      ['GET', '/v1/messages', 'POST'],
      ['DELETE', `/v1/messages/${uuid()}`, 'GET'],
      ['PUT', '/v1/conversations', 'POST'],
      ['PATCH', `/v1/conversations/${pair}`, 'GET'],
      ['POST', `/v1/conversations/${pair}/messages`, 'GET'],
      ['POST', '/v1/users/me', 'GET'],
      ['DELETE', '/health', 'GET'],
    ];
    for (const [method, path, right] of wrongMethods) {
      const { headers, error_code: code } = await mine.refused(405, method, path);
      t.is(code, 'METHOD_NOT_ALLOWED');
      t.true(headers.get('allow')!.split(', ').includes(right), `${method} ${path}: ${headers.get('allow')}`);
      t.false(headers.get('allow')!.split(', ').includes(method));
    }
  });

  test.serial(`${bus}: a body of 1 MiB is read, one byte more is 413`, async (t) => {
    const bodyOf = (bytes: number) => {
      const body = JSON.stringify({ ...messageOf(user1, pair), padding: '' });
      return body.replace('"padding":""', `"padding":"${' '.repeat(bytes - body.length)}"`);
    };
    const headers = { 'content-type': 'application/json' };
    const largest = bodyOf(1_048_576);
    t.is(Buffer.byteLength(largest), 1_048_576);
    t.is((await mine.call('POST', '/v1/messages', { body: largest, headers })).status, 200);
    const refused = await mine.refused(413, 'POST', '/v1/messages', { body: bodyOf(1_048_577), headers });
    t.is(refused.error_code, 'PAYLOAD_TOO_LARGE');
  });

  test.serial(`${bus}: what isn't JSON is 415 by its type, and 400 by its content`, async (t) => {
    const body = JSON.stringify(messageOf(user1, pair));
    const post = (status: number, call: Call) => mine.refused(status, 'POST', '/v1/messages', call);
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/json; charset=latin1']) {
      t.is((await post(415, { body, headers: { 'content-type': type } })).error_code, 'UNSUPPORTED_MEDIA_TYPE');
    }
    const headers = { 'content-type': 'application/json' };
    const packed = { ...headers, 'content-encoding': 'gzip' };
    t.is((await post(415, { body, headers: packed })).error_code, 'UNSUPPORTED_MEDIA_TYPE');

    const texts = ['{', body.slice(0, -1), `${body}}`, 'null', '[]', '"x"', '7', "{'a': 1}", new Uint8Array([0xff])];
    for (const text of texts) {
      t.is((await post(400, { body: text, headers })).error_code, 'MALFORMED_JSON', String(text));
    }
    t.deepEqual(wrong(await post(400, { headers })), ['channels', 'conversation_id', 'from', 'message_id', 'payload']);

    const secret = '{"username": "user1", "password": "hunter2';
    const refused = await anonymous.refused(400, 'POST', '/auth/token', { body: secret, headers });
    t.false(JSON.stringify(refused).includes('hunter2'));
  });

  test.serial(`${bus}: a request id is the client's own, or a new one if that is not usable`, async (t) => {
    const answered = async (given: string, path: string) => {
      const { requestId } = await mine.call('GET', path, { headers: { 'X-Request-ID': given } });
      return requestId;
    };
    for (const path of ['/v1/users/me', '/nowhere', '/v1/messages', '/health', '/v1/messages/x']) {
      for (const usable of ['a', 'A-z_0.9:x', 'x'.repeat(128)]) t.is(await answered(usable, path), usable);
      for (const unusable of ['', ' ', 'a b', 'a/b', 'x'.repeat(129), 'é', '{}']) {
        t.regex(await answered(unusable, path), /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, `${path} ${unusable}`);
      }
    }
  });

  test.serial(`${bus}: no password and no token is in any log line`, async (t) => {
    const password = `secret-${uuid()}`;
    await anonymous.refused(401, 'POST', '/auth/token', { json: { username: 'user1', password } });
    const token = await mesh.userToken(user5);
    await openRest(mesh.url, token).get('/v1/users/me');
    const lines = [mesh.gateway, ...Object.values(mesh.services)].flatMap((process) => process.lines);
    t.true(lines.length > 0);
    t.false(lines.some((line) => line.includes(password) || line.includes(token)));
  });
}
