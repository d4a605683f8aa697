import type { FileServiceService } from '#gen/chat4all/file/v1/file.ts';
import { MessageStatus, type MessageServiceService } from '#gen/chat4all/message/v1/message.ts';
import { hubDate } from '#lib/clock.ts';
import { currentContext } from '#lib/context.ts';
import { HubError, invalidFields, isTransient } from '#lib/errors.ts';
import { counter } from '#lib/metrics.ts';
import { fitting } from '#lib/page-bytes.ts';
import type { Connection } from '#lib/rpc/client.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Checks, Handlers } from '#lib/rpc/server.ts';
import type { Channels } from './channels.ts';
import type { Memberships } from './memberships.ts';
import {
  expandChannels,
  channelViolations,
  contentViolations,
  fileViolation,
  fingerprintOf,
  readersOf,
  pageOf,
  maxQueueingMs,
  recipientsOf,
  requireMember,
  timesOf,
  sizeOf,
  type Content,
  type Draft,
} from '../message.ts';
import type { Relay } from '../outbox/relay.ts';
import type { Reads } from './reads-store.ts';
import type { Store } from './store.ts';
import { contentOf, detailsOf, draftOf, messageOf, orderOf } from './wire.ts';

export interface HandlerOptions {
  store: Store;
  reads: Reads;
  relay: Relay;
  channels: Channels;
  memberships: Memberships;
  files: Files;
  /** How long after its acceptance a message is delivered or failed, in milliseconds. */
  deadline: number;
}

/** The part of the file service that is needed here. */
export type Files = Pick<Connection<typeof FileServiceService>, 'shareFile'>;

const defaultLimit = 50;

const acceptedMessages = counter('messages_accepted_total', 'Messages accepted, each once');

export function handlers(options: HandlerOptions): Handlers<typeof MessageServiceService> {
  const { store, reads, relay, channels, memberships, files, deadline } = options;

  async function accept(draft: Draft, call: UserCall, fingerprint: Buffer): Promise<void> {
    relay.requireBus();
    const installed = channels.require();
    const recipientIds = recipientsOf(draft, await memberships.of(draft.conversationId));
    const meant = expandChannels(draft.channels, installed);
    channels.requireRoom(meant, recipientIds.length, maxQueueingMs(deadline));
    const content = await sharedContent(draft, files);
    const createdAt = hubDate();
    const isNew = await store.append({
      messageId: draft.messageId,
      conversationId: draft.conversationId,
      senderId: draft.senderId,
      senderUsername: call.caller.username,
      recipientIds,
      channels: meant,
      content,
      priority: draft.priority,
      fingerprint,
      createdAt,
      ...timesOf(createdAt, deadline),
      requestId: call.requestId,
    });
    if (isNew) acceptedMessages.inc();
    relay.wake();
  }

  return {
    async sendMessage(request, call: UserCall) {
      const draft = draftOf(request);
      const context = currentContext();
      if (context !== undefined) context.messageId = draft.messageId;
      if (draft.senderId !== call.caller.userId) {
        throw new HubError('PERMISSION_DENIED', 'SENDER_MISMATCH', 'Access denied: `from` has to be yourself');
      }
      const fingerprint = fingerprintOf(draft);
      try {
        await accept(draft, call, fingerprint);
      } catch (refusal) {
        // An accepted message stays accepted, whatever has changed since: a client that repeats its call gets the first answer.
        if (!(await store.accepted(draft.messageId, fingerprint))) throw refusal;
      }
      return { status: MessageStatus.MESSAGE_STATUS_ACCEPTED, messageId: draft.messageId };
    },

    async listMessages(request, call: UserCall) {
      const { conversationId, offset } = request;
      const limit = request.limit ?? defaultLimit;
      const memberIds = await memberships.of(conversationId);
      requireMember(call.caller.userId, memberIds);
      const order = orderOf(request.order);
      const { total, ...range } = pageOf(await store.positions(conversationId), {
        afterSeq: Number(request.afterSeq ?? 0n),
        beforeSeq: request.beforeSeq === undefined ? undefined : Number(request.beforeSeq),
        limit,
        offset,
        order,
      });
      const [found, positions] = await Promise.all([
        store.list(conversationId, { ...range, order }),
        reads.of(conversationId),
      ]);
      const readers = positions.filter(({ userId }) => memberIds.includes(userId));
      const messages = fitting(found, sizeOf).map((message) => messageOf(message, readersOf(message, readers)));
      return { conversationId, messages, total: BigInt(total), limit, offset };
    },

    async markRead({ conversationId, seq }, { caller: { userId }, requestId }: UserCall) {
      requireMember(userId, await memberships.of(conversationId));
      const { lastSeq } = await store.positions(conversationId);
      if (seq > lastSeq) {
        const description =
          lastSeq === 0 ? 'there is no message in the conversation yet' : `must be from 1 to ${lastSeq}`;
        throw invalidFields([{ field: 'seq', description }]);
      }
      const position = { userId, seq: Number(seq), at: hubDate() };
      const { seq: now, isNew } = await reads.moveOn(conversationId, position, requestId);
      if (isNew) relay.wake();
      return { seq: BigInt(now) };
    },

    async getReadPositions({ conversationId }, { caller }: UserCall) {
      const memberIds = await memberships.of(conversationId);
      requireMember(caller.userId, memberIds);
      const known = new Map((await reads.of(conversationId)).map((position) => [position.userId, position]));
      const positions = memberIds.map((userId) => {
        const { seq = 0, at } = known.get(userId) ?? {};
        return { userId, seq: BigInt(seq), at };
      });
      return { positions };
    },

    async getMessage({ messageId }, call: UserCall) {
      const message = await store.find(messageId);
      if (message === undefined) throw new HubError('NOT_FOUND', 'MESSAGE_NOT_FOUND', 'Message not found');
      requireMember(call.caller.userId, await memberships.of(message.conversationId));
      return detailsOf(message);
    },
  };
}

/**
 * The content to store. A file is shared with the conversation first, so that readers of the message can download it at once.
 *
 * @throws HubError INVALID_ARGUMENT that names `payload.file_id` if the sender may not send that file
 */
async function sharedContent({ content, senderId, conversationId }: Draft, files: Files): Promise<Content> {
  if (content.type === 'text') return content;
  try {
    const { filename, fileSize, contentType } = await files.shareFile({
      fileId: content.fileId,
      senderId,
      conversationId,
    });
    return { ...content, label: { filename, fileSize: Number(fileSize), contentType } };
  } catch (error) {
    throw isRefusal(error) ? invalidFields([fileViolation()]) : error;
  }
}

function isRefusal(error: unknown): boolean {
  return error instanceof HubError && ['NOT_FOUND', 'PERMISSION_DENIED', 'ABORTED'].includes(error.kind);
}

/** Checks of messages that their proto can't express. */
export function checks(channels: Channels, files: Files): Checks<typeof MessageServiceService> {
  return {
    async sendMessage(request, found, caller) {
      const content = request.payload === undefined ? undefined : contentOf(request.payload);
      const wrong = [
        ...(content === undefined ? [] : contentViolations(content)),
        ...channelViolations(request.channels, channels.known() ?? request.channels),
      ];
      const isKnownWrong = [...found, ...wrong].some(({ field }) => field === 'payload.file_id');
      // If nothing else is wrong, the handler checks the file.
      if (content?.type !== 'file' || found.length + wrong.length === 0 || isKnownWrong) return wrong;
      const senderId = caller?.kind === 'user' ? caller.userId : '';
      try {
        await files.shareFile({ fileId: content.fileId, senderId, conversationId: '' });
      } catch (error) {
        if (isRefusal(error)) wrong.push(fileViolation());
        else if (!isTransient(error)) throw error;
      }
      return wrong;
    },
  };
}
