import { createHash } from 'node:crypto';
import { HubError, type FieldViolation } from '#lib/errors.ts';

/** How far a message or a delivery has come; it only moves to the right, and the last two are ends. */
export type Status = 'accepted' | 'in_transit' | 'delivered' | 'failed';

/** A file as people see it in a message. */
export interface FileLabel {
  filename: string;
  /** Bytes. */
  fileSize: number;
  contentType: string;
}

/** The content of a message. */
export interface Content {
  type: 'text' | 'file';
  text: string;
  fileId: string;
  /** Only of a file whose upload is known to be complete. */
  label?: FileLabel;
}

export type Priority = 'low' | 'normal' | 'high';

/** A message as its sender means it, ids in lower case. */
export interface Draft {
  messageId: string;
  conversationId: string;
  senderId: string;
  to: readonly string[];
  channels: readonly string[];
  content: Content;
  priority: Priority;
}

/** Stands for every installed channel. */
const everyChannel = 'all';

/** What is wrong with the content: exactly the field that belongs to its type has to be there. */
export function contentViolations(content: Content): FieldViolation[] {
  if (content.type === 'text') {
    return content.text === '' ? [{ field: 'payload.text', description: 'is required' }] : [];
  }
  return content.fileId === '' ? [{ field: 'payload.file_id', description: 'is required' }] : [];
}

/** What is wrong with a file that is unknown, not completed, or not the sender's to send. */
export function fileViolation(): FieldViolation {
  return { field: 'payload.file_id', description: 'is not a completed file that you may send' };
}

/** Names each channel that is not installed. */
export function channelViolations(channels: readonly string[], installed: readonly string[]): FieldViolation[] {
  const known = [...installed, everyChannel];
  return channels.flatMap((channel, index) =>
    known.includes(channel.toLowerCase())
      ? []
      : [{ field: `channels[${index}]`, description: `must be one of ${known.join(', ')}` }],
  );
}

/** The channels to deliver over, each once, `all` being every one that is installed. */
export function channelsMeant(channels: readonly string[], installed: readonly string[]): string[] {
  const named = channels.map((channel) => channel.toLowerCase());
  return unique(named.includes(everyChannel) ? installed : named);
}

/**
 * Whom a message goes to: `to`, or every active member but the sender.
 *
 * @throws HubError PERMISSION_DENIED `NOT_A_MEMBER` if the sender or one of `to` is no active member;
 *   FAILED_PRECONDITION `NO_RECIPIENTS` if the sender is the last one there
 */
export function recipientsMeant(draft: Draft, members: readonly string[]): string[] {
  requireMember(draft.senderId, members);
  const outsiders = draft.to.filter((recipient) => !members.includes(recipient));
  if (outsiders.length > 0) {
    throw new HubError(
      'PERMISSION_DENIED',
      'NOT_A_MEMBER',
      `Access denied: not everyone in \`to\` is a member of the conversation (${outsiders.join(', ')})`,
    );
  }
  const recipients = draft.to.length > 0 ? unique(draft.to) : members.filter((member) => member !== draft.senderId);
  if (recipients.length > 0) return recipients;
  throw new HubError('FAILED_PRECONDITION', 'NO_RECIPIENTS', 'There is nobody else left in the conversation');
}

/** @throws HubError PERMISSION_DENIED `NOT_A_MEMBER` */
export function requireMember(userId: string, members: readonly string[]): void {
  if (members.includes(userId)) return;
  throw new HubError('PERMISSION_DENIED', 'NOT_A_MEMBER', 'Access denied: you are not a member of the conversation');
}

/**
 * A hash of all that makes a message what it is. The same message_id with another fingerprint was used for something
 * else. Order and repetition in `to` and `channels` mean nothing, so they don't change it.
 */
export function fingerprintOf(draft: Draft): Buffer {
  const { senderId, conversationId, to, channels, content, priority } = draft;
  const meaning = [
    senderId,
    conversationId,
    unique(to).toSorted(),
    unique(channels.map((channel) => channel.toLowerCase())).toSorted(),
    content.type,
    content.text,
    content.fileId,
    priority,
  ];
  return createHash('sha256').update(JSON.stringify(meaning)).digest();
}

/**
 * The times that a message has: no delivery begins after `deliverBy`, so that the report of one that began in time is
 * back before `expiresAt`, when what is still open is failed. Both lie within the deadline that was promised.
 *
 * @param deadline milliseconds
 */
export function timesOf(acceptedAt: Date, deadline: number): { deliverBy: Date; expiresAt: Date } {
  const after = (milliseconds: number) => new Date(acceptedAt.getTime() + Math.floor(milliseconds));
  const slack = Math.min(1_000, deadline * 0.1);
  return { deliverBy: after(deadline - 3 * slack), expiresAt: after(deadline - slack) };
}

/**
 * How long the deliveries of a message may have to wait for their networks: 70 % of the time until they may not begin any more, since how
 * fast a network is can only be estimated, and it doesn't serve everybody strictly in turn.
 *
 * @param deadline milliseconds
 */
export function maxQueueingMs(deadline: number): number {
  const accepted = new Date(0);
  return timesOf(accepted, deadline).deliverBy.getTime() * 0.7;
}

/** A report about a message. `replay` is the round that it is about: 0 at first, 1 more for each replay. */
export type Report =
  | { kind: 'routed'; at: Date; replay: number }
  | { kind: 'rejected'; at: Date; reason: string; replay: number }
  | { kind: 'expired'; at: Date; reason: string }
  | {
      kind: 'attempted';
      at: Date;
      replay: number;
      recipientId: string;
      channel: string;
      attempts: number;
      error: string;
      nextAttemptAt: Date | null;
    }
  | {
      kind: 'ended';
      at: Date;
      replay: number;
      recipientId: string;
      channel: string;
      delivered: boolean;
      attempts: number;
      error: string;
    };

export interface DeliveryState {
  recipientId: string;
  channel: string;
  status: Status;
  attempts: number;
  /** Why it failed; while it is open, why the last attempt did. */
  error: string;
  updatedAt: Date;
  /** When it is tried again, if it is open after an attempt that failed. */
  nextAttemptAt: Date | null;
}

/**
 * The deliveries of a message: to each recipient, over each channel. `reported` are those of which something was reported; the others are
 * as they were when the message was accepted. While the message is in transit, so is each open delivery.
 */
export function deliveriesOf(
  message: { recipientIds: readonly string[]; channels: readonly string[]; createdAt: Date; status: Status },
  reported: readonly DeliveryState[],
  inTransitSince?: Date,
): DeliveryState[] {
  const known = new Map(reported.map((delivery) => [keyOf(delivery), delivery]));
  return message.recipientIds.flatMap((recipientId) =>
    message.channels.toSorted().map((channel) => {
      const delivery = known.get(keyOf({ recipientId, channel })) ?? {
        recipientId,
        channel,
        status: 'accepted',
        attempts: 0,
        error: '',
        updatedAt: message.createdAt,
        nextAttemptAt: null,
      };
      if (message.status === 'accepted' || hasEnded(delivery.status)) return delivery;
      const { updatedAt } = delivery;
      const isNews = inTransitSince !== undefined && inTransitSince > updatedAt;
      return { ...delivery, status: 'in_transit', updatedAt: isNews ? inTransitSince : updatedAt };
    }),
  );
}

/**
 * The history of a message from its stored steps. The acceptance, which comes first, isn't stored: `createdAt` says when it was. Older
 * messages have it stored, too.
 */
export function historyOf(createdAt: Date, steps: readonly StatusChange[]): StatusChange[] {
  return steps[0]?.status === 'accepted' ? [...steps] : [{ status: 'accepted', at: createdAt, note: '' }, ...steps];
}

export interface MessageState {
  status: Status;
  updatedAt: Date;
  /** The round that it is in. */
  replay: number;
  deliveries: readonly DeliveryState[];
}

export interface StatusChange {
  status: Status;
  at: Date;
  note: string;
}

/**
 * What reports change: the deliveries that changed, and each step of the message's status. That a message is in transit is kept for the
 * message, not for each delivery.
 */
export interface Settlement {
  deliveries: DeliveryState[];
  history: StatusChange[];
}

/**
 * Applies reports to a message, in their order. What has ended stays as it is, so a report that comes twice or too late
 * changes nothing. The message is delivered when every delivery is, and failed as soon as all have ended and one failed.
 *
 * Reports of an earlier round of a replayed message are ignored, save that something was delivered: that stays true.
 */
export function settle(message: MessageState, reports: readonly Report[]): Settlement {
  const deliveries = new Map(message.deliveries.map((delivery) => [keyOf(delivery), delivery]));
  const changed = new Map<string, DeliveryState>();
  const history: StatusChange[] = [];
  let status = message.status;
  let updatedAt = message.updatedAt;

  const change = (key: string, next: Partial<DeliveryState>) => {
    const delivery = { ...(deliveries.get(key) as DeliveryState), ...next };
    deliveries.set(key, delivery);
    changed.set(key, delivery);
  };
  const advance = (next: Status, at: Date, note = '') => {
    // The clocks of machines differ a little: the history has the order in which the reports came.
    updatedAt = at > updatedAt ? at : updatedAt;
    status = next;
    history.push({ status, at: updatedAt, note });
  };
  const beInTransit = (at: Date) => {
    if (status === 'accepted') advance('in_transit', at);
  };

  for (const report of reports) {
    if (hasEnded(status)) break;
    const isEarlier = report.kind !== 'expired' && report.replay < message.replay;
    if (isEarlier && !(report.kind === 'ended' && report.delivered)) continue;
    if (report.kind === 'routed') {
      beInTransit(report.at);
      continue;
    }
    if (report.kind === 'attempted') {
      const { attempts, error, at, nextAttemptAt } = report;
      const key = keyOf(report);
      const delivery = deliveries.get(key);
      if (delivery === undefined || hasEnded(delivery.status) || attempts <= delivery.attempts) continue;
      change(key, { attempts, error, nextAttemptAt, updatedAt: at });
      continue;
    }
    if (report.kind === 'ended') {
      const key = keyOf(report);
      const delivery = deliveries.get(key);
      if (delivery === undefined || hasEnded(delivery.status)) continue;
      // The connector's report may come before the router's.
      beInTransit(report.at);
      change(key, {
        status: report.delivered ? 'delivered' : 'failed',
        attempts: Math.max(report.attempts, delivery.attempts),
        error: report.error,
        updatedAt: report.at,
        nextAttemptAt: null,
      });
    } else {
      for (const [key, delivery] of deliveries) {
        if (hasEnded(delivery.status)) continue;
        const error = report.reason + (delivery.error === '' ? '' : `; the last answer was: ${delivery.error}`);
        change(key, { status: 'failed', error, updatedAt: report.at, nextAttemptAt: null });
      }
    }
    const all = [...deliveries.values()];
    if (!all.every((delivery) => hasEnded(delivery.status))) continue;
    const failed = all.filter((delivery) => delivery.status === 'failed');
    if (failed.length === 0) advance('delivered', report.at);
    else advance('failed', report.at, failureNote(failed, all.length));
  }
  return { deliveries: [...changed.values()], history };
}

function failureNote(failed: readonly DeliveryState[], all: number): string {
  const reasons = unique(failed.map((delivery) => delivery.error)).slice(0, 3);
  return all === 1 ? reasons.join('; ') : `${failed.length} of ${all} deliveries failed: ${reasons.join('; ')}`;
}

/** Whether it is delivered or failed. */
export function hasEnded(status: Status): boolean {
  return status === 'delivered' || status === 'failed';
}

function keyOf({ recipientId, channel }: { recipientId: string; channel: string }): string {
  return `${recipientId} ${channel}`;
}

function unique(items: readonly string[]): string[] {
  return [...new Set(items)];
}

/** How many others than its sender have read a message. */
export function readersOf(
  { seq, senderId }: { seq: number; senderId: string },
  readers: readonly { userId: string; seq: number }[],
): number {
  return readers.filter((reader) => reader.seq >= seq && reader.userId !== senderId).length;
}

/** About how many bytes a message takes in a list: its text, and ids, names and times, whose sizes are bounded. */
export function sizeOf({ content, recipientIds }: { content: Content; recipientIds: readonly string[] }): number {
  const bytes = content.type === 'text' ? Buffer.byteLength(content.text) : 0;
  return bytes + 40 * recipientIds.length + 2_048;
}

/**
 * Which positions of a conversation a page shows. Because positions have no gaps, this is arithmetic: no row is counted
 * or passed over.
 */
export function pageOf(
  { firstSeq, lastSeq }: { firstSeq: number; lastSeq: number },
  filter: { afterSeq: number; beforeSeq: number | undefined; limit: number; offset: number; order: 'asc' | 'desc' },
): { total: number; from: number; to: number } {
  const first = Math.max(filter.afterSeq + 1, firstSeq);
  const last = Math.min(lastSeq, (filter.beforeSeq ?? Infinity) - 1);
  const total = Math.max(0, last - first + 1);
  if (filter.order === 'asc') {
    const from = first + filter.offset;
    return { total, from, to: Math.min(last, from + filter.limit - 1) };
  }
  const to = last - filter.offset;
  return { total, from: Math.max(first, to - filter.limit + 1), to };
}
