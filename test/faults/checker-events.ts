import type { Breach, Rule } from './breach.ts';
import type { Follower } from './followers.ts';
import type { EventObservations, LogRow, Said, Stretch } from './observe-events.ts';
import type { Endpoint } from './receivers.ts';
import { placeOf, type Told } from './told.ts';

/** Whose events, and which of them: all that this user may see, if nothing is chosen. */
export type Choice = Pick<Follower, 'userId' | 'conversationIds' | 'types'>;

const names: Record<number, string> = {
  20: 'message_accepted',
  21: 'delivery_changed',
  22: 'message_read',
  23: 'conversation_created',
  24: 'member_joined',
  25: 'member_left',
  26: 'file_completed',
  27: 'webhook_paused',
};

/** The log has no holes, and everybody was told all of it that they may see, in its order, and nothing else. */
export function checkEvents(found: EventObservations): Breach[] {
  const book = open(found);
  return [
    ...checkPlaces(found),
    ...checkStretches(found),
    ...checkLists(book),
    ...found.followers.flatMap((follower) => checkFollower(book, follower)),
    ...found.endpoints.flatMap((endpoint) => checkEndpoint(book, endpoint)),
    ...(found.backlogs > 0
      ? [breach('not ended', `${found.backlogs} backlogs of webhooks are still to be delivered`)]
      : []),
  ];
}

/** The log, and what its events say, by id. */
interface Book {
  found: EventObservations;
  rows: Map<string, LogRow>;
  digests: Map<string, string>;
}

function open(found: EventObservations): Book {
  return {
    found,
    rows: new Map(found.log.map((row) => [row.eventId, row])),
    digests: new Map([...found.lists.values()].flat().map(({ eventId, digest }) => [eventId, digest])),
  };
}

function breach(rule: Rule, text: string, said?: Said): Breach {
  const isOfMessage = said?.type === 'message_accepted' || said?.type === 'delivery_changed';
  return { rule, text, ...(isOfMessage ? { messageId: said.subjectId } : {}) };
}

/** Events of one lane have an order: those of a conversation, or those that only one user is told. */
function laneOf({ conversationId, userId }: LogRow): string {
  return conversationId === '' ? userId : conversationId;
}

/** The part of the log that somebody may see, by what its own events say of who came and left. */
export function shownTo(found: Pick<EventObservations, 'log' | 'said'>, choice: Choice): LogRow[] {
  const { userId, conversationIds, types } = choice;
  const isIn = new Set<string>();
  return found.log.filter((row) => {
    const { conversationId } = row;
    const said = found.said.get(row.eventId);
    const isAboutUser = said?.userIds.includes(userId) === true;
    if (isAboutUser && (said.type === 'conversation_created' || said.type === 'member_joined'))
      isIn.add(conversationId);
    const isShown = conversationId === '' ? row.userId === userId : isIn.has(conversationId);
    if (isAboutUser && said.type === 'member_left') isIn.delete(conversationId);
    return (
      isShown &&
      (conversationIds.length === 0 || conversationIds.includes(conversationId)) &&
      (types.length === 0 || types.includes(names[row.type]!))
    );
  });
}

/** Ids have no gaps, each event is there once, and each conversation begins with its opening. */
function checkPlaces({ log, head, said }: EventObservations): Breach[] {
  const breaches: Breach[] = [];
  const seen = new Set<string>();
  const begun = new Set<string>();
  const wrong = log.findIndex(({ id }, index) => id !== head.removedTo + index + 1);
  if (wrong !== -1) {
    breaches.push(breach('gap', `the log of events has ${log[wrong]!.id} where ${head.removedTo + wrong + 1} is due`));
  }
  const last = log.at(-1)?.id ?? head.removedTo;
  if (head.lastId !== last) breaches.push(breach('gap', `the log ends with ${last}, and its head is ${head.lastId}`));
  for (const { id, eventId, conversationId, type } of log) {
    const what = said.get(eventId);
    if (seen.has(eventId)) breaches.push(breach('doubled', `event ${eventId} is in the log again, as ${id}`, what));
    seen.add(eventId);
    if (what === undefined) {
      breaches.push(breach('lost', `event ${id} (${names[type]}) is in the log, and nobody is shown it`));
      continue;
    }
    if (what.type !== names[type] || what.conversationId !== conversationId) {
      breaches.push(breach('changed', `event ${id} is kept as ${names[type]} of ${conversationId}`, what));
    }
    if (conversationId !== '' && (what.type === 'conversation_created') === begun.has(conversationId)) {
      breaches.push(breach('order', `event ${id} (${what.type}): ${conversationId} was not opened once, before`, what));
    }
    begun.add(conversationId);
    if (what.type === 'webhook_paused') breaches.push(breach('failed', `event ${id}: a webhook was paused`));
  }
  return breaches;
}

/** Who may see what is kept as the log itself says it. */
function checkStretches({ log, said, stretches }: EventObservations): Breach[] {
  const right: Stretch[] = [];
  const current = new Map<string, Stretch>();
  for (const { id: fromId, eventId, conversationId } of log) {
    const { type = '', userIds = [] } = said.get(eventId) ?? {};
    for (const userId of userIds) {
      const key = `${conversationId} ${userId}`;
      const stretch = current.get(key);
      if (type === 'member_left' && stretch !== undefined) stretch.toId = fromId;
      if (type === 'member_left') current.delete(key);
      if ((type !== 'conversation_created' && type !== 'member_joined') || stretch !== undefined) continue;
      const begun = { userId, conversationId, fromId, toId: null };
      right.push(begun);
      current.set(key, begun);
    }
  }
  const textOf = ({ userId, conversationId, fromId, toId }: Stretch) =>
    `${userId} sees ${conversationId} from ${fromId} to ${toId ?? 'the end'}`;
  const [kept, due] = [new Set(stretches.map(textOf)), new Set(right.map(textOf))];
  return [
    ...[...due].filter((text) => !kept.has(text)).map((text) => breach('books', `it is not kept that ${text}`)),
    ...[...kept].filter((text) => !due.has(text)).map((text) => breach('books', `it is kept that ${text}`)),
  ];
}

/** Over REST everybody is shown what they may see, all of it, in the order of the log. */
function checkLists({ found, digests }: Book): Breach[] {
  return [...found.lists].flatMap(([userId, list]) => {
    const shown = shownTo(found, { userId, conversationIds: [], types: [] });
    const wrong = shown.findIndex((row, index) => !isAt(list[index], row, found));
    const breaches = list
      .filter(({ eventId, digest }) => digests.get(eventId) !== digest)
      .map(({ eventId }) => breach('changed', `${userId} is shown event ${eventId} as others are not`));
    if (wrong !== -1 || list.length !== shown.length) {
      const row = shown[wrong];
      const text = `${userId} is shown ${list.length} events of ${shown.length}; the first that differs is event ${row?.id ?? list[shown.length]?.cursor}`;
      breaches.push(breach(list.length > shown.length ? 'forged' : 'lost', text, found.said.get(row?.eventId ?? '')));
    }
    return breaches;
  });
}

function isAt(told: Told | undefined, { id, eventId }: LogRow, { head }: EventObservations): boolean {
  const { epoch, position } = placeOf(told?.cursor ?? '');
  return told?.eventId === eventId && position === id && epoch === head.epoch;
}

/** What is wrong with an event that somebody was told, by itself. */
function wrongOf({ found, rows, digests }: Book, told: Told, shown: ReadonlySet<string>): [Rule, string] | undefined {
  const row = rows.get(told.eventId);
  if (row === undefined) return ['forged', 'is not in the log'];
  if (!shown.has(told.eventId)) return ['forged', 'is none that they may see, or have chosen'];
  if (!isAt(told, row, found)) return ['changed', `has the cursor ${told.cursor}, and is event ${row.id}`];
  if (digests.get(told.eventId) !== told.digest) return ['changed', 'says something else than the log does'];
  return undefined;
}

/**
 * From where they began, a follower was told all that they may see. Of each conversation it came in the order of the log, if what came
 * again is left out; on one stream all of it came in that order, and once. Only a `reset` for which there is a reason excuses a hole.
 */
function checkFollower(book: Book, follower: Follower): Breach[] {
  const { found, rows } = book;
  const { userId, way, told } = follower;
  const breaches: Breach[] = [];
  const complain = (rule: Rule, text: string, eventId = '') =>
    breaches.push(breach(rule, `${userId}, who follows by ${way}: ${text}`, found.said.get(eventId)));
  const [begun] = told;
  if (begun?.type !== 'opened') {
    complain('lost', 'was never told where the log ends');
    return breaches;
  }
  const start = placeOf(begun.cursor).position;
  const shown = shownTo(found, follower);
  const shownIds = new Set(shown.map(({ eventId }) => eventId));
  const missing = new Map(shown.filter(({ id }) => id > start).map((row) => [row.eventId, row]));
  const seen = new Set<string>();
  const lanes = new Map<string, number>();
  /** Up to where this stream has told, and up to where any has. */
  let at = start;
  let reached = start;
  for (const [index, one] of told.entries()) {
    const { position } = placeOf(one.cursor);
    if (one.type === 'opened') {
      const asked = one.digest;
      if (asked !== '' && asked !== one.cursor && told[index + 1]?.type !== 'reset') {
        complain('lost', `asked for what is behind ${asked}, and was taken to ${one.cursor} without a word`);
      }
      at = position;
    } else if (one.type === 'reset') {
      const { lastId, removedTo, epoch } = found.head;
      const isRight = reached < removedTo || reached > lastId || placeOf(begun.cursor).epoch !== epoch;
      if (!isRight)
        complain('lost', `was told to load all anew behind event ${reached}, though the log has what follows`);
      for (const { id, eventId } of shown) if (id > reached && id <= position) missing.delete(eventId);
      at = reached = position;
    } else {
      const wrong = wrongOf(book, one, shownIds);
      if (wrong !== undefined) complain(wrong[0], `event ${one.eventId} ${wrong[1]}`, one.eventId);
      const row = rows.get(one.eventId);
      if (row === undefined) continue;
      const lane = laneOf(row);
      const isTwin = seen.has(one.eventId);
      if (row.id <= at) {
        complain(isTwin ? 'doubled' : 'order', `event ${row.id} came behind event ${at} on one stream`, one.eventId);
      } else if (!isTwin && row.id < (lanes.get(lane) ?? 0)) {
        complain('order', `event ${row.id} came behind event ${lanes.get(lane)} of ${lane}`, one.eventId);
      }
      seen.add(one.eventId);
      missing.delete(one.eventId);
      lanes.set(lane, Math.max(lanes.get(lane) ?? 0, row.id));
      at = Math.max(at, row.id);
      reached = Math.max(reached, row.id);
    }
  }
  for (const { id, eventId, type } of missing.values()) {
    complain('lost', `was never told event ${id} (${names[type]})`, eventId);
  }
  return breaches;
}

/**
 * From when it was made, a webhook has taken all that its owner may see and that it chose. The next event of a conversation came only once
 * all before it were taken. Everything was signed.
 */
function checkEndpoint(book: Book, endpoint: Endpoint): Breach[] {
  const { found } = book;
  const { webhookId, requests } = endpoint;
  const breaches: Breach[] = [];
  const complain = (rule: Rule, text: string, eventId = '') =>
    breaches.push(breach(rule, `webhook ${webhookId}: ${text}`, found.said.get(eventId)));
  const [before, after] = [placeOf(endpoint.before).position, placeOf(endpoint.after).position];
  const shown = shownTo(found, endpoint).filter(({ id }) => id > before);
  const shownIds = new Set(shown.map(({ eventId }) => eventId));
  /** When each event first came, and when it was first taken. */
  const came = new Map<string, number>();
  const taken = new Map<string, number>();
  for (const { told, isRight, ...when } of requests) {
    if (!isRight) complain('forged', `event ${told.eventId} has no right signature, or a wrong header`, told.eventId);
    if (told.type === 'reset') {
      complain('lost', 'its owner was told to load all anew');
      continue;
    }
    const wrong = wrongOf(book, told, shownIds);
    if (wrong !== undefined) complain(wrong[0], `event ${told.eventId} ${wrong[1]}`, told.eventId);
    came.set(told.eventId, Math.min(when.came, came.get(told.eventId) ?? Infinity));
    if (when.taken !== undefined) taken.set(told.eventId, Math.min(when.taken, taken.get(told.eventId) ?? Infinity));
  }
  for (const { id, eventId, type } of shown) {
    if (id > after && !taken.has(eventId)) complain('lost', `event ${id} (${names[type]}) was never taken`, eventId);
  }
  const due = shown.filter(({ id, eventId }) => id > after || came.has(eventId));
  for (const [lane, some] of Map.groupBy(due, laneOf)) {
    const wrong = some.find(({ eventId }, index) => {
      const own = came.get(eventId) ?? Infinity;
      return index > 0 && own < (taken.get(some[index - 1]!.eventId) ?? Infinity);
    });
    if (wrong !== undefined) complain('order', `event ${wrong.id} of ${lane} came too early`, wrong.eventId);
  }
  const status = found.statuses.get(webhookId);
  if (status !== 'active') complain('failed', `is ${status}`);
  return breaches;
}
