import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { startPostgres } from '../../dev/engines/postgres.ts';
import { openDatabase } from '#lib/database.ts';
import { migrateDatabase, provisionDatabase } from '#lib/database-migrations.ts';
import type { NewMessage } from '../../services/message/messages/acceptance-store.ts';
import { balances, openAudit } from '../../services/message/operations/audit.ts';
import { fingerprintOf, timesOf, type Draft } from '../../services/message/message.ts';
import { openStore } from '../../services/message/messages/store.ts';
import { database as definition } from '../../services/message/database.ts';
import { percentiles, type Percentiles } from './percentiles.ts';

/** What the message service's tables cost when there is a lot in them. */
export interface StorageReport {
  /** Messages in the database, and in its largest conversation. */
  messages: number;
  largest: number;
  fillSeconds: number;
  /** Bytes a message, with its delivery and all indexes. */
  bytes: number;
  /** Milliseconds, in a conversation of a thousand and in the largest one. */
  accept: Sizes;
  newestPage: Sizes;
  middlePage: Sizes;
  /** Of the period in which they all were accepted. */
  audit: { messages: number; seconds: number; calls: number; balanced: boolean };
  /** Milliseconds that accepting takes while nothing else is done, and during the audit. */
  acceptBeside: { alone: Percentiles; audit: Percentiles };
  problems: string[];
}

interface Sizes {
  small: Percentiles;
  large: Percentiles;
}

const small = 1_000;
/** Of the others, by twos: each second number of a message is in the largest one. */
const conversations = 1_000;
const rounds = 300;
const pageSize = 50;

/** Fills a database with `messages` in all, half of them in one conversation, and measures it. */
export async function measureStorage(folder: string, messages: number, signal: AbortSignal): Promise<StorageReport> {
  await using started = new AsyncDisposableStack();
  const server = await startPostgres({ dataDir: path.join(folder, 'postgres') });
  started.defer(() => server.stop());
  await provisionDatabase(server.adminUrl, { schema: 'message', role: 'message', password: 'bench' });
  const url = new URL(server.adminUrl);
  url.username = 'message';
  url.password = 'bench';
  await migrateDatabase(definition, { url: url.href });
  const admin = new pg.Client({ connectionString: server.adminUrl, options: '-c search_path=message' });
  await admin.connect();
  started.defer(() => admin.end());

  const [largeId, smallId] = [randomUUID(), randomUUID()];
  const largest = Math.ceil((messages - small) / 2);
  const began = performance.now();
  const oldest = await fill(admin, { largeId, smallId, messages, signal });
  const fillSeconds = (performance.now() - began) / 1_000;
  const { rows } = await admin.query<{ bytes: string }>(
    `select sum(pg_total_relation_size(c.oid)) as bytes from pg_class c where relnamespace = 'message'::regnamespace and relkind = 'r'`,
  );

  const database = openDatabase(definition, { url: url.href, poolSize: 10, name: 'bench' });
  started.defer(() => database.close());
  const store = openStore(database);
  const inBoth = async (work: (conversationId: string, size: number) => Promise<unknown>): Promise<Sizes> => {
    const times: { small: number[]; large: number[] } = { small: [], large: [] };
    // By turns, so that both have the same of whatever else is going on.
    for (let round = 0; round < rounds + 20; round += 1) {
      signal.throwIfAborted();
      for (const [name, id, size] of [
        ['small', smallId, small],
        ['large', largeId, largest],
      ] as const) {
        // prettier-ignore
        const begin = performance.now();
        await work(id, size);
        if (round >= 20) times[name].push(performance.now() - begin);
      }
    }
    return { small: percentiles(times.small), large: percentiles(times.large) };
  };
  const page = async (conversationId: string, from: number) => {
    await store.positions(conversationId);
    return store.list(conversationId, { from, to: from + pageSize - 1, order: 'desc' });
  };
  const accept = await inBoth((conversationId) => store.append(newMessage(conversationId)));
  const newestPage = await inBoth((conversationId, size) => page(conversationId, size - pageSize));
  const middlePage = await inBoth((conversationId, size) => page(conversationId, Math.floor(size / 2)));

  const alone = await accepting(store, sleep(4_000));
  const to = new Date(oldest.getTime() + 3_600_000);
  const begin = performance.now();
  const audited = { messages: 0, calls: 0, balanced: true };
  const auditing = (async () => {
    for (let next = oldest; next < to; audited.calls += 1) {
      signal.throwIfAborted();
      const part = await openAudit(database).books(next, to);
      audited.messages += Number(part.books.messages.accepted);
      audited.balanced &&= balances(part.books);
      next = part.to;
    }
  })();
  const beside = await accepting(store, auditing);
  const audit = { ...audited, seconds: (performance.now() - begin) / 1_000 };
  return {
    messages,
    largest,
    fillSeconds,
    bytes: Number(rows[0]!.bytes) / messages,
    accept,
    newestPage,
    middlePage,
    audit,
    acceptBeside: { alone, audit: beside },
    problems: audit.balanced && audit.messages === messages ? [] : ['the audit of what was filled in does not balance'],
  };
}

/** Accepts messages, 100 a second, until something is over. */
async function accepting(store: ReturnType<typeof openStore>, until: Promise<unknown>): Promise<Percentiles> {
  const times: number[] = [];
  const sent: Promise<void>[] = [];
  let over = false;
  const ended = until.finally(() => (over = true));
  const ids = Array.from({ length: 50 }, () => randomUUID());
  for (let count = 0; !over; count += 1) {
    const begin = performance.now();
    sent.push(
      store.append(newMessage(ids[count % ids.length]!)).then(() => void times.push(performance.now() - begin)),
    );
    await sleep(10);
  }
  await Promise.all([...sent, ended]);
  return percentiles(times);
}

/**
 * Makes messages that were delivered: within the last hour, a thousand in one conversation, half of all in another one, and the others
 * in many. The indexes are made afterwards, since that is faster by far; and pages are as full as they are of messages that have grown.
 *
 * @returns when the first one was accepted
 */
async function fill(
  admin: pg.Client,
  options: { largeId: string; smallId: string; messages: number; signal: AbortSignal },
): Promise<Date> {
  const { largeId, smallId, messages, signal } = options;
  await admin.query(`
    alter table messages drop constraint messages_pkey, drop constraint messages_conversation_id_seq_unique;
    alter table deliveries drop constraint deliveries_pkey;
    alter table messages set (fillfactor = 58);
    drop index messages_accepted_at_index`);
  const first = new Date(Math.floor(Date.now() / 1_000) * 1_000 - 7_200_000);
  const atOnce = 250_000;
  for (let from = 0; from < messages; from += atOnce) {
    signal.throwIfAborted();
    await admin.query(
      `insert into messages (message_id, conversation_id, seq, sender_id, sender_username, recipient_ids, channels, payload_type,
          payload_text, priority, status, fingerprint, created_at, updated_at, deliver_by, expires_at, history)
        select gen_random_uuid(),
            case when n < ${small} then $2::uuid when n % 2 = 0 then $3::uuid else md5((n % ${conversations})::text)::uuid end,
            case when n < ${small} then n + 1 when n % 2 = 0 then (n - ${small}) / 2 + 1 else n / ${conversations} end,
            gen_random_uuid(), 'user' || n % 1000, array[gen_random_uuid()], array['whatsapp'], 'text',
            'A text of about a hundred bytes, as people write them to each other all day long, and no longer.', 'normal', 'delivered',
            sha256(n::text::bytea), at, at + interval '400 ms', at + interval '27 s', at + interval '29 s',
            jsonb_build_array(jsonb_build_object('status', 'in_transit', 'at', at, 'note', ''),
              jsonb_build_object('status', 'delivered', 'at', at, 'note', ''))
          from generate_series($1::bigint, $4::bigint) as n, lateral (select $5::timestamptz + n * $6::float8 * interval '1 ms' as at) as t`,
      [
        from,
        smallId,
        largeId,
        Math.min(from + atOnce, messages) - 1,
        first,
        // All within the hour, the last one before its end.
        3_599_000 / messages,
      ],
    );
  }
  await admin.query(`
    insert into conversation_heads (conversation_id, last_seq) select conversation_id, max(seq) from messages group by 1;
    insert into deliveries (message_id, recipient_id, channel, status, attempts, error, updated_at)
      select message_id, recipient_ids[1], 'whatsapp', 'delivered', 1, '', updated_at from messages;
    set maintenance_work_mem = '512MB';
    alter table messages add primary key (message_id);
    alter table messages add constraint messages_conversation_id_seq_unique unique (conversation_id, seq);
    create index messages_accepted_at_index on messages (created_at);
    alter table deliveries add primary key (message_id, recipient_id, channel)`);
  await admin.query('alter table messages set (fillfactor = 45)');
  await admin.query('vacuum (analyze) messages');
  await admin.query('vacuum (analyze) deliveries');
  return first;
}

function newMessage(conversationId: string): NewMessage {
  const text = 'A text of about a hundred bytes, as people write them to each other all day long, and no longer.';
  const draft: Draft = {
    messageId: randomUUID(),
    conversationId,
    senderId: randomUUID(),
    to: [],
    channels: ['whatsapp'],
    content: { type: 'text', text, fileId: '' },
    priority: 'normal',
  };
  const createdAt = new Date();
  return {
    ...draft,
    channels: ['whatsapp'],
    senderUsername: 'ana',
    recipientIds: [randomUUID()],
    fingerprint: fingerprintOf(draft),
    createdAt,
    ...timesOf(createdAt, 30_000),
    requestId: randomUUID(),
  };
}

export function printStorage(report: StorageReport): void {
  const { messages, largest, accept, newestPage, middlePage, audit, acceptBeside } = report;
  const many = (count: number) => count.toLocaleString('en');
  const ms = ({ p50, p99 }: Percentiles) => `p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`;
  console.log(
    `\n${many(messages)} messages, filled in within ${report.fillSeconds.toFixed(0)} s: ${report.bytes.toFixed(0)} bytes each`,
  );
  console.log(`in a conversation of ${many(small)} · of ${many(largest)} · ratio of the medians (goal 0.8 to 1.2)`);
  for (const [name, sizes] of Object.entries({ accept, 'newest page': newestPage, 'page in the middle': middlePage })) {
    const ratio = sizes.large.p50 / sizes.small.p50;
    console.log(`  ${name}: ${ms(sizes.small)} · ${ms(sizes.large)} · ${ratio.toFixed(2)}`);
  }
  const perMinute = (audit.messages / audit.seconds) * 60;
  console.log(
    `audit: ${many(audit.messages)} messages in ${audit.seconds.toFixed(1)} s and ${audit.calls} calls: ${many(Math.round(perMinute))} a minute (goal 6,000,000)`,
  );
  const ratio = acceptBeside.audit.p99 / acceptBeside.alone.p99;
  console.log(
    `accepting 100/s: ${ms(acceptBeside.alone)}; during the audit ${ms(acceptBeside.audit)}: p99 × ${ratio.toFixed(2)} (goal < 2)`,
  );
  for (const problem of report.problems) console.log(`PROBLEM: ${problem}`);
}
