import { hubDate, hubTime } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { sweep } from '#lib/loop.ts';
import { backoffMs, type Backoff } from '#lib/backoff.ts';
import type { WaitingMail } from './mails-store.ts';
import type { Post } from './post.ts';
import type { Store } from '../store.ts';

export interface MailOptions {
  store: Store;
  log: Logger;
  post: Post;
  /** Milliseconds until it is looked again for mails that are due. */
  pause?: number;
  /** Milliseconds until a mail that couldn't be sent is tried again, after so many tries. */
  backoff?: Backoff;
}

/** Sends the mails that wait in the database. */
export interface Mails {
  /** There are new ones. */
  wake(): void;
  /** Sends no more; what is being sent has some seconds to end. May be called again. */
  stop(): Promise<void>;
}

/** Mails sent at once. */
const atOnce = 5;
/** Milliseconds that nobody else tries a mail: longer than the post may take for one. */
const lease = 120_000;
const giveUpAtOnce = 100;

/** From some 5 s up to about a quarter of an hour. */
const defaultBackoff = { firstMs: 6_000, maxMs: 1_080_000, jitter: 1 / 3 };

/**
 * Takes mails in turns with all other processes. Each is sent once, as far as SMTP allows: when a process ends, or the connection
 * breaks, between the server's taking a mail and its telling so, it is sent again, with the same Message-ID.
 */
export function openMails({ store, log, post, pause = 5_000, backoff = defaultBackoff }: MailOptions): Mails {
  async function send(mail: WaitingMail): Promise<void> {
    const about = { mail: mail.id, user: mail.userId, tries: mail.tries };
    try {
      await post.send(mail);
    } catch (error) {
      const wait = Math.round(backoffMs(backoff, mail.tries));
      log.warn({ err: error, ...about }, `A mail couldn't be sent; it is tried again in ${Math.ceil(wait / 1_000)} s`);
      await store.postponeMail(mail.id, mail.tries, new Date(hubTime() + wait));
      return;
    }
    await store.forgetMail(mail.id);
    log.info(about, 'A mail is sent');
  }

  const sending = sweep('Sending mails', log, { batchSize: atOnce, everyMs: pause }, async (batchSize) => {
    const now = hubDate();
    for (const { id, userId, tries } of await store.giveUpMails(now, giveUpAtOnce)) {
      log.error({ mail: id, user: userId, tries }, "A mail couldn't be sent in time: it is given up");
    }
    const taken = await store.takeMails(batchSize, lease, now);
    // What one of them meets keeps none of the others.
    const sent = await Promise.allSettled(taken.map(send));
    for (const result of sent) if (result.status === 'rejected') throw result.reason;
    return taken.length;
  });

  async function stop(): Promise<void> {
    post.finishSoon();
    await sending.stop();
  }
  let stopping: Promise<void> | undefined;

  return {
    wake: () => sending.wake(),
    stop: () => (stopping ??= stop()),
  };
}
