import type { Breach, Rule } from './breach.ts';
import { checkFiles } from './checker-files.ts';
import { checkTopics } from './checker-topics.ts';
import type { SentMessage } from './journal.ts';
import { deliveryKey, type Observations, type ReadMessage } from './observations.ts';

export interface CheckOptions {
  /** Whether a delivery may have failed for this reason: the final errors of a simulated network. */
  mayFail?: (error: string) => boolean;
  /** Milliseconds after which an upload that nobody goes on with is to be gone. */
  uploadLifetime: number;
}

/** Compares what clients were told with everything that can be seen. An empty list means that every promise was kept. */
export function check(observations: Observations, options: CheckOptions): Breach[] {
  const known = new Set(observations.ledger.messages.map(({ messageId }) => messageId));
  return [
    ...checkTold(observations, known),
    ...checkEnds(observations, options),
    ...checkLists(observations),
    ...checkEffects(observations),
    ...checkLanes(observations),
    ...checkTopics(observations, known),
    ...checkLeftovers(observations, known),
    ...checkFiles(observations, options.uploadLifetime),
    ...checkTries(observations),
    ...checkAudit(observations),
  ];
}

/** What clients were told is what is there, with the content that they sent. */
function checkTold({ journal, read }: Observations, known: ReadonlySet<string>): Breach[] {
  const breaches: Breach[] = [];
  const accepted = new Set(
    journal.messages.filter(({ told }) => told === 'accepted').map(({ messageId }) => messageId),
  );
  const sent = new Map(
    journal.messages.filter(({ told }) => told !== 'refused').map((message) => [message.messageId, message]),
  );
  for (const { messageId, told } of journal.messages) {
    if (told === 'accepted' && !known.has(messageId)) {
      breaches.push({ rule: 'lost', messageId, text: 'was accepted and is not in the ledger' });
    }
    if (told === 'accepted' && !read.has(messageId)) {
      breaches.push({ rule: 'lost', messageId, text: 'was accepted and can not be read' });
    }
    // One that was refused because its id was taken leaves the message that has it.
    if (told === 'refused' && known.has(messageId) && !accepted.has(messageId)) {
      breaches.push({ rule: 'forged', messageId, text: 'was refused and is in the ledger' });
    }
  }
  for (const messageId of known) {
    const message = sent.get(messageId);
    if (message === undefined) {
      if (!journal.messages.some((each) => each.messageId === messageId)) {
        breaches.push({ rule: 'forged', messageId, text: 'is in the ledger and nobody sent it' });
      }
      continue;
    }
    const found = read.get(messageId);
    if (found === undefined) continue;
    const difference = differenceOf(message, found);
    if (difference !== undefined) breaches.push({ rule: 'changed', messageId, text: difference });
  }
  return breaches;
}

function differenceOf(sent: SentMessage, found: ReadMessage): string | undefined {
  if (found.conversation_id !== sent.conversationId) return `is in conversation ${found.conversation_id}`;
  if (found.from !== sent.senderId) return `is from ${found.from}`;
  if (
    'text' in sent.content ? found.payload.text !== sent.content.text : found.payload.file_id !== sent.content.fileId
  ) {
    return `says ${JSON.stringify(found.payload)}, not ${JSON.stringify(sent.content)}`;
  }
  if (!isSameSet(found.to, sent.recipientIds)) return `goes to ${found.to.join(', ')}`;
  if (!isSameSet(found.channels, sent.channels)) return `goes over ${found.channels.join(', ')}`;
  return undefined;
}

/** Each message has ended, is delivered, and its books are in order: in the ledger as over REST. */
function checkEnds({ read, ledger }: Observations, { mayFail }: CheckOptions): Breach[] {
  const breaches: Breach[] = [];
  const rows = Map.groupBy(ledger.deliveries, ({ messageId }) => messageId);
  for (const { messageId, status } of ledger.messages) {
    const breach = (rule: Rule, text: string) => breaches.push({ rule, messageId, text });
    const deliveries = rows.get(messageId) ?? [];
    if (status !== 'delivered' && status !== 'failed') breach('not ended', `is ${status}`);
    for (const { recipientId, channel, status: state, error } of deliveries) {
      if (state === 'failed' && mayFail?.(error) !== true) {
        breach('failed', `to ${recipientId} over ${channel}: ${error}`);
      } else if (state !== 'delivered' && state !== 'failed') {
        breach('not ended', `to ${recipientId} over ${channel} is ${state}`);
      }
    }
    const message = read.get(messageId);
    if (message === undefined) continue;
    const wanted = message.to.flatMap((recipient) => message.channels.map((channel) => `${recipient} ${channel}`));
    const shown = message.deliveries.map(({ recipient, channel }) => `${recipient} ${channel}`);
    if (!isSameSet(wanted, shown)) breach('books', `its deliveries over REST are ${shown.join(', ')}`);
    const kept = deliveries.map(({ recipientId, channel }) => `${recipientId} ${channel}`);
    if (!isSameSet(wanted, kept)) breach('books', `its deliveries in the ledger are ${kept.join(', ')}`);
    const isRight = message.deliveries.some((delivery) => delivery.status === 'failed') ? 'failed' : 'delivered';
    if (message.status !== isRight) breach('books', `is ${message.status} over REST, and by its deliveries ${isRight}`);
    if (message.status !== status) breach('books', `is ${message.status} over REST and ${status} in the ledger`);
    const history = message.history.map((change) => change.status);
    const isForward =
      history[0] === 'accepted' && history.at(-1) === message.status && new Set(history).size === history.length;
    if (!isForward) breach('books', `its history is ${history.join(', ')}`);
  }
  return breaches;
}

/** Positions have no gaps, and lists, heads and ledger agree. */
function checkLists({ listed, ledger }: Observations): Breach[] {
  const breaches: Breach[] = [];
  const heads = new Map(ledger.heads.map(({ conversationId, lastSeq }) => [conversationId, lastSeq]));
  const byConversation = Map.groupBy(ledger.messages, ({ conversationId }) => conversationId);
  for (const conversationId of new Set([...byConversation.keys(), ...heads.keys(), ...listed.keys()])) {
    const kept = (byConversation.get(conversationId) ?? []).toSorted((one, other) => one.seq - other.seq);
    const wrong = kept.findIndex(({ seq }, index) => seq !== index + 1);
    if (wrong !== -1) {
      breaches.push({
        rule: 'gap',
        messageId: kept[wrong]!.messageId,
        text: `has position ${kept[wrong]!.seq} in conversation ${conversationId}, where ${wrong + 1} is due`,
      });
    }
    const head = heads.get(conversationId) ?? 0;
    if (head !== kept.length) {
      breaches.push({ rule: 'gap', text: `${conversationId} has ${kept.length} messages, and its head is ${head}` });
    }
    const shown = listed.get(conversationId) ?? [];
    const different = kept.findIndex(
      ({ messageId, seq }, index) => shown[index]?.message_id !== messageId || shown[index]?.seq !== seq,
    );
    if (different !== -1 || shown.length !== kept.length) {
      const { messageId } = kept[different] ?? {};
      breaches.push({
        rule: 'lost',
        ...(messageId === undefined ? {} : { messageId }),
        text: `the list of ${conversationId} shows ${shown.length} messages, not these ${kept.length} in this order`,
      });
    }
  }
  return breaches;
}

/** What was delivered had one effect, nothing else had any, and effects came in the order of the conversation. */
function checkEffects({ ledger, effects }: Observations): Breach[] {
  const breaches: Breach[] = [];
  const byDelivery = Map.groupBy(effects, deliveryKey);
  const deliveries = new Map(ledger.deliveries.map((delivery) => [deliveryKey(delivery), delivery]));
  for (const [key, { messageId, recipientId, channel, status }] of deliveries) {
    const found = byDelivery.get(key) ?? [];
    const what = `to ${recipientId} over ${channel}`;
    if (status === 'delivered' && found.length === 0) {
      breaches.push({ rule: 'no effect', messageId, text: `is delivered ${what}, and the network has nothing` });
    }
    if (found.length > 1) {
      const keys = found.map((effect) => effect.key).join(', ');
      breaches.push({ rule: 'doubled', messageId, text: `had ${found.length} effects ${what}, with the keys ${keys}` });
    }
  }
  for (const [key, [effect]] of byDelivery) {
    if (deliveries.has(key)) continue;
    const { messageId, recipientId, channel } = effect!;
    breaches.push({ rule: 'forged', messageId, text: `had an effect to ${recipientId} over ${channel}, unasked` });
  }

  const positions = new Map(ledger.messages.map((message) => [message.messageId, message]));
  const last = new Map<string, number>();
  for (const { messageId, recipientId, channel } of effects) {
    const message = positions.get(messageId);
    if (message === undefined) continue;
    const way = `${message.conversationId} ${recipientId} ${channel}`;
    const before = last.get(way) ?? 0;
    if (message.seq < before) {
      breaches.push({
        rule: 'order',
        messageId,
        text: `number ${message.seq} came to ${recipientId} over ${channel} after number ${before}`,
      });
    }
    last.set(way, Math.max(before, message.seq));
  }
  return breaches;
}

/** What a client sent one after the other, each once the one before was accepted, is in that order. */
function checkLanes({ journal, ledger }: Observations): Breach[] {
  const positions = new Map(ledger.messages.map(({ messageId, seq }) => [messageId, seq]));
  const accepted = journal.messages.filter(({ lane, told }) => lane >= 0 && told === 'accepted');
  return [...Map.groupBy(accepted, ({ lane }) => lane).values()].flatMap((lane) =>
    lane.flatMap(({ messageId }, index): Breach[] => {
      const [before, own] = [positions.get(lane[index - 1]?.messageId ?? '') ?? 0, positions.get(messageId)];
      if (own === undefined || own > before) return [];
      return [{ rule: 'order', messageId, text: `has position ${own}, and was sent after number ${before}` }];
    }),
  );
}

/** Nothing is left half done. */
function checkLeftovers({ ledger }: Observations, known: ReadonlySet<string>): Breach[] {
  const breaches: Breach[] = [];
  if (ledger.outbox > 0) breaches.push({ rule: 'orphan', text: `${ledger.outbox} rows are left in the outbox` });
  for (const [table, count] of Object.entries(ledger.strays)) {
    if (count > 0) breaches.push({ rule: 'orphan', text: `${count} rows of ${table} belong to nothing` });
  }
  const routed = new Set(ledger.routes);
  for (const messageId of routed) {
    if (!known.has(messageId)) breaches.push({ rule: 'orphan', messageId, text: 'is unknown, and was routed' });
  }
  for (const messageId of known) {
    if (!routed.has(messageId)) breaches.push({ rule: 'orphan', messageId, text: 'was never routed' });
  }
  const deliveries = new Map(ledger.deliveries.map((delivery) => [deliveryKey(delivery), delivery]));
  for (const attempt of ledger.attempts) {
    const { messageId, recipientId, channel, delivered } = attempt;
    const what = `to ${recipientId} over ${channel}`;
    const status = deliveries.get(deliveryKey(attempt))?.status;
    if (status === undefined) {
      breaches.push({
        rule: 'orphan',
        messageId,
        text: `the connectors know a delivery ${what} that nobody asked for`,
      });
    } else if (delivered === null) {
      breaches.push({
        rule: 'orphan',
        messageId,
        text: `the connectors have begun the delivery ${what}, not ended it`,
      });
    } else if (delivered !== (status === 'delivered')) {
      breaches.push({
        rule: 'books',
        messageId,
        text: `the delivery ${what} is ${status}; the connectors say otherwise`,
      });
    }
  }
  return breaches;
}

/** Whatever happens, clients are told so in a way that they can deal with. */
function checkTries({ journal }: Observations): Breach[] {
  return journal.messages.flatMap(({ messageId, tries }) =>
    tries
      .filter(({ status }) => status === 500 || status === 501)
      .map(({ status, code }): Breach => ({
        rule: 'internal error',
        messageId,
        text: `was answered ${status} ${code}`,
      })),
  );
}

/** The hub's own books say the same. */
function checkAudit({ audit, ledger }: Observations): Breach[] {
  const breach = (text: string): Breach => ({ rule: 'audit', text });
  const differs = (what: string, found: unknown, right: unknown) =>
    found === right ? [] : [breach(`${what} is ${String(found)}, not ${String(right)}`)];
  const count = (rows: readonly { status: string }[], status: string) =>
    rows.filter((row) => row.status === status).length;
  return [
    ...differs('balanced', audit.balanced, true),
    ...(['messages', 'deliveries'] as const).flatMap((what) => [
      ...differs(`${what}.accepted`, audit[what].accepted, ledger[what].length),
      ...differs(`${what}.delivered`, audit[what].delivered, count(ledger[what], 'delivered')),
      ...differs(`${what}.failed`, audit[what].failed, count(ledger[what], 'failed')),
    ]),
    ...(['mismatched_total', 'overdue', 'gaps_total', 'outbox_events', 'dead_letters_waiting'] as const).flatMap(
      (what) => differs(what, audit[what], 0),
    ),
    ...differs('lag_known', audit.lag_known, true),
    ...audit.lag.flatMap(({ topic, group, events }) => differs(`lag of ${group} on ${topic}`, events, 0)),
  ];
}

function isSameSet(one: readonly string[], other: readonly string[]): boolean {
  const all = new Set(one);
  return all.size === new Set(other).size && one.length === other.length && other.every((each) => all.has(each));
}
