import test from 'ava';
import { v4 as uuid } from 'uuid';
import {
  ListMessagesRequest,
  ListMessagesResponse,
  MessageOrder,
  PayloadType,
  Priority,
  SendMessageRequest,
} from '#gen/chat4all/message/v1/message.ts';
import { HubError } from '#lib/errors.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import { handlers, type HandlerOptions } from './handlers.ts';
import { fingerprintOf } from '../message.ts';
import type { NewMessage } from './acceptance-store.ts';
import type { StoredMessage } from './store.ts';
import { draftOf } from './wire.ts';

/** The order in which `sendMessage` does things: what was refused is stored nowhere, and what was accepted stays so. */

const [ana, bia] = [uuid(), uuid()];

function call(userId: string): UserCall {
  return {
    caller: { kind: 'user', userId, numId: 7n, username: 'ana', admin: false, credential: 'token' },
    requestId: 'request-1',
    address: '192.0.2.1',
    origin: undefined,
    signal: new AbortController().signal,
    credentials: {},
  };
}

function request(changes: Partial<SendMessageRequest> = {}): SendMessageRequest {
  return SendMessageRequest.fromPartial({
    messageId: uuid(),
    conversationId: uuid(),
    from: ana,
    channels: ['whatsapp'],
    payload: { type: PayloadType.PAYLOAD_TYPE_TEXT, text: 'Olá' },
    priority: Priority.PRIORITY_NORMAL,
    ...changes,
  });
}

const fileMessage = () =>
  request({ payload: { ...request().payload!, type: PayloadType.PAYLOAD_TYPE_FILE, fileId: uuid() } });

/** A service whose neighbours do as they are told; `done` is what was done, in order. */
function prepare() {
  const done: string[] = [];
  const kept = new Map<string, NewMessage>();
  const state = {
    bus: undefined as HubError | undefined,
    channels: undefined as HubError | undefined,
    room: undefined as HubError | undefined,
    file: undefined as HubError | undefined,
    database: undefined as HubError | undefined,
    members: [ana, bia],
    listed: [] as StoredMessage[],
  };
  const failing = (error: HubError | undefined) => {
    if (error !== undefined) throw error;
  };
  const isAccepted = (messageId: string, fingerprint: Buffer) => {
    const found = kept.get(messageId);
    if (found === undefined || found.fingerprint.equals(fingerprint)) return found !== undefined;
    throw new HubError('ALREADY_EXISTS', 'MESSAGE_ID_REUSED', 'used');
  };
  const options = {
    deadline: 30_000,
    reads: { of: async () => [] },
    relay: {
      requireBus: () => failing(state.bus),
      wake: () => void done.push('wake'),
      stop: async () => {},
    },
    channels: {
      known: () => ['whatsapp'],
      require() {
        failing(state.channels);
        return ['whatsapp'];
      },
      requireRoom: () => failing(state.room),
      stop: async () => {},
    },
    memberships: {
      async of() {
        done.push('members');
        return state.members;
      },
    },
    files: {
      async shareFile({ conversationId }: { conversationId: string }) {
        done.push(`share with ${conversationId}`);
        failing(state.file);
        return { filename: 'a.png', fileSize: 3n, contentType: 'image/png' };
      },
    },
    store: {
      async append(message: NewMessage) {
        done.push('append');
        failing(state.database);
        if (isAccepted(message.messageId, message.fingerprint)) return false;
        kept.set(message.messageId, message);
        return true;
      },
      accepted: async (messageId: string, fingerprint: Buffer) => isAccepted(messageId, fingerprint),
      positions: async () => ({ firstSeq: 1, lastSeq: state.listed.length }),
      list: async (_id: string, { from, to, order }: { from: number; to: number; order: string }) => {
        const range = state.listed.slice(from - 1, to);
        return order === 'asc' ? range : range.toReversed();
      },
    },
  } as unknown as HandlerOptions;
  const { sendMessage, listMessages } = handlers(options);
  const send = async (message: SendMessageRequest, by = ana): Promise<string> => {
    try {
      const { messageId } = await sendMessage(message, call(by));
      return messageId === message.messageId ? 'accepted' : `another: ${messageId}`;
    } catch (error) {
      return (error as HubError).reason;
    }
  };
  return { state, done, kept, send, listMessages };
}

const away = (reason: string) => new HubError('UNAVAILABLE', reason, 'away');

test('sendMessage: the relay is woken once the message is stored', async (t) => {
  const { send, done, kept } = prepare();
  const message = request();
  t.is(await send(message), 'accepted');
  t.deepEqual(done, ['members', 'append', 'wake']);
  t.like(kept.get(message.messageId), {
    senderId: ana,
    recipientIds: [bia],
    channels: ['whatsapp'],
    requestId: 'request-1',
    fingerprint: fingerprintOf(draftOf(message)),
  });
  const { createdAt, deliverBy, expiresAt } = kept.get(message.messageId)!;
  t.deepEqual([+deliverBy - +createdAt, +expiresAt - +createdAt], [27_000, 29_000]);
});

test('sendMessage: what is refused is stored nowhere, and no file of it is shared', async (t) => {
  const refusals: [string, (prepared: ReturnType<typeof prepare>) => void, string?][] = [
    ['BUS_UNAVAILABLE', ({ state }) => (state.bus = away('BUS_UNAVAILABLE'))],
    ['CHANNELS_UNKNOWN', ({ state }) => (state.channels = away('CHANNELS_UNKNOWN'))],
    ['CHANNEL_OVERLOADED', ({ state }) => (state.room = away('CHANNEL_OVERLOADED'))],
    ['NOT_A_MEMBER', ({ state }) => (state.members = [bia])],
    ['NO_RECIPIENTS', ({ state }) => (state.members = [ana])],
    ['SENDER_MISMATCH', () => {}, bia],
  ];
  for (const [reason, refuse, by] of refusals) {
    const prepared = prepare();
    refuse(prepared);
    for (const message of [request(), fileMessage()]) t.is(await prepared.send(message, by), reason);
    t.is(prepared.kept.size, 0, reason);
    t.deepEqual(
      prepared.done.filter((what) => what !== 'members'),
      [],
      reason,
    );
  }
});

test('sendMessage: a file is shared with the conversation before its message is accepted, or the message is refused', async (t) => {
  const { send, done, kept, state } = prepare();
  const message = fileMessage();
  t.is(await send(message), 'accepted');
  t.deepEqual(done, ['members', `share with ${message.conversationId}`, 'append', 'wake']);
  t.like(kept.get(message.messageId)!.content, { label: { filename: 'a.png', fileSize: 3 } });

  for (const [kind, reason, told] of [
    ['NOT_FOUND', 'FILE_NOT_FOUND', 'INVALID_ARGUMENT'],
    ['PERMISSION_DENIED', 'NOT_A_READER', 'INVALID_ARGUMENT'],
    ['ABORTED', 'FILE_NOT_COMPLETED', 'INVALID_ARGUMENT'],
    ['UNAVAILABLE', 'STORE_UNAVAILABLE', 'STORE_UNAVAILABLE'],
  ] as const) {
    state.file = new HubError(kind, reason, 'no');
    t.is(await send(fileMessage()), told);
  }
  t.is(kept.size, 1);
});

test('sendMessage: what was accepted is accepted for who repeats it, whatever is away or has changed since', async (t) => {
  const { send, kept, state } = prepare();
  const [text, file] = [request(), fileMessage()];
  t.deepEqual([await send(text), await send(file)], ['accepted', 'accepted']);
  const changes: [keyof typeof state, unknown][] = [
    ['bus', away('BUS_UNAVAILABLE')],
    ['channels', away('CHANNELS_UNKNOWN')],
    ['room', away('CHANNEL_OVERLOADED')],
    ['file', new HubError('NOT_FOUND', 'FILE_NOT_FOUND', 'gone')],
    ['members', [bia]],
    ['database', away('DATABASE_UNAVAILABLE')],
  ];
  const usual = { ...state };
  for (const [what, value] of changes) {
    Object.assign(state, usual, { [what]: value });
    t.deepEqual([await send(text), await send(file)], ['accepted', 'accepted'], what);
    const other = { ...text, payload: { ...text.payload!, text: 'something else' } };
    t.is(await send(other), 'MESSAGE_ID_REUSED', what);
  }
  t.is(kept.size, 2);
});

test('listMessages: a page has less than the 4 MiB that clients take, and the rest comes behind it', async (t) => {
  const { state, listMessages } = prepare();
  const now = new Date();
  state.listed = Array.from({ length: 150 }, (_, index) => ({
    messageId: uuid(),
    conversationId: uuid(),
    seq: index + 1,
    senderId: ana,
    senderUsername: 'ana',
    recipientIds: Array.from({ length: 99 }, () => bia),
    channels: ['whatsapp', 'instagram'],
    content: { type: 'text', text: 'é'.repeat(32_768), fileId: '' },
    priority: 'normal',
    status: 'accepted',
    createdAt: now,
    updatedAt: now,
  })) as unknown as StoredMessage[];
  for (const order of [MessageOrder.MESSAGE_ORDER_ASC, MessageOrder.MESSAGE_ORDER_DESC]) {
    const seen: bigint[] = [];
    while (seen.length < 150) {
      const asked = { conversationId: uuid(), limit: 100, offset: seen.length, order };
      const page = await listMessages(ListMessagesRequest.fromPartial(asked), call(ana));
      t.true(page.messages.length > 0 && page.messages.length < 100);
      t.like(page, { total: 150n, limit: 100, offset: seen.length });
      t.true(ListMessagesResponse.encode(page).finish().length < 3.2 * 1024 ** 2);
      seen.push(...page.messages.map(({ seq }) => seq));
    }
    const all = Array.from({ length: 150 }, (_, index) => BigInt(index + 1));
    t.deepEqual(seen, order === MessageOrder.MESSAGE_ORDER_ASC ? all : all.toReversed());
  }
});
