import { setTimeout as sleep } from 'node:timers/promises';
import { shownTo } from './checker-events.ts';
import type { Clients } from './clients.ts';
import type { Follower, Followers } from './followers.ts';
import type { Movers } from './movers.ts';
import { connect, openReader, rowsOf } from './observe.ts';
import type { Endpoint, Receivers } from './receivers.ts';
import type { System } from './system.ts';
import { cursorAt, openMemory, typeOf, type EventJson, type Told } from './told.ts';

/** A row of the log of events. */
export interface LogRow {
  id: number;
  eventId: string;
  /** Empty for what only one user is told. */
  conversationId: string;
  userId: string;
  /** A field number. */
  type: number;
}

/** What an event says, as users are told it. */
export interface Said {
  type: string;
  conversationId: string;
  /** Of the message, or of the file. */
  subjectId: string;
  /** Of the message, or up to where somebody has read. */
  seq: number;
  status: string;
  /** Of an accepted message. */
  message: { from: string; to: string[]; channels: string[]; text: string; fileId: string } | undefined;
  deliveries: { recipient: string; channel: string; status: string }[];
  /** Whom it is about: who has come, left or read, or the first members. */
  userIds: string[];
}

/** A stretch of the log in which somebody is told what happens in a conversation, both ends included. */
export interface Stretch {
  userId: string;
  conversationId: string;
  fromId: number;
  toId: number | null;
}

/** All that is known of the log of events and of those who are told it, once everything is quiet. */
export interface EventObservations {
  log: LogRow[];
  head: { lastId: number; removedTo: number; epoch: number };
  /** Who may see what, as the service keeps it. */
  stretches: Stretch[];
  /** What `GET /v1/events:list` shows from the beginning of the log on, by user. */
  lists: Map<string, Told[]>;
  /** What the events of the lists say, by id. */
  said: Map<string, Said>;
  followers: Follower[];
  endpoints: Endpoint[];
  /** Of the endpoints, by id. */
  statuses: Map<string, string>;
  /** What is kept for webhooks and should have been sent by now. */
  backlogs: number;
  /** Who is in each conversation now, and how far each has read, as the services that these belong to keep it. */
  members: Map<string, string[]>;
  reads: { conversationId: string; userId: string; seq: number }[];
  movers: Pick<Movers, 'conversationId' | 'moverId' | 'times' | 'readerId' | 'reads'>;
}

export interface EventParties {
  system: System;
  clients: Clients;
  followers: Followers;
  receivers: Receivers;
  movers: Movers;
}

const pageSize = 500;
/** Milliseconds. */
const toldWithin = 30_000;

/** Looks at the log, waits until everybody was told the last of it, or could have been, and ends what follows it. */
export async function observeEvents({
  system,
  clients,
  followers,
  receivers,
  movers,
}: EventParties): Promise<EventObservations> {
  await using database = await connect(system.databaseUrl);
  const { client } = database;
  const [head] = await rowsOf<EventObservations['head']>(
    client,
    `select last_id::int as "lastId", removed_to::int as "removedTo", epoch::float8 as epoch from events.heads where name = 'log'`,
  );
  const [left] = await rowsOf<{ count: number }>(client, 'select count(*)::int as count from events.backlogs');
  const members = await rowsOf<{ conversationId: string; members: string[] }>(
    client,
    `select conversation_id as "conversationId", array_agg(user_id) as members
       from conversation.members where status = 'active' group by 1`,
  );
  const found: EventObservations = {
    log: await rowsOf(
      client,
      `select id::int, event_id as "eventId", coalesce(conversation_id::text, '') as "conversationId",
          coalesce(user_id::text, '') as "userId", type
        from events.log order by id`,
    ),
    head: head!,
    stretches: await rowsOf(
      client,
      `select user_id as "userId", conversation_id as "conversationId", from_id::int as "fromId", to_id::int as "toId"
         from events.members`,
    ),
    lists: new Map(),
    said: new Map(),
    followers: followers.all,
    endpoints: receivers.endpoints,
    statuses: await receivers.statuses(),
    backlogs: left!.count,
    members: new Map(members.map((row) => [row.conversationId, row.members])),
    reads: await rowsOf(
      client,
      `select conversation_id as "conversationId", user_id as "userId", seq::int from message.reads`,
    ),
    movers,
  };
  const rest = openReader(system.url);
  const remember = openMemory();
  for (const [userId, token] of clients.tokens) {
    const all: Told[] = [];
    let cursor = cursorAt({ epoch: head!.epoch, position: 0 });
    for (let more = true; more;) {
      const at = `/v1/events:list?limit=${pageSize}&cursor=${cursor}`;
      const page = (await rest<{ events: EventJson[]; cursor: string; more: boolean }>(at, token))!;
      for (const event of page.events) {
        all.push(remember(event));
        if (!found.said.has(event.event_id)) found.said.set(event.event_id, saidBy(event));
      }
      ({ cursor, more } = page);
    }
    found.lists.set(userId, all);
  }
  const lasts = followers.all.map((follower) => ({ ...follower, last: shownTo(found, follower).at(-1)?.eventId }));
  const isToldAll = () =>
    lasts.every(({ told, last }) => last === undefined || told.some(({ eventId }) => eventId === last));
  for (const giveUp = Date.now() + toldWithin; Date.now() < giveUp && !isToldAll();) await sleep(100);
  await followers.stop();
  return found;
}

interface MessageJson {
  message_id: string;
  conversation_id: string;
  seq: number;
  from: string;
  to: string[];
  channels: string[];
  payload: { text?: string; file_id?: string };
  status: string;
}

/** Any of the events: each has some of these. */
interface What {
  message?: MessageJson;
  conversation?: { conversation_id: string; members: string[] };
  message_id?: string;
  file_id?: string;
  conversation_id?: string;
  user_id?: string;
  seq?: number;
  status?: string;
  deliveries?: Said['deliveries'];
}

function saidBy(json: EventJson): Said {
  const type = typeOf(json);
  const what = json[type] as What;
  const { message, conversation, deliveries = [] } = what;
  return {
    type,
    conversationId: message?.conversation_id ?? conversation?.conversation_id ?? what.conversation_id ?? '',
    subjectId: message?.message_id ?? what.message_id ?? what.file_id ?? '',
    seq: message?.seq ?? what.seq ?? 0,
    status: message?.status ?? what.status ?? '',
    message: message && {
      from: message.from,
      to: message.to,
      channels: message.channels,
      text: message.payload.text ?? '',
      fileId: message.payload.file_id ?? '',
    },
    deliveries: deliveries.map(({ recipient, channel, status }) => ({ recipient, channel, status })),
    userIds: conversation?.members ?? (what.user_id === undefined ? [] : [what.user_id]),
  };
}

/** How many events there were: in the log, told to followers on so many streams and pages, and sent to webhooks. */
export interface EventFigures {
  logged: number;
  told: number;
  openings: number;
  sent: number;
  /** Of those sent: refused or not answered, and taken again. */
  notTaken: number;
  twins: number;
}

export function eventFigures({ log, followers, endpoints }: EventObservations): EventFigures {
  const told = followers.flatMap((follower) => follower.told);
  const openings = told.filter(({ type }) => type === 'opened').length;
  const taken = endpoints.flatMap(({ requests }) => requests.filter((request) => request.taken !== undefined));
  const sent = endpoints.reduce((sum, { requests }) => sum + requests.length, 0);
  const different = endpoints.reduce(
    (sum, { requests }) =>
      sum + new Set(requests.flatMap((request) => (request.taken === undefined ? [] : [request.told.eventId]))).size,
    0,
  );
  return {
    logged: log.length,
    told: told.length - openings,
    openings,
    sent,
    notTaken: sent - taken.length,
    twins: taken.length - different,
  };
}
