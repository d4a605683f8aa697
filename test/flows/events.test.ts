import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { EventSource } from 'eventsource';
import type { StreamEventsRequest, StreamEventsResponse } from '../../client/gen/chat4all/events/v1/events.pb.ts';
import { cursorText, readCursor } from '../../services/events/streams/cursor.ts';
import { eventually } from '../eventually.ts';
import { ended, openConversation, openedMeshes, send, type Person } from './meshes.ts';

type Told = StreamEventsResponse;

/** A stream of somebody's events, read in the background. */
interface Listening {
  /** All that came, as it came. */
  all: Told[];
  /** Without what is about the stream itself. */
  events(): Told[];
  /** Waits until an event was told of which that is true. */
  until(what: string, is: (told: Told) => boolean): Promise<Told>;
  /** Ends it; how it had ended by itself, if it had. */
  end(): Promise<void>;
}

const aboutStream = ['hello', 'heartbeat', 'reset', 'reconnect'] as const;

/** The name of the event in a message. */
function typeOf(told: Told): string {
  const names = Object.keys(told).filter((name) => !['cursor', 'event_id', 'at'].includes(name));
  return names.find((name) => (told as unknown as Record<string, unknown>)[name] !== undefined)!;
}

async function listen(t: ExecutionContext, person: Person, request: StreamEventsRequest = {}): Promise<Listening> {
  const all: Told[] = [];
  const stopping = new AbortController();
  let failure: Error | undefined;
  const reading = (async () => {
    const options = { signal: stopping.signal, timeout: 60_000 };
    for await (const told of person.rest.client.events.streamEvents(request, options)) all.push(told);
  })().catch((error: unknown) => {
    if (!stopping.signal.aborted) failure = error as Error;
  });
  const end = async () => {
    stopping.abort();
    await reading;
  };
  t.teardown(end);
  const until = async (what: string, is: (told: Told) => boolean) =>
    (await eventually(
      `${person.username} is told: ${what}`,
      () => {
        if (failure !== undefined) throw failure;
        return all.find(is);
      },
      (told) => told !== undefined,
    ))!;
  await until('hello', (told) => typeOf(told) === 'hello');
  return {
    all,
    events: () => all.filter((told) => !(aboutStream as readonly string[]).includes(typeOf(told))),
    until,
    end,
  };
}

const isDelivered = (messageId: string) => (told: Told) =>
  told.delivery_changed?.message_id === messageId && told.delivery_changed.status === 'delivered';

for (const mesh of openedMeshes(['embedded', 'kafka'])) {
  const { bus } = mesh;

  test(`${bus}: all that happens in a conversation is told in its order, once, and again from any cursor`, async (t) => {
    const [ana, bia] = mesh.people as [Person, Person];
    const listening = await listen(t, bia);
    const conversation = await openConversation([ana, bia]);
    const messages = [await send(ana, conversation), await send(ana, conversation)];
    for (const message of messages) await listening.until('it is delivered', isDelivered(message));
    await bia.rest.client.message.markRead({ conversation_id: conversation, seq: 2 });
    await listening.until('it is read', (told) => told.message_read?.conversation_id === conversation);

    const ofThis = listening.events().filter((told) => JSON.stringify(told).includes(conversation));
    const types = ofThis.map(typeOf);
    t.is(types[0], 'conversation_created');
    t.is(types.at(-1), 'message_read');
    t.deepEqual(
      ofThis.flatMap((told) =>
        told.message_accepted === undefined ? [] : [told.message_accepted.message!.message_id],
      ),
      messages,
    );
    for (const message of messages) {
      const accepted = ofThis.findIndex((told) => told.message_accepted?.message?.message_id === message);
      const delivered = ofThis.findIndex(isDelivered(message));
      t.true(accepted < delivered, 'what becomes of a message comes behind the message');
      const details = await ended(bia, message);
      t.deepEqual(ofThis[delivered]!.delivery_changed!.deliveries, details.deliveries);
    }
    t.is(new Set(ofThis.map((told) => told.event_id)).size, ofThis.length);

    for (const [index, { cursor }] of ofThis.entries()) {
      const { events } = await bia.rest.client.events.listEvents({ cursor, conversation_ids: [conversation] });
      t.deepEqual(events, ofThis.slice(index + 1), `behind event ${index}`);
    }
    const again = await listen(t, bia, {
      cursor: ofThis[0]!.cursor,
      conversation_ids: [conversation],
      types: ['message_accepted'],
    });
    await again.until('the second message', (told) => told.message_accepted?.message?.message_id === messages[1]);
    const ids = again.events().map((told) => told.message_accepted?.message?.message_id);
    t.deepEqual(ids.slice(0, 2), messages);
  });

  test(`${bus}: nobody is told what happens where they are not, or after they left, or before they came`, async (t) => {
    const [ana, bia, caio, davi] = mesh.people as [Person, Person, Person, Person];
    const { cursor } = await davi.rest.client.events.listEvents({});
    const conversation = await openConversation([ana, bia, caio]);
    const seen = await listen(t, caio, { cursor, conversation_ids: [conversation] });
    const all = await listen(t, ana, { conversation_ids: [conversation] });
    const first = await send(ana, conversation);
    await seen.until('the first message', isDelivered(first));
    await caio.rest.client.conversation.leaveConversation({ conversation_id: conversation });
    await seen.until('caio has left', (told) => told.member_left?.user_id === caio.userId);
    const missed = await send(ana, conversation);
    await all.until('the message that caio misses', isDelivered(missed));
    const asked = { conversation_id: conversation, member: 'user3' };
    await ana.rest.client.conversation.addMember(asked);
    await ana.rest.client.conversation.addMember({ ...asked, member: davi.userId });
    const last = await send(ana, conversation);
    await seen.until('the last message', isDelivered(last));

    const messagesOf = (told: readonly Told[]) =>
      told.flatMap((each) => (each.message_accepted === undefined ? [] : [each.message_accepted.message!.message_id]));
    t.deepEqual(messagesOf(seen.events()), [first, last]);
    t.false(JSON.stringify(seen.all).includes(missed));
    const replayed = await caio.rest.client.events.listEvents({ cursor, conversation_ids: [conversation], limit: 500 });
    t.deepEqual(replayed.events, seen.events());

    // Davi has been there since he was added, and is told that first.
    const ofDavi = await davi.rest.client.events.listEvents({ cursor, conversation_ids: [conversation], limit: 500 });
    t.is(ofDavi.events[0]!.member_joined?.user_id, davi.userId);
    t.deepEqual(messagesOf(ofDavi.events), [last]);
  });

  test(`${bus}: an EventSource listens with a ticket, which is good for one stream`, async (t) => {
    const [ana, bia] = mesh.people as [Person, Person];
    const conversation = await openConversation([ana, bia]);
    const { ticket } = await bia.rest.client.events.createTicket({});
    const url = `${mesh.url}/v1/events/by-ticket?ticket=${ticket}&conversation_ids=${conversation}&ephemeral=true`;
    const source = new EventSource(url);
    t.teardown(() => source.close());
    const told: { type: string; id: string; data: Told }[] = [];
    for (const type of ['hello', 'message_accepted', 'delivery_changed', 'typing']) {
      source.addEventListener(type, (event) => {
        told.push({ type, id: event.lastEventId, data: JSON.parse(String(event.data)) as Told });
      });
    }
    const has = (type: string) =>
      eventually(
        `the EventSource is told ${type}`,
        () => told.find((each) => each.type === type),
        (each) => each !== undefined,
      );
    const hello = (await has('hello'))!;
    t.is(hello.id, hello.data.cursor);
    const answer = await mesh.anonymous.refused(401, 'GET', `/v1/events/by-ticket?ticket=${ticket}`);
    t.is(answer.error_code, 'TICKET_INVALID');

    const message = await send(ana, conversation);
    await has('delivery_changed');
    await ana.rest.client.events.sendTyping({ conversation_id: conversation });
    const typing = (await has('typing'))!;
    t.is(typing.data.typing!.user_id, ana.userId);
    // What is ephemeral has no id, so that the last one of an event stays.
    const before = told.slice(0, told.indexOf(typing));
    t.is(typing.id, before.findLast(({ data }) => data.cursor !== '')!.id);

    source.close();
    const accepted = told.find(({ type }) => type === 'message_accepted')!;
    t.is(accepted.data.message_accepted!.message!.message_id, message);
    // As a browser does it: the header counts before the parameter.
    const resumed = await bia.rest.raw('GET', `/v1/events?cursor=${hello.id}&conversation_ids=${conversation}`, {
      headers: { Accept: 'text/event-stream', 'Last-Event-ID': accepted.id },
    });
    t.is(resumed.headers.get('content-type'), 'text/event-stream');
    let text = '';
    for await (const piece of resumed.body) {
      text += String(piece);
      if (text.includes('delivery_changed')) break;
    }
    t.regex(text, /event: delivery_changed/);
    t.notRegex(text, /event: message_accepted/);
  });

  test(`${bus}: a long poll waits until there is something, and no longer than it said`, async (t) => {
    const [ana, bia] = mesh.people as [Person, Person];
    const { events } = bia.rest.client;
    // Who has no cursor asks for one, and needn't wait until something happens.
    const begun = await events.listEvents({ wait: '25s' }, { timeout: 15_000 });
    t.deepEqual(begun.events, []);
    const { cursor } = begun;
    const conversation = await openConversation([ana, bia]);
    const opened = await eventually(
      'the conversation is in the log',
      () => events.listEvents({ cursor, conversation_ids: [conversation] }),
      (page) => page.events!.length > 0,
    );
    const asked = { cursor: opened.cursor, conversation_ids: [conversation] };
    const began = performance.now();
    const nothing = await events.listEvents({ ...asked, wait: '1s' });
    t.true(performance.now() - began >= 900);
    t.deepEqual(nothing.events, []);
    const waiting = events.listEvents({ ...asked, cursor: nothing.cursor, wait: '25s' });
    await sleep(200);
    const message = await send(ana, conversation);
    const page = await waiting;
    t.is(page.events[0]!.message_accepted!.message!.message_id, message);
  });

  test(`${bus}: who is typing is told to the others, if they ask for it, and to nobody else`, async (t) => {
    const [ana, bia, caio, davi] = mesh.people as [Person, Person, Person, Person];
    const conversation = await openConversation([ana, bia, caio]);
    const own = await listen(t, ana, { ephemeral: true });
    const other = await listen(t, bia, { ephemeral: true });
    const unasked = await listen(t, caio);
    await ana.rest.client.events.sendTyping({ conversation_id: conversation });
    // Other tests of these people go on meanwhile.
    const isHere = (told: Told) => told.typing?.conversation_id === conversation;
    const { typing, cursor } = await other.until('ana is typing', isHere);
    t.is(typing?.user_id, ana.userId);
    t.is(cursor, '');
    const message = await send(ana, conversation);
    for (const each of [own, unasked]) {
      await each.until('the message', (told) => told.message_accepted?.message?.message_id === message);
      t.false(each.all.some(isHere));
    }
    const path = `/v1/conversations/${conversation}/typing`;
    t.is((await davi.rest.refused(403, 'POST', path, { json: {} })).error_code, 'NOT_A_MEMBER');
    const nowhere = '/v1/conversations/7c9e6679-7425-40de-944b-e07fc1f90ae7/typing';
    t.is((await davi.rest.refused(404, 'POST', nowhere, { json: {} })).error_code, 'CONVERSATION_NOT_FOUND');
  });

  test(`${bus}: who is present in a conversation is told to its members who ask for it`, async (t) => {
    const [ana, bia, caio, davi] = mesh.people as [Person, Person, Person, Person];
    const conversation = await openConversation([ana, bia, caio]);
    const asked = { presence_conversation_ids: [conversation] };
    const [own, stranger] = [await listen(t, ana, asked), await listen(t, davi, asked)];
    await own.until('presence', (told) => told.presence !== undefined);
    const other = await listen(t, bia, { ephemeral: true });
    const isThere = (told: Told) => told.presence?.user_ids.includes(bia.userId) === true;
    const { cursor } = await own.until('bia is present', isThere);
    t.is(cursor, '');
    const message = await send(ana, conversation);
    for (const each of [own, other]) {
      await each.until('the message', (told) => told.message_accepted?.message?.message_id === message);
    }
    const presences = own.all.flatMap(({ presence }) => presence ?? []);
    t.true(
      presences.every(({ conversation_id: id, user_ids: ids }) => id === conversation && !ids.includes(ana.userId)),
    );
    t.false([...other.all, ...stranger.all].some(({ presence }) => presence !== undefined));

    const tooMany = Array.from({ length: 21 }, () => conversation).join('&presence_conversation_ids=');
    for (const wrong of ['x', tooMany]) {
      const path = `/v1/events?presence_conversation_ids=${wrong}`;
      t.deepEqual(Object.keys((await ana.rest.refused(400, 'GET', path)).field_errors!), ['presence_conversation_ids']);
    }
  });

  test(`${bus}: how far people have read moves on, never back, and is counted in lists`, async (t) => {
    const [ana, bia, caio] = mesh.people as [Person, Person, Person];
    const conversation = await openConversation([ana, bia, caio]);
    const { message } = bia.rest.client;
    const path = `/v1/conversations/${conversation}/read`;
    const early = await bia.rest.refused(400, 'POST', path, { json: { seq: 1 } });
    t.deepEqual(early.field_errors, { seq: ['there is no message in the conversation yet'] });
    for (let count = 0; count < 3; count += 1) await send(ana, conversation);
    t.deepEqual(await message.markRead({ conversation_id: conversation, seq: 2 }), { seq: 2 });
    t.deepEqual(await message.markRead({ conversation_id: conversation, seq: 1 }), { seq: 2 });
    const beyond = await bia.rest.refused(400, 'POST', path, { json: { seq: 4 } });
    t.deepEqual(beyond.field_errors, { seq: ['must be from 1 to 3'] });
    await caio.rest.client.message.markRead({ conversation_id: conversation, seq: 3 });
    await ana.rest.client.message.markRead({ conversation_id: conversation, seq: 3 });

    const { positions } = await message.getReadPositions({ conversation_id: conversation });
    t.deepEqual(
      positions!.map(({ user_id: userId, seq }) => [userId, seq]),
      [
        [ana.userId, 3],
        [bia.userId, 2],
        [caio.userId, 3],
      ],
    );
    const { messages } = await message.listMessages({ conversation_id: conversation, order: 'asc' });
    t.deepEqual(
      messages!.map(({ read_by: readBy }) => readBy),
      [2, 2, 1],
    );
    t.is((await mesh.people[3]!.rest.refused(403, 'GET', path)).error_code, 'NOT_A_MEMBER');
  });

  test(`${bus}: a cursor that can't be gone on from is told, and one that is none is refused`, async (t) => {
    const [ana] = mesh.people as [Person];
    const { cursor } = await ana.rest.client.events.listEvents({});
    const { epoch, position } = readCursor(cursor!);
    const others = [
      [cursorText({ epoch: (epoch + 1) % 2 ** 32, position }), 'epoch_changed'],
      [cursorText({ epoch, position: position + 1_000_000 }), 'future'],
    ] as const;
    for (const [asked, reason] of others) {
      const { events, cursor: next } = await ana.rest.client.events.listEvents({ cursor: asked });
      t.is(events![0]!.reset!.reason, reason);
      t.true(readCursor(next!).position >= position);
      const stream = await listen(t, ana, { cursor: asked });
      await stream.until('a reset', (told) => told.reset?.reason === reason);
      await stream.end();
    }
    for (const wrong of ['x', `${cursor}=`, `${cursor}A`, Buffer.from('longer than any').toString('base64url')]) {
      for (const path of ['/v1/events', '/v1/events:list']) {
        const problem = await ana.rest.refused(400, 'GET', `${path}?cursor=${encodeURIComponent(wrong)}`);
        t.is(problem.error_code, 'CURSOR_INVALID');
      }
    }
  });

  test(`${bus}: a user has eight streams at most, and the place of one that has ended`, async (t) => {
    const person = mesh.people[4]!;
    const streams: Listening[] = [];
    for (let count = 0; count < 8; count += 1) streams.push(await listen(t, person));
    t.is((await person.rest.refused(429, 'GET', '/v1/events')).error_code, 'TOO_MANY_STREAMS');
    await streams.pop()!.end();
    await eventually(
      'there is a place again',
      async () => {
        const again = await listen(t, person).catch(() => undefined);
        await again?.end();
        return again !== undefined;
      },
      (isThere) => isThere,
    );
  });

  test(`${bus}: the owner of a file is told that its upload is complete`, async (t) => {
    const [ana, bia] = mesh.people as [Person, Person];
    const [own, other] = [await listen(t, ana), await listen(t, bia)];
    const file = new File(['Olá, mundo'], 'olá.txt', { type: 'text/plain' });
    const { file_id: fileId } = await ana.rest.client.uploadFile(file);
    const { file_completed: completed } = await own.until(
      'the file',
      (told) => told.file_completed?.file_id === fileId,
    );
    t.like(completed, { filename: 'olá.txt', file_size: file.size, content_type: 'text/plain' });
    const conversation = await openConversation([ana, bia]);
    const message = await send(ana, conversation);
    await other.until('a later message', (told) => told.message_accepted?.message?.message_id === message);
    t.false(other.all.some((told) => told.file_completed !== undefined));
  });
}
