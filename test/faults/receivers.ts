import { Webhook } from 'standardwebhooks';
import type { Receiver } from '../webhook-receiver.ts';
import { openRandom } from './random.ts';
import { openMemory, type EventJson, type Told } from './told.ts';

/** A webhook of a user, and what it was sent. */
export interface Endpoint {
  webhookId: string;
  userId: string;
  /** Only of these conversations, and only of these types; all if empty. */
  conversationIds: readonly string[];
  types: readonly string[];
  /** Cursors from before and after it was made. What has happened between the two may be sent. */
  before: string;
  after: string;
  requests: HookRequest[];
}

export interface HookRequest {
  told: Told;
  /** Whether its signature is right, and its headers and type say the same as its data. */
  isRight: boolean;
  /** When it came, and when it was taken if it was: all that receivers see happen is numbered through. */
  came: number;
  taken: number | undefined;
}

export interface Receivers {
  endpoints: Endpoint[];
  /** From now on all of them take what they are sent. */
  recover(): void;
  /** The status of each endpoint as its user is shown it, by id. */
  statuses(): Promise<Map<string, string>>;
}

export interface ReceiverOptions {
  /** Of the gateway. */
  url: string;
  /** Where the hub finds the receiver. */
  port: number;
  receiver: Receiver;
  seed: number;
  /** By user id. */
  tokens: ReadonlyMap<string, string>;
  conversations: readonly { id: string; members: string[] }[];
  signal: AbortSignal;
}

/** Milliseconds. */
const callLimit = 30_000;
const away = [500, 2_500] as const;
const slow = [100, 1_500] as const;

/** Makes webhooks whose receivers fail now and then: they refuse, are slow, are away, take something and don't say so. */
export async function startReceivers(options: ReceiverOptions): Promise<Receivers> {
  const { url, receiver, seed, tokens, conversations, signal } = options;
  const random = openRandom(seed);
  const remember = openMemory();
  const endpoints: Endpoint[] = [];
  const secrets: Webhook[] = [];
  let isWell = false;
  let count = 0;
  const awayUntil = new Map<string, number>();

  async function call<Body>(userId: string, method: string, at: string, body?: object): Promise<Body> {
    const response = await fetch(`${url}${at}`, {
      method,
      headers: { authorization: `Bearer ${tokens.get(userId)}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.any([signal, AbortSignal.timeout(callLimit)]),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${at}: ${response.status} ${text}`);
    return JSON.parse(text) as Body;
  }

  async function make(userId: string, chosen: { conversationIds?: string[]; types?: string[] } = {}): Promise<void> {
    const { conversationIds = [], types = [] } = chosen;
    const hook = new URL(`${receiver.url}/${endpoints.length}`);
    hook.port = String(options.port);
    const cursor = async () => (await call<{ cursor: string }>(userId, 'GET', '/v1/events:list')).cursor;
    const endpoint = { webhookId: '', userId, conversationIds, types, before: await cursor(), after: '', requests: [] };
    // Something may come before the answer.
    endpoints.push(endpoint);
    const { webhook, secret } = await call<{ webhook: { webhook_id: string }; secret: string }>(
      userId,
      'POST',
      '/v1/webhooks',
      { url: hook.href, types, conversation_ids: conversationIds },
    );
    secrets.push(new Webhook(secret));
    Object.assign(endpoint, { webhookId: webhook.webhook_id, after: await cursor() });
  }

  receiver.answer = (response, { path, headers, body, event }) => {
    receiver.received.length = 0;
    const number = Number(path.slice(1));
    const { requests } = endpoints[number]!;
    // Its secret isn't known yet.
    if (secrets[number] === undefined) return void response.writeHead(503).end();
    const data = event.data as EventJson;
    let isRight = true;
    try {
      secrets[number].verify(body, headers as Record<string, string>);
    } catch {
      isRight = false;
    }
    const told = remember(data);
    isRight &&= headers['webhook-id'] === told.eventId && event.type === told.type.replace('_', '.');
    const request: HookRequest = { told, isRight, came: (count += 1), taken: undefined };
    requests.push(request);
    const take = (answer: () => void) => {
      request.taken ??= count += 1;
      answer();
    };
    const chance = isWell ? 1 : random.next();
    if (Date.now() < (awayUntil.get(path) ?? 0)) response.destroy();
    else if (chance < 0.005) {
      awayUntil.set(path, Date.now() + random.between(...away));
      response.destroy();
    } else if (chance < 0.03) response.writeHead(500).end();
    else if (chance < 0.035) response.writeHead(503, { 'retry-after': '1' }).end();
    else if (chance < 0.045) take(() => response.destroy());
    else if (chance < 0.1) setTimeout(() => take(() => response.writeHead(200).end()), random.between(...slow));
    else take(() => response.writeHead(204).end());
  };

  const users = [...tokens.keys()];
  const [{ id, members }] = conversations as [ReceiverOptions['conversations'][number]];
  await make(users[0]!);
  await make(users[1]!);
  await make(users[2]!, { types: ['message_accepted', 'delivery_changed'] });
  await make(members[1]!, { conversationIds: [id] });

  return {
    endpoints,
    recover() {
      isWell = true;
      awayUntil.clear();
    },
    async statuses() {
      const owners = new Set(endpoints.map(({ userId }) => userId));
      const lists = await Promise.all(
        [...owners].map((userId) =>
          call<{ webhooks: { webhook_id: string; status: string }[] }>(userId, 'GET', '/v1/webhooks'),
        ),
      );
      return new Map(lists.flatMap(({ webhooks }) => webhooks.map((each) => [each.webhook_id, each.status] as const)));
    },
  };
}
