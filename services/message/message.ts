import { createHash } from 'node:crypto';
import { HubError, type FieldViolation } from '#lib/errors.ts';

/** The status of a message or a delivery. It only moves to the right, and the last two are final. */
export type Status = 'accepted' | 'in_transit' | 'delivered' | 'failed';

/** A file as shown in a message. */
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
  /** Only for a file whose upload is known to be completed. */
  label?: FileLabel;
}

export type Priority = 'low' | 'normal' | 'high';

/** A message as the sender requests it, with ids in lower case. */
export interface Draft {
  messageId: string;
  conversationId: string;
  senderId: string;
  to: readonly string[];
  channels: readonly string[];
  content: Content;
  priority: Priority;
}

/** The name for all installed channels. */
const everyChannel = 'all';

/** What is wrong with the content: exactly the field of its type must be set. */
export function contentViolations(content: Content): FieldViolation[] {
  if (content.type === 'text') {
    return content.text === '' ? [{ field: 'payload.text', description: 'is required' }] : [];
  }
  return content.fileId === '' ? [{ field: 'payload.file_id', description: 'is required' }] : [];
}

/** The violation for a file that is unknown, not completed, or may not be sent by the sender. */
export function fileViolation(): FieldViolation {
  return { field: 'payload.file_id', description: 'is not a completed file that you may send' };
}

/** The violations for channels that are not installed. */
export function channelViolations(channels: readonly string[], installed: readonly string[]): FieldViolation[] {
  const known = [...installed, everyChannel];
  return channels.flatMap((channel, index) =>
    known.includes(channel.toLowerCase())
      ? []
      : [{ field: `channels[${index}]`, description: `must be one of ${known.join(', ')}` }],
  );
}

/** The channels to deliver over, each once; `all` stands for all installed ones. */
export function expandChannels(channels: readonly string[], installed: readonly string[]): string[] {
  const named = channels.map((channel) => channel.toLowerCase());
  return unique(named.includes(everyChannel) ? installed : named);
}

/**
 * The recipients of a message: `to`, or all active members but the sender.
 *
 * @throws HubError PERMISSION_DENIED `NOT_A_MEMBER` if the sender or one of `to` is no active member; FAILED_PRECONDITION `NO_RECIPIENTS`
 *   if the sender is the only member
 */
export function recipientsOf(draft: Draft, members: readonly string[]): string[] {
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
 * A hash of everything that defines a message. A message_id with another fingerprint was used for another message. The order of `to` and
 * `channels`, and repetitions in them, don't change it.
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
 * The deadlines of a message: no delivery attempt begins after `deliverBy`, so that its report arrives before `expiresAt`, when deliveries
 * that are still open fail. Both are within the promised deadline.
 *
 * @param deadline milliseconds
 */
export function timesOf(acceptedAt: Date, deadline: number): { deliverBy: Date; expiresAt: Date } {
  const after = (milliseconds: number) => new Date(acceptedAt.getTime() + Math.floor(milliseconds));
  const slack = Math.min(1_000, deadline * 0.1);
  return { deliverBy: after(deadline - 3 * slack), expiresAt: after(deadline - slack) };
}

/**
 * How long the deliveries of a message may queue for their networks: 70 % of the time until `deliverBy`, since the speed of a network can
 * only be estimated, and it doesn't serve all recipients strictly in order.
 *
 * @param deadline milliseconds
 */
export function maxQueueingMs(deadline: number): number {
  const accepted = new Date(0);
  return timesOf(accepted, deadline).deliverBy.getTime() * 0.7;
}

/** A report about a message. `replay` is its round: 0 at first, increased by 1 with each replay. */
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
  /** Why it failed; while it is open, why the last attempt failed. */
  error: string;
  updatedAt: Date;
  /** The time of the next attempt, if it is open after a failed one. */
  nextAttemptAt: Date | null;
}

/**
 * The deliveries of a message: to each recipient over each channel. `reported` are those with a report; the others are as they were at
 * acceptance. While the message is in transit, so is each open delivery.
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
 * The history of a message from its stored steps. The first step, the acceptance at `createdAt`, is not stored, except for older messages.
 */
export function historyOf(createdAt: Date, steps: readonly StatusChange[]): StatusChange[] {
  return steps[0]?.status === 'accepted' ? [...steps] : [{ status: 'accepted', at: createdAt, note: '' }, ...steps];
}

export interface MessageState {
  status: Status;
  updatedAt: Date;
  /** Its round. */
  replay: number;
  deliveries: readonly DeliveryState[];
}

export interface StatusChange {
  status: Status;
  at: Date;
  note: string;
}

/**
 * The effect of reports: the changed deliveries, and each step of the message's status. `in_transit` is stored for the message, not for
 * each delivery.
 */
export interface Settlement {
  deliveries: DeliveryState[];
  history: StatusChange[];
}

/**
 * Applies reports to a message, in order. Ended deliveries don't change, so repeated and late reports have no effect. The message is
 * delivered when all deliveries are, and failed once all have ended and one has failed.
 *
 * Reports of an earlier round of a replayed message are ignored, except that something was delivered: that stays true.
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
    // Clocks differ a little: the history keeps the order in which the reports arrived.
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

/** The approximate size of a message in a list, in bytes: its text, plus ids, names and times of bounded size. */
export function sizeOf({ content, recipientIds }: { content: Content; recipientIds: readonly string[] }): number {
  const bytes = content.type === 'text' ? Buffer.byteLength(content.text) : 0;
  return bytes + 40 * recipientIds.length + 2_048;
}

/** The positions of a conversation on a page. Positions have no gaps, so this is arithmetic: no rows are counted or skipped. */
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
