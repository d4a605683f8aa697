import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from '../../client/client.ts';
import { openMemory, opened, type EventJson, type Told } from './told.ts';

/** Somebody who follows their events from some moment on, and comes back whenever that breaks off. */
export interface Follower {
  userId: string;
  /** By `followEvents` of the client, as server-sent events, or by one long poll after the other. */
  way: (typeof ways)[number];
  /** Only of these conversations, and only of these types; all if empty. */
  conversationIds: readonly string[];
  types: readonly string[];
  /** In the order in which it came. */
  told: Told[];
}

export interface Followers {
  all: Follower[];
  /** Never fulfilled; rejected when one of them fails, which none may. */
  failed: Promise<never>;
  stop(): Promise<void>;
}

export interface FollowerOptions {
  /** Of the gateway: some go directly, some over what can be broken. */
  urls: readonly string[];
  /** By user id. */
  tokens: ReadonlyMap<string, string>;
  /** The first conversation is followed alone by one of its members. */
  conversations: readonly { id: string; members: string[] }[];
  /** Milliseconds between signs of life of a stream. */
  heartbeat: number;
  /** Ends all of them at once. */
  signal: AbortSignal;
}

const ways = ['client', 'sse', 'poll'] as const;
/** Milliseconds. */
const pause = 200;
const pollWait = 5_000;
const pollLimit = 12_000;
const missedHeartbeats = 3;
const pageSize = 50;

/** The hub doesn't want to be asked again. */
class Refused extends Error {}

/** Begins to follow: each user in one of the ways, and some of them a second time, choosing among the events. */
export function startFollowers(options: FollowerOptions): Followers {
  const { urls, tokens, conversations, heartbeat, signal } = options;
  const stopping = new AbortController();
  const over = AbortSignal.any([signal, stopping.signal]);
  const remember = openMemory();

  const follower = (userId: string, index: number, chosen: Partial<Follower> = {}): Follower => ({
    userId,
    way: ways[index % ways.length]!,
    conversationIds: [],
    types: [],
    told: [],
    ...chosen,
  });
  const users = [...tokens.keys()];
  const [{ id, members }] = conversations as [FollowerOptions['conversations'][number]];
  const all = [
    ...users.map((userId, index) => follower(userId, index)),
    follower(members[0]!, 1, { conversationIds: [id] }),
    follower(users[0]!, 2, { types: ['message_accepted'] }),
  ];

  const wanted = ({ conversationIds, types }: Follower, more: Record<string, string>) =>
    new URLSearchParams([
      ...Object.entries(more),
      ...conversationIds.map((each): [string, string] => ['conversation_ids', each]),
      ...types.map((each): [string, string] => ['types', each]),
    ]).toString();

  async function byClient({ userId, conversationIds, types, told }: Follower, baseUrl: string): Promise<void> {
    const client = createClient({ baseUrl, token: () => tokens.get(userId) });
    const request = { conversation_ids: [...conversationIds], types: [...types] as never[] };
    for await (const each of client.followEvents(request, { signal: over })) {
      const json = each as unknown as EventJson;
      told.push(each.hello === undefined ? remember(json) : opened('', each.cursor));
    }
  }

  /** One stream, until it ends. @returns the cursor to go on from */
  async function stream(one: Follower, url: string, from: string): Promise<string> {
    const { userId, told } = one;
    let cursor = from;
    const silent = new AbortController();
    const timer = setTimeout(() => silent.abort(), missedHeartbeats * heartbeat);
    try {
      const response = await fetch(`${url}/v1/events?${wanted(one, {})}`, {
        headers: {
          authorization: `Bearer ${tokens.get(userId)}`,
          accept: 'text/event-stream',
          ...(cursor === '' ? {} : { 'last-event-id': cursor }),
        },
        signal: AbortSignal.any([over, silent.signal]),
      });
      if (response.status !== 200) {
        await refused(response);
        return cursor;
      }
      let text = '';
      for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
        timer.refresh();
        const events = `${text}${piece}`.split('\n\n');
        text = events.pop()!;
        for (const event of events) {
          const data = /^data: (.*)$/m.exec(event)?.[1];
          if (data === undefined) continue;
          const json = JSON.parse(data) as EventJson;
          // An error at the end of a stream has none.
          if (json.cursor === undefined) continue;
          if (json['hello'] !== undefined) told.push(opened(cursor, json.cursor));
          else if (json.event_id !== '' || json['reset'] !== undefined) told.push(remember(json));
          cursor = json.cursor;
        }
      }
    } finally {
      clearTimeout(timer);
    }
    return cursor;
  }

  /** One page. @returns the cursor to go on from */
  async function page(one: Follower, url: string, cursor: string): Promise<string> {
    const { userId, told } = one;
    const query = wanted(one, { cursor, limit: String(pageSize), wait: `${pollWait / 1_000}s` });
    const response = await fetch(`${url}/v1/events:list?${query}`, {
      headers: { authorization: `Bearer ${tokens.get(userId)}` },
      signal: AbortSignal.any([over, AbortSignal.timeout(pollLimit)]),
    });
    if (response.status !== 200) {
      await refused(response);
      return cursor;
    }
    const found = (await response.json()) as { events: EventJson[]; cursor: string };
    if (cursor === '' || found.events.length > 0) told.push(opened(cursor, cursor === '' ? found.cursor : cursor));
    told.push(...found.events.map(remember));
    return found.cursor;
  }

  /** @throws Refused if coming again would change nothing */
  async function refused(response: Response): Promise<void> {
    const text = await response.text();
    if (![429, 502, 503, 504].includes(response.status))
      throw new Refused(`${response.url}: ${response.status} ${text}`);
  }

  async function follow(one: Follower, url: string): Promise<void> {
    if (one.way === 'client') return byClient(one, url);
    let cursor = '';
    while (!over.aborted) {
      try {
        cursor = await (one.way === 'sse' ? stream : page)(one, url, cursor);
      } catch (error) {
        if (over.aborted) break;
        if (error instanceof Refused) throw error;
        // What came before the stream broke off was taken: one goes on behind that.
        cursor = one.told.at(-1)?.cursor ?? cursor;
      }
      await sleep(pause, undefined, { signal: over }).catch(() => {});
    }
    signal.throwIfAborted();
  }

  const running = Promise.all(
    all.map((one, index) =>
      follow(one, urls[index % urls.length]!).catch((error: unknown) => {
        if (!stopping.signal.aborted) throw error;
      }),
    ),
  );
  const failed = running.then(() => new Promise<never>(() => {}));
  failed.catch(() => {});
  return {
    all,
    failed,
    async stop() {
      stopping.abort();
      await running;
    },
  };
}
