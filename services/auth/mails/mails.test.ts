import { once } from 'node:events';
import { createServer, type AddressInfo, type Server } from 'node:net';
import ava from 'ava';
import { SMTPServer, type SMTPServerOptions } from 'smtp-server';
import { v4 as uuid } from 'uuid';
import { openDatabase } from '#lib/database.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { openMails, type Mails } from './mails.ts';
import { openSmtpPost } from './post.ts';
import { database } from '../database.ts';
import { openStore } from '../store.ts';

const test = ava.serial;

const hub = opened(openHarness, (hub) => hub.stop());
/** Makes users; its own mails go into a folder, and it is stopped before there are others. */
const seeded = opened(async () => {
  const auth = await hub.startService('auth', { SEED_USERS: '2' });
  await auth.stop();
  return auth;
});
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 6, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);

const userId = '00000000-0000-4000-8000-000000000001';
const limits = { connect: 1_000, silence: 1_000, whole: 1_500 };

interface Received {
  from: string;
  to: string[];
  text: string;
}

interface MailServer {
  port: number;
  received: Received[];
  stop(): Promise<void>;
}

/** An SMTP server that takes what comes, unless its options say otherwise. */
async function startServer(options: Partial<SMTPServerOptions> = {}, port = 0): Promise<MailServer> {
  const received: Received[] = [];
  const server = new SMTPServer({
    disabledCommands: ['STARTTLS', 'AUTH'],
    authOptional: true,
    closeTimeout: 100,
    onData(stream, { envelope }, callback) {
      let text = '';
      stream.on('data', (data) => (text += String(data)));
      stream.on('end', () => {
        const from = envelope.mailFrom === false ? '' : envelope.mailFrom.address;
        received.push({ from, to: envelope.rcptTo.map(({ address }) => address), text });
        callback();
      });
    },
    ...options,
  });
  server.on('error', () => {});
  server.listen(port, '127.0.0.1');
  await once(server.server, 'listening');
  return {
    port: (server.server.address() as AddressInfo).port,
    received,
    stop: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

async function write(more: { giveUpAt?: Date; recipient?: string } = {}): Promise<string> {
  const id = uuid();
  const now = new Date();
  await db.sql(
    `insert into mails (id, user_id, recipient, subject, body, created_at, give_up_at, next_try_at)
     values ($1, $2, $3, 'Choose a new password', 'A link', $4, $5, $4)`,
    [id, userId, more.recipient ?? 'ada@example.com', now, more.giveUpAt ?? new Date(now.getTime() + 60_000)],
  );
  return id;
}

function sender(port: number, { backoff = 50, sending = limits } = {}): Mails & { lines: string[] } {
  const lines: string[] = [];
  const log = openLog({
    name: 'auth',
    format: 'json',
    level: 'info',
    destination: { write: (line) => void lines.push(line) },
  });
  const post = openSmtpPost({ url: `smtp://127.0.0.1:${port}`, from: 'Hub <hub@example.com>', limits: sending });
  return {
    ...openMails({ store, log, post, pause: 20, backoff: { firstMs: backoff, maxMs: backoff, jitter: 0 } }),
    lines,
  };
}

const waiting = async () => (await db.sql('select from mails')).length;
const allSent = () => eventually('all mails are sent', waiting, (left) => left === 0);

test('a mail is sent once, as it was written, and forgotten', async (t) => {
  t.truthy(seeded.port);
  const server = await startServer();
  const mails = sender(server.port);
  const id = await write();
  mails.wake();
  await allSent();
  await mails.stop();
  await server.stop();
  t.is(server.received.length, 1);
  const [{ from, to, text }] = server.received as [Received];
  t.deepEqual([from, to], ['hub@example.com', ['ada@example.com']]);
  t.true(text.includes(`Message-ID: <${id}@example.com>`));
  t.regex(text, /^From: Hub <hub@example.com>\r$/m);
  t.regex(text, /^Subject: Choose a new password\r$/m);
  t.regex(text, /\r\n\r\nA link\r\n/);
});

test('many processes together send each mail once', async (t) => {
  const server = await startServer();
  const senders = Array.from({ length: 3 }, () => sender(server.port));
  const ids = await Promise.all(Array.from({ length: 30 }, () => write()));
  for (const each of senders) each.wake();
  await allSent();
  for (const each of senders) await each.stop();
  await server.stop();
  const sent = server.received.map(({ text }) => /^Message-ID: <([^@]+)@/m.exec(text)![1]!);
  t.deepEqual(sent.toSorted(), ids.toSorted());
});

test('a server that is away gets the mail when it comes back', async (t) => {
  const away = await startServer();
  await away.stop();
  const mails = sender(away.port);
  await write();
  await eventually(
    'it is tried in vain',
    () => db.sql<{ tries: number }>('select tries from mails'),
    ([mail]) => mail!.tries >= 2,
  );
  t.true(mails.lines.some((line) => line.includes("A mail couldn't be sent")));
  const back = await startServer({}, away.port);
  await allSent();
  await mails.stop();
  await back.stop();
  t.is(back.received.length, 1);
});

test('a server that refuses, for a while or for good, is asked again', async (t) => {
  for (const responseCode of [451, 550]) {
    let refusals = 3;
    const refused = Object.assign(new Error('Not now'), { responseCode });
    const server = await startServer({
      onRcptTo(_address, _session, callback) {
        refusals -= 1;
        callback(refusals >= 0 ? refused : null);
      },
    });
    const mails = sender(server.port);
    await write();
    await allSent();
    await mails.stop();
    await server.stop();
    t.is(server.received.length, 1, `${responseCode}`);
  }
});

test('a server that is silent holds up neither the others nor the end of the process', async (t) => {
  const sockets = new Set<{ destroy(): void }>();
  const silent: Server = createServer((socket) => {
    socket.on('error', () => {});
    sockets.add(socket);
  });
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const mails = sender((silent.address() as AddressInfo).port);
  await write();
  await eventually(
    'it is given up for now',
    () => db.sql<{ tries: number }>('select tries from mails'),
    ([mail]) => mail!.tries >= 2,
  );
  const began = performance.now();
  await mails.stop();
  t.true(performance.now() - began < 5_000);
  for (const socket of sockets) socket.destroy();
  silent.close();
  t.is(await waiting(), 1, 'nothing is lost');
  await db.sql('delete from mails');
});

test('a slow server is waited for', async (t) => {
  const server = await startServer({
    onRcptTo(_address, _session, callback) {
      setTimeout(() => callback(), 500);
    },
  });
  const mails = sender(server.port);
  await write();
  await allSent();
  await mails.stop();
  await server.stop();
  t.is(server.received.length, 1);
});

test('a mail whose sending was cut off comes again with the same Message-ID', async (t) => {
  const heard: string[] = [];
  let isFirst = true;
  const server = await startServer({
    onData(stream, _session, callback) {
      let text = '';
      stream.on('data', (data) => (text += String(data)));
      stream.on('end', () => {
        heard.push(/^Message-ID: (.*)\r$/m.exec(text)![1]!);
        // It has the mail, but nobody hears so.
        if (isFirst) setTimeout(() => callback(), 3 * limits.whole);
        else callback();
        isFirst = false;
      });
    },
  });
  const mails = sender(server.port);
  const id = await write();
  await allSent();
  await mails.stop();
  await server.stop();
  t.deepEqual(heard, [`<${id}@example.com>`, `<${id}@example.com>`]);
});

test('a mail that nobody takes is given up in time, with a line in the log that gives nothing away', async (t) => {
  const away = await startServer();
  await away.stop();
  const mails = sender(away.port);
  const id = await write({ giveUpAt: new Date(Date.now() + 300) });
  await allSent();
  await mails.stop();
  const line = mails.lines.find((each) => each.includes('given up'));
  t.like(JSON.parse(line!), { mail: id, user: userId, level: 50 });
  t.false(mails.lines.join('').includes('A link'));
});

test('an address is one address, whatever stands in it', async (t) => {
  const server = await startServer();
  const mails = sender(server.port);
  const recipient = `"a,b"@example.com`;
  await write({ recipient });
  await allSent();
  await mails.stop();
  await server.stop();
  t.deepEqual(
    server.received.map(({ to }) => to),
    [[recipient]],
  );
});
