import { open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { commands } from '../bench/hub.ts';
import { openRemote } from '../bench/remote.ts';
import { createClient } from '../../client/client.ts';
import { eventually } from '../eventually.ts';
import { openRest, type MessageDetails, type Problem, type Token } from '../rest.ts';
import { ended, messageOf, openConversation, type Person } from './meshes.ts';

/** A hub as `npm start` runs it, each part in a process of its own. */
export interface ProcessHub {
  url: string;
  /** By service. */
  grpcPorts: Record<string, number>;
  /** Of an administrator of the database. */
  databaseUrl: string;
  people: readonly Person[];
  /** Kills one process (SIGKILL), which the hub starts again. */
  kill(name: string): Promise<void>;
  /** Lets one process stop in order; fulfilled once it is there again. */
  restart(name: string): Promise<void>;
  /** The processes that run now, by name. */
  pids(): Promise<Record<string, number>>;
  /** What its processes have written so far, as far as it is JSON. */
  lines(): Promise<string[]>;
  stop(): Promise<void>;
}

const startLimit = 90_000;
const password = 'password123';

/** Starts a hub with its data in `folder`, with several processes of each service. What `env` leaves out is embedded. */
export async function startProcessHub(
  folder: string,
  env: Record<string, string>,
  replicas?: number,
): Promise<ProcessHub> {
  const logFile = path.join(folder, 'hub.log');
  const log = await open(logFile, 'a');
  const ending = new AbortController();
  const file = path.resolve(import.meta.dirname, '../bench/hub.ts');
  const hub = openRemote<typeof commands>(file, log.fd, ending.signal);
  await log.close();
  try {
    const { url, grpcPorts, databaseUrl } = await hub.ask(
      'start',
      {
        dataDir: path.join(folder, 'data'),
        replicas,
        env: {
          DATABASE_URL: undefined,
          KAFKA_BROKERS: undefined,
          SEED_USERS: '5',
          BCRYPT_COST: '10',
          LOG_FORMAT: 'json',
          LOG_LEVEL: 'info',
          ...env,
        },
      },
      startLimit,
    );
    return {
      url,
      grpcPorts,
      databaseUrl,
      people: await Promise.all([1, 2, 3, 4, 5].map((number) => login(url, `user${number}`))),
      async kill(name) {
        const pids = await hub.ask('pids', undefined as never, 5_000);
        process.kill(pids[name]!, 'SIGKILL');
      },
      restart: (name) => hub.ask('restart', name, startLimit),
      pids: () => hub.ask('pids', undefined as never, 5_000),
      async lines() {
        return (await readFile(logFile, 'utf8')).split('\n').filter((line) => line.startsWith('{'));
      },
      stop: () => hub.stop(),
    };
  } catch (error) {
    await hub.stop();
    throw new Error(`The hub doesn't start:\n${(await readFile(logFile, 'utf8')).slice(-3_000)}`, { cause: error });
  }
}

async function login(url: string, username: string): Promise<Person> {
  const { token, user_id: userId } = await openRest(url).post<Token>('/auth/token', { username, password });
  return { userId, username, rest: openRest(url, token) };
}

/** One try to send. */
export interface Attempt {
  /** When it began, in milliseconds since the epoch. */
  at: number;
  status: number;
  /** The seconds that the answer says to wait, if it does. */
  retryAfter: number | undefined;
}

/** People who write to each other all the time, as clients do that don't give up. */
export interface Senders {
  attempts: Attempt[];
  /** What was accepted, by conversation, in the order of acceptance. */
  accepted: Map<string, { messageId: string; at: number }[]>;
  reader: Person;
  /** Sends one more message and waits until it is delivered: then everything works. */
  oneMore(): Promise<MessageDetails>;
  /** Stops once the last message of each is accepted. */
  stop(): Promise<void>;
}

const pace = 250;
const patience = 60_000;

/**
 * Lets user1 write to each of the others, a message every 250 ms or so. What is refused with 503 or 504 is sent again,
 * with its id, until it is accepted.
 */
export async function startSenders(people: readonly Person[]): Promise<Senders> {
  const [writer, ...others] = people as [Person, ...Person[]];
  const ids = await Promise.all(others.map((other) => openConversation([writer, other])));
  const attempts: Attempt[] = [];
  const accepted = new Map<string, { messageId: string; at: number }[]>(ids.map((id) => [id, []]));
  let stopping = false;

  async function sendOne(id: string): Promise<string> {
    const json = messageOf(writer, id);
    const began = Date.now();
    for (;;) {
      const at = Date.now();
      const { status, body } = await writer.rest.call('POST', '/v1/messages', { json });
      attempts.push({ at, status, retryAfter: (body as Partial<Problem>).retry_after });
      if (status === 200) {
        accepted.get(id)!.push({ messageId: json.message_id, at });
        return json.message_id;
      }
      if (status !== 503 && status !== 504) throw new Error(`POST /v1/messages: ${status} ${JSON.stringify(body)}`);
      if (Date.now() > began + patience) throw new Error(`Not accepted for ${patience} ms: ${JSON.stringify(body)}`);
      await sleep(pace);
    }
  }

  const running = Promise.all(
    ids.map(async (id) => {
      while (!stopping) {
        await sendOne(id);
        await sleep(pace);
      }
    }),
  );
  // Whoever stops them hears of it.
  running.catch(() => {});
  const count = () => [...accepted.values()].reduce((sum, some) => sum + some.length, 0);
  await Promise.race([running, eventually('messages are accepted', count, (found) => found >= 20)]);

  return {
    attempts,
    accepted,
    reader: writer,
    async oneMore() {
      return ended({ ...writer, rest: patient(writer) }, await sendOne(ids[0]!), patience);
    },
    async stop() {
      stopping = true;
      await running;
    },
  };
}

/** Reads are tried again while the hub can't answer: what accepted a message may go away in the next moment. */
function patient({ rest }: Person): Person['rest'] {
  const { fetch: once } = rest.clientOptions;
  const again: typeof fetch = (target, init) => {
    const isAnswer = ({ status }: Response) => status !== 503 && status !== 504;
    return eventually(`${init?.method ?? 'GET'} ${target as string}`, () => once!(target, init), isAnswer, patience);
  };
  return { ...rest, client: createClient({ ...rest.clientOptions, fetch: again }) };
}
