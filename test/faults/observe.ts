import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client as S3 } from 'minio';
import pg from 'pg';
import type { Clients } from './clients.ts';
import type { Audit, Effect, Files, Ledger, ListedMessage, Observations, ReadMessage } from './observations.ts';
import type { System } from './system.ts';
import { readTopics } from './topics.ts';

/** How many questions are asked over REST at once. */
const atOnce = 16;
const pageSize = 100;
/** Milliseconds. */
const callLimit = 20_000;
const statementLimit = 60_000;
const auditLimit = 20_000;
const acknowledgedWithin = 10_000;

/** Looks at everything since a moment. The hub must be whole, and nothing be sent any more. */
export async function observe(system: System, clients: Clients, since: Date): Promise<Observations> {
  const { journal, conversations, tokens } = clients;
  await using database = await connect(system.databaseUrl);
  const [ledger, fileRows, leftOnBus] = [
    await readLedger(database.client),
    await readFiles(database.client),
    system.kafkaBrokers === undefined ? await readBus(database.client) : undefined,
  ];
  const rest = openReader(system.url);
  const token = (userId: string) => tokens.get(userId)!;

  const read = new Map<string, ReadMessage>();
  const readable = journal.messages.filter(({ lane, told }) => lane >= 0 || told !== 'refused');
  await inParallel(readable, async ({ messageId, senderId }) => {
    const found = await rest<ReadMessage>(`/v1/messages/${messageId}`, token(senderId));
    if (found !== undefined) read.set(messageId, found);
  });
  const listed = new Map<string, ListedMessage[]>();
  await inParallel(conversations, async ({ id, members }) => {
    const all: ListedMessage[] = [];
    for (;;) {
      const at = `/v1/conversations/${id}/messages?order=asc&limit=${pageSize}&offset=${all.length}`;
      const page = await rest<{ messages: ListedMessage[] }>(at, token(members[0]!));
      all.push(...(page?.messages ?? []).map(({ message_id, seq, status }) => ({ message_id, seq, status })));
      if ((page?.messages.length ?? 0) < pageSize) break;
    }
    listed.set(id, all);
  });
  const downloads = new Map<string, string>();
  const completed = journal.files.filter(({ told }) => told === 'completed');
  await inParallel(completed, async ({ fileId, ownerId }) => {
    downloads.set(fileId, await download(`${system.url}/v1/files/${fileId}/content`, token(ownerId)));
  });

  return {
    journal,
    read,
    listed,
    ledger,
    effects: await readEffects(database.client),
    audit: await readAudit(system.url, token(clients.administrator), since),
    records: system.kafkaBrokers === undefined ? undefined : await readTopics(system.kafkaBrokers),
    leftOnBus,
    files: { ...fileRows, ...(await readStore(system)) },
    downloads,
  };
}

/** A connection of one's own, past every proxy. */
export async function connect(url: string): Promise<{ client: pg.Client } & AsyncDisposable> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: 10_000,
    statement_timeout: statementLimit,
    query_timeout: statementLimit + 1_000,
  });
  client.on('error', () => {});
  await client.connect();
  return { client, [Symbol.asyncDispose]: () => client.end().catch(() => {}) };
}

export async function rowsOf<Row>(client: pg.Client, statement: string): Promise<Row[]> {
  return (await client.query(statement)).rows as Row[];
}

async function countOf(client: pg.Client, statement: string): Promise<number> {
  const [row] = await rowsOf<{ count: string }>(client, statement);
  return Number(row!.count);
}

async function readLedger(client: pg.Client): Promise<Ledger> {
  const withoutMessage = (table: string) =>
    countOf(
      client,
      `select count(*) from ${table} t where not exists (select from message.messages m where m.message_id = t.message_id)`,
    );
  return {
    messages: await rowsOf(
      client,
      `select message_id as "messageId", conversation_id as "conversationId", seq::int, status,
          extract(epoch from created_at)::float8 * 1000 as "createdAt", extract(epoch from updated_at)::float8 * 1000 as "endedAt"
        from message.messages order by conversation_id, seq`,
    ),
    deliveries: await rowsOf(
      client,
      `select message_id as "messageId", recipient_id as "recipientId", channel, status, error from message.deliveries`,
    ),
    heads: await rowsOf(
      client,
      `select conversation_id as "conversationId", last_seq::int as "lastSeq" from message.conversation_heads`,
    ),
    routes: (await rowsOf<{ id: string }>(client, 'select message_id as id from router.routes')).map(({ id }) => id),
    attempts: await rowsOf(
      client,
      `select message_id as "messageId", recipient_id as "recipientId", channel, delivered from connectors.deliveries`,
    ),
    outbox: await countOf(client, 'select count(*) from message.outbox'),
    strays: {
      'message.deliveries': await withoutMessage('message.deliveries'),
      'message.status_changes': await withoutMessage('message.status_changes'),
      'message.open_messages': await withoutMessage('message.open_messages'),
    },
  };
}

/**
 * Events that a group does not acknowledge, dead letters included. A network may report late, or what it has reported before: that is on the
 * bus for a moment, whenever somebody looks.
 */
async function readBus(client: pg.Client): Promise<Record<string, number>> {
  for (const giveUp = Date.now() + acknowledgedWithin; ; await sleep(100)) {
    const rows = await rowsOf<{ name: string; count: string }>(
      client,
      `select g.topic || '/' || g.consumer_group as name, sum(p.last + 1 - g.next) as count
         from bus.progress g join bus.partitions p using (topic, partition)
        group by 1 having sum(p.last + 1 - g.next) > 0`,
    );
    if (rows.length === 0 || Date.now() > giveUp) {
      return Object.fromEntries(rows.map(({ name, count }) => [name, Number(count)]));
    }
  }
}

async function readFiles(
  client: pg.Client,
): Promise<Pick<Files, 'rows' | 'removals' | 'laterRemovals' | 'unusedContents'>> {
  const keys = async (statement: string) => (await rowsOf<{ key: string }>(client, statement)).map(({ key }) => key);
  return {
    rows: await rowsOf(
      client,
      `select file_id as "fileId", status, storage_key as "storageKey",
          extract(epoch from now() - updated_at)::float8 * 1000 as idle
        from file.files left join file.contents using (checksum)`,
    ),
    removals: await keys(`select storage_key as key from file.removals where due_at < now() - interval '30 seconds'`),
    laterRemovals: await keys(
      `select storage_key as key from file.removals where due_at >= now() - interval '30 seconds'`,
    ),
    unusedContents: await keys(
      `select storage_key as key from file.contents c
        where not exists (select from file.files f where f.checksum = c.checksum)`,
    ),
  };
}

/** What the store itself has, as it lists it. */
async function readStore({ minio, filesDir }: System): Promise<Pick<Files, 'objects' | 'unfinished'>> {
  if (filesDir !== undefined) {
    const names = async (folder: string) =>
      existsSync(path.join(filesDir, folder)) ? readdir(path.join(filesDir, folder)) : [];
    const keys = [...(await names('uploads')), ...(await names('removed'))];
    return { objects: await names('objects'), unfinished: { count: keys.length, keys } };
  }
  const { endpoint, accessKey, secretKey, folder } = minio!;
  const { hostname: endPoint, port } = new URL(endpoint);
  const s3 = new S3({ endPoint, port: Number(port), useSSL: false, accessKey, secretKey });
  const objects: string[] = [];
  for (const { name: bucket } of await s3.listBuckets()) {
    for await (const { name } of s3.listObjectsV2(bucket, '', true)) objects.push(name as string);
  }
  // S3 lists unfinished uploads, but MinIO only by the whole key: on its disk each of them is a folder in that of its key.
  const uploads = path.join(folder, '.minio.sys/multipart');
  const hashes = existsSync(uploads) ? await readdir(uploads) : [];
  const ids = await Promise.all(hashes.map((hash) => readdir(path.join(uploads, hash))));
  return { objects, unfinished: { count: ids.flat().length, keys: undefined } };
}

/** What the networks have taken, in the order in which they did. */
function readEffects(client: pg.Client): Promise<Effect[]> {
  return rowsOf(
    client,
    `select idempotency_key as key, message_id as "messageId", recipient_id as "recipientId", channel, requests
      from connectors.provider_effects order by id`,
  );
}

/** The hub's own books, once they are closed, or as they are after a while. */
async function readAudit(url: string, token: string, since: Date): Promise<Audit> {
  const rest = openReader(url);
  const to = new Date();
  const read = async (from: string): Promise<Audit> => {
    const at = `/v1/admin/audit?from=${from}&to=${to.toISOString()}`;
    const audit = await rest<Audit & { next: string | null }>(at, token);
    if (audit === undefined) throw new Error(`GET ${at}: 404`);
    return audit.next === null ? audit : added(audit, await read(audit.next));
  };
  for (const giveUp = Date.now() + auditLimit; ; await sleep(200)) {
    const audit = await read(since.toISOString());
    const isClosed = audit.lag_known && audit.lag.every(({ events }) => events === 0);
    if (isClosed || Date.now() > giveUp) return audit;
  }
}

/** The books of one part of a period and of the next. */
function added(one: Audit, next: Audit): Audit {
  const balance = (what: 'messages' | 'deliveries') => ({
    accepted: one[what].accepted + next[what].accepted,
    delivered: one[what].delivered + next[what].delivered,
    failed: one[what].failed + next[what].failed,
    in_flight: one[what].in_flight + next[what].in_flight,
  });
  return {
    ...next,
    balanced: one.balanced && next.balanced,
    messages: balance('messages'),
    deliveries: balance('deliveries'),
    mismatched_total: one.mismatched_total + next.mismatched_total,
    overdue: one.overdue + next.overdue,
    gaps_total: one.gaps_total + next.gaps_total,
  };
}

/** Reads over REST. @returns undefined if there is no such thing for this user */
export function openReader(url: string) {
  return async <Body>(at: string, token: string): Promise<Body | undefined> => {
    const response = await fetch(`${url}${at}`, {
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(callLimit),
    });
    const text = await response.text();
    if (response.status === 200) return JSON.parse(text) as Body;
    if (response.status === 404) return undefined;
    throw new Error(`GET ${at}: ${response.status} ${text}`);
  };
}

/** @returns the SHA-256 of what is read, or why nothing is */
async function download(url: string, token: string): Promise<string> {
  try {
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(callLimit),
    });
    if (response.status !== 200) return `${response.status} ${await response.text()}`;
    return createHash('sha256')
      .update(Buffer.from(await response.arrayBuffer()))
      .digest('hex');
  } catch (error) {
    return String(error);
  }
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (const item of left) await work(item);
    }),
  );
}
