import type { Breach, Rule } from './breach.ts';
import type { Observations } from './observations.ts';
import type { EventObservations, LogRow, Said } from './observe-events.ts';

/** How far a state is: it only goes on. */
const ranks: Record<string, number> = { accepted: 0, in_transit: 1, delivered: 2, failed: 2 };

/** An event with its place in the log. */
type Entry = LogRow & { said: Said };

/** What the log tells is what has happened: to messages, members, readers and files, each once and in its order. */
export function checkLog(found: EventObservations, observations: Observations): Breach[] {
  const entries = found.log.flatMap((row): Entry[] => {
    const said = found.said.get(row.eventId);
    return said === undefined ? [] : [{ ...row, said }];
  });
  const of = (type: string) => entries.filter(({ said }) => said.type === type);
  return [
    ...checkAccepted(of('message_accepted'), observations),
    ...checkChanges(entries, observations),
    ...checkMembers(entries, found),
    ...checkReads(of('message_read'), found),
    ...checkFiles(of('file_completed'), observations),
  ];
}

function about(rule: Rule, messageId: string, text: string): Breach {
  return { rule, messageId, text };
}

/** Each message is told as accepted once, with its content, in the order of its conversation. */
function checkAccepted(accepted: readonly Entry[], { ledger, read }: Observations): Breach[] {
  const breaches: Breach[] = [];
  const known = new Set(ledger.messages.map(({ messageId }) => messageId));
  const told = Map.groupBy(accepted, ({ said }) => said.subjectId);
  for (const messageId of known) {
    const times = told.get(messageId)?.length ?? 0;
    if (times === 0) breaches.push(about('lost', messageId, 'no event says that it was accepted'));
    if (times > 1) breaches.push(about('doubled', messageId, `${times} events say that it was accepted`));
  }
  const last = new Map<string, number>();
  for (const { id, conversationId, said } of accepted) {
    const { subjectId, seq, message } = said;
    if (!known.has(subjectId)) breaches.push(about('forged', subjectId, `event ${id}: it was never accepted`));
    const before = last.get(conversationId) ?? 0;
    if (seq !== before + 1) breaches.push(about('order', subjectId, `event ${id}: number ${seq} behind ${before}`));
    last.set(conversationId, seq);
    const right = read.get(subjectId);
    if (right === undefined || message === undefined) continue;
    const isSame =
      right.from === message.from &&
      right.seq === seq &&
      right.conversation_id === conversationId &&
      right.to.toSorted().join() === message.to.toSorted().join() &&
      right.channels.toSorted().join() === message.channels.toSorted().join() &&
      (right.payload.text ?? '') === message.text &&
      (right.payload.file_id ?? '') === message.fileId;
    if (!isSame) breaches.push(about('changed', subjectId, `event ${id}: ${JSON.stringify(message)}`));
  }
  return breaches;
}

/** What becomes of a message is told behind its acceptance, goes on only, has each step of its history, and ends as it has ended. */
function checkChanges(entries: readonly Entry[], { ledger, read }: Observations): Breach[] {
  const breaches: Breach[] = [];
  const statuses = new Map<string, string[]>();
  const deliveries = new Map<string, string>();
  for (const { id, said } of entries) {
    const { type, subjectId, status } = said;
    if (type === 'message_accepted' && !statuses.has(subjectId)) statuses.set(subjectId, [status]);
    if (type !== 'delivery_changed') continue;
    const steps = statuses.get(subjectId);
    if (steps === undefined) {
      breaches.push(about('order', subjectId, `event ${id}: a change before the message`));
      continue;
    }
    const goesOn = (now: string, before: string) => now === before || ranks[now]! > ranks[before]!;
    if (!goesOn(status, steps.at(-1)!)) {
      breaches.push(about('order', subjectId, `event ${id}: ${status} behind ${steps.at(-1)}`));
    }
    if (status !== steps.at(-1)) steps.push(status);
    for (const { recipient, channel, status: state } of said.deliveries) {
      const key = `${subjectId} ${recipient} ${channel}`;
      const before = deliveries.get(key) ?? 'accepted';
      if (!goesOn(state, before)) {
        breaches.push(about('order', subjectId, `event ${id}: to ${recipient} ${state} behind ${before}`));
      }
      deliveries.set(key, state);
    }
  }
  for (const { messageId, status } of ledger.messages) {
    const steps = statuses.get(messageId) ?? [];
    // Who was never told of the message is complained of already.
    if (steps.length === 0) continue;
    if (steps.at(-1) !== status) {
      breaches.push(about('lost', messageId, `is ${status}, and the last event of it says ${steps.at(-1)}`));
    }
    const history = read.get(messageId)?.history.map((change) => change.status);
    if (history !== undefined && steps.some((step) => !history.includes(step))) {
      breaches.push(about('books', messageId, `its events say ${steps.join(', ')}; its history ${history.join(', ')}`));
    }
  }
  for (const { messageId, recipientId, channel, status } of ledger.deliveries) {
    const told = deliveries.get(`${messageId} ${recipientId} ${channel}`);
    if (told !== status && statuses.has(messageId)) {
      const what = `to ${recipientId} over ${channel}`;
      breaches.push(about('lost', messageId, `is ${status} ${what}, and the last event of that says ${told}`));
    }
  }
  return breaches;
}

/** Who came and who left is told once each time, and in the end those are there who are. */
function checkMembers(entries: readonly Entry[], { members, movers }: EventObservations): Breach[] {
  const breaches: Breach[] = [];
  const present = new Map<string, Set<string>>();
  for (const { id, conversationId, said } of entries) {
    const there = present.get(conversationId) ?? new Set<string>();
    for (const userId of said.userIds) {
      if (said.type === 'message_read') continue;
      const comes = said.type !== 'member_left';
      if (comes === there.has(userId)) {
        const text = `event ${id}: ${userId} ${comes ? 'comes' : 'leaves'}, and ${comes ? 'is' : 'is not'} there`;
        breaches.push({ rule: 'doubled', text });
      }
      if (comes) there.add(userId);
      else there.delete(userId);
    }
    present.set(conversationId, there);
  }
  for (const [conversationId, right] of members) {
    const told = [...(present.get(conversationId) ?? [])].toSorted().join();
    if (told !== right.toSorted().join()) {
      breaches.push({ rule: 'lost', text: `by the events, ${told} are in ${conversationId}, and not ${right.join()}` });
    }
  }
  for (const type of ['member_left', 'member_joined']) {
    const times = entries.filter(
      ({ conversationId, said }) =>
        said.type === type && conversationId === movers.conversationId && said.userIds.includes(movers.moverId),
    ).length;
    if (times !== movers.times) {
      breaches.push({ rule: 'lost', text: `${times} events say ${type}, which has happened ${movers.times} times` });
    }
  }
  return breaches;
}

/** Readers only go on, and each step that they were told of is there. */
function checkReads(told: readonly Entry[], { reads, movers }: EventObservations): Breach[] {
  const breaches: Breach[] = [];
  const byReader = Map.groupBy(told, ({ conversationId, said }) => `${conversationId} ${said.userIds.join()}`);
  for (const { conversationId, userId, seq } of reads) {
    const steps = (byReader.get(`${conversationId} ${userId}`) ?? []).map(({ said }) => said.seq);
    const isRising = steps.every((step, index) => index === 0 || step > steps[index - 1]!);
    if (!isRising) breaches.push({ rule: 'order', text: `${userId} has read ${steps.join(', ')}, by the events` });
    if (steps.at(-1) !== seq) {
      breaches.push({ rule: 'lost', text: `${userId} has read up to ${seq}, by the events up to ${steps.at(-1)}` });
    }
  }
  const own = byReader.get(`${movers.conversationId} ${movers.readerId}`) ?? [];
  const missing = movers.reads.filter((seq) => !own.some(({ said }) => said.seq === seq));
  if (missing.length > 0) breaches.push({ rule: 'lost', text: `no event says that ${missing.join(', ')} were read` });
  return breaches;
}

/** Owners are told once that a file is complete, and nobody of one that isn't. */
function checkFiles(told: readonly Entry[], { journal, files }: Observations): Breach[] {
  const breaches: Breach[] = [];
  const byFile = Map.groupBy(told, ({ said }) => said.subjectId);
  for (const { fileId, ownerId, told: answer } of journal.files) {
    const events = byFile.get(fileId) ?? [];
    if (answer === 'completed' && events[0]?.userId !== ownerId) {
      breaches.push({ rule: 'lost', text: `${ownerId} was not told that file ${fileId} is complete` });
    }
    if (events.length > 1) {
      breaches.push({ rule: 'doubled', text: `${events.length} events say that file ${fileId} is complete` });
    }
  }
  const complete = new Set(files.rows.filter(({ status }) => status === 'completed').map(({ fileId }) => fileId));
  for (const fileId of byFile.keys()) {
    if (!complete.has(fileId))
      breaches.push({ rule: 'forged', text: `file ${fileId} is not complete, as an event says` });
  }
  return breaches;
}
