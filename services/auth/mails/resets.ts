import { v4 as uuid } from 'uuid';
import { hubDate } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import { hashOf, newToken } from '../sessions/opaque-tokens.ts';
import type { ResetLimits } from './resets-store.ts';
import type { Store } from '../store.ts';

export interface ResetOptions {
  store: Store;
  log: Logger;
  /** Of the page where a new password is chosen, with `{token}` in the place of the token. */
  url: string;
  /** Milliseconds that a token is valid for. */
  lifetime: number;
  limits: ResetLimits;
  /** Called when there are mails to send. */
  written: () => void;
}

/** Mails for those who have forgotten their password. */
export interface Resets {
  /**
   * Records a request from an address for a mail to an email, in lower case. Nothing else is done before the answer, so that it takes the same
   * time whether or not a user has the email.
   */
  request(email: string, address: string): Promise<void>;
  stop(): Promise<void>;
}

/** Requests answered in one transaction. */
const batch = 50;
/** How long a mail is tried again until it is given up. */
const maxTryingMs = 86_400_000;
/** Milliseconds until another process's requests are looked for that it hasn't answered itself. */
const pause = 5_000;

export function openResets({ store, log, url, lifetime, limits, written }: ResetOptions): Resets {
  const answering = repeat('Writing mails to those who forgot their passwords', log, async () => {
    const now = hubDate();
    const expiresAt = new Date(now.getTime() + lifetime);
    const answered = await store.answerRequests(batch, now, ({ email }) => {
      const token = newToken('reset');
      return {
        token: { hash: hashOf(token), expiresAt },
        mail: {
          id: uuid(),
          recipient: email,
          ...resetMail(url.replaceAll('{token}', token), expiresAt),
          giveUpAt: new Date(now.getTime() + Math.min(lifetime, maxTryingMs)),
        },
      };
    });
    if (answered > 0) written();
    return answered === batch ? 0 : pause;
  });

  return {
    async request(email, address) {
      await store.requestReset(email, address, limits, hubDate());
      answering.wake();
    },
    stop: () => answering.stop(),
  };
}

/** Says nothing that somebody else could have chosen: it goes to whoever has the email. */
function resetMail(link: string, expiresAt: Date): { subject: string; body: string } {
  const until = `${expiresAt.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
  return {
    subject: 'Choose a new password',
    body: [
      'Somebody, probably you, asked to choose a new password for your account.',
      'Open this link to choose one:',
      '',
      link,
      '',
      `It works once, until ${until}.`,
      "If it wasn't you, do nothing: your password stays as it is.",
      '',
    ].join('\n'),
  };
}
