import { mkdir, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { within } from '#lib/deadline.ts';

/** A mail to be sent. */
export interface Letter {
  /** UUID. The same letter has the same one, however often it is sent. */
  id: string;
  recipient: string;
  subject: string;
  body: string;
  createdAt: Date;
}

/** Where mails go. */
export interface Post {
  /** @throws if it isn't sure that the mail was taken */
  send(letter: Letter): Promise<void>;
  /** Lets mails that are being sent finish within seconds, or fail. */
  finishSoon(): void;
}

export interface SmtpOptions {
  /** smtp:// or smtps://, with user and password where the server wants them. */
  url: string;
  from: string;
  /** Milliseconds. */
  limits?: { connect: number; silence: number; whole: number };
}

/** Less than the lease of a mail. */
const defaultLimits = { connect: 10_000, silence: 20_000, whole: 60_000 };
/** How long a mail that is being sent may take when the process stops. */
const finishLimitMs = 3_000;

/** Sends mails by SMTP; with TLS where the URL is smtps:// or the server offers it. */
export function openSmtpPost({ url, from, limits = defaultLimits }: SmtpOptions): Post {
  const opening = once(async () => {
    const { createTransport } = await import('nodemailer');
    return createTransport({
      url,
      connectionTimeout: limits.connect,
      greetingTimeout: limits.connect,
      dnsTimeout: limits.connect,
      socketTimeout: limits.silence,
      disableFileAccess: true,
      disableUrlAccess: true,
    });
  });
  const stopped = new AbortController();

  return {
    async send(letter) {
      const transport = await opening();
      const late = new AbortController();
      const sent = transport.sendMail({
        ...messageOf(letter, from),
        signal: AbortSignal.any([late.signal, stopped.signal]),
      });
      await within(limits.whole, sent, () => {
        const error = new Error(`The mail server took more than ${limits.whole} ms`);
        late.abort(error);
        return error;
      });
    },
    finishSoon() {
      setTimeout(() => stopped.abort(new Error('The process stops')), finishLimitMs).unref();
    },
  };
}

/** Puts mails into a folder, each a file that mail programs open. */
export function openFolderPost({ folder, from }: { folder: string; from: string }): Post {
  const opening = once(async () => {
    const { createTransport } = await import('nodemailer');
    return createTransport({ streamTransport: true, buffer: true });
  });
  return {
    async send(letter) {
      const transport = await opening();
      const { message } = await transport.sendMail(messageOf(letter, from));
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const time = letter.createdAt.toISOString().replaceAll(/[:.]/g, '-');
      const file = path.join(folder, `${time}-${letter.id}.eml`);
      // Renamed last, so that nobody sees half a file.
      await writeFile(`${file}.part`, message as Buffer, { mode: 0o600 });
      await rename(`${file}.part`, file);
    },
    finishSoon() {},
  };
}

/** Calls `open` once, when its result is first needed: most processes never send a mail, and the code for it takes time and memory. */
function once<T>(open: () => Promise<T>): () => Promise<T> {
  let opening: Promise<T> | undefined;
  return () => (opening ??= open());
}

function messageOf({ id, recipient, subject, body, createdAt }: Letter, from: string) {
  const domain = from.replace(/^.*@/, '').replaceAll(/[^\w.-]/g, '') || 'localhost';
  return {
    messageId: `<${id}@${domain}>`,
    from,
    // An address as it is: none that is more than one, or has a name.
    to: { name: '', address: recipient },
    subject,
    text: body,
    date: createdAt,
    // So that no auto-reply answers it (RFC 3834).
    headers: { 'Auto-Submitted': 'auto-generated' },
  };
}
