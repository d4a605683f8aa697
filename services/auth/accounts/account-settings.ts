import path from 'node:path';
import { z } from 'zod';
import { ConfigError, duration, laptopSettings, list, maxRetentionMs, secret, text, type Config } from '#lib/config.ts';
import { passwordViolations } from './accounts.ts';
import { openFolderPost, openSmtpPost, type Post } from '../mails/post.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

/** Settings of accounts: how long tokens are valid, who is an administrator, and how mails go out. */
export const accountSettings = {
  ...laptopSettings,
  ACCESS_TOKEN_TTL: duration({ min: 1_000, max: hour })
    .default(hour / 2)
    .describe('how long an access token of an account is valid: 15m to 60m, shorter with LAPTOP_MODE=true only'),
  REFRESH_TOKEN_TTL: duration({ min: 1_000, max: 90 * day })
    .default(7 * day)
    .describe('how long a refresh token is valid'),
  RESET_TOKEN_TTL: duration({ min: 1_000, max: 7 * day })
    .default(day)
    .describe('how long the link of a mail to choose a new password works'),
  RESET_URL: z
    .string()
    .refine(
      (url) => url.includes('{token}') && /^https?:$/.test(URL.parse(url)?.protocol ?? ''),
      'must be an http or https URL with {token} in it',
    )
    .default('http://localhost:8000/console/reset?token={token}')
    .describe('the page to choose a new password on, for the mails: {token} stands for the token'),
  SMTP_URL: z
    .string()
    .refine((url) => /^smtps?:$/.test(URL.parse(url)?.protocol ?? ''), 'must be smtp://… or smtps://…')
    .optional()
    .describe('the server that mails go out through: smtp[s]://user:password@host:port; or set MAIL_DIR'),
  MAIL_FROM: text().optional().describe('the sender of mails: required with SMTP_URL'),
  MAIL_DIR: text()
    .optional()
    .describe(
      'without SMTP_URL: the folder that each mail becomes a file of; by default .chat4all/mail in laptop mode',
    ),
  ADMIN_USERS: list()
    .optional()
    .describe('usernames, with commas between them: these users become administrators at the start'),
  ADMIN_EMAIL: z
    .email('must be an email')
    .max(254)
    .optional()
    .describe('email of the first administrator, who is made at the start; a user who has it becomes one'),
  ADMIN_PASSWORD: secret().optional().describe('password of the first administrator, by the rules of all passwords'),
  AUDIT_RETENTION: duration({ min: 1_000, max: maxRetentionMs })
    .default(400 * day)
    .describe('how long it is kept what administrators have changed'),
};

type AccountConfig = Config<typeof accountSettings>;

/** @throws ConfigError if settings don't go together */
export function checkAccountSettings(config: AccountConfig): void {
  const problems: string[] = [];
  if (!config.LAPTOP_MODE && config.ACCESS_TOKEN_TTL < 15 * minute) {
    problems.push('ACCESS_TOKEN_TTL must be from 15m to 60m (or LAPTOP_MODE=true)');
  }
  if (!config.LAPTOP_MODE && config.SMTP_URL === undefined && config.MAIL_DIR === undefined) {
    problems.push('SMTP_URL is required, or MAIL_DIR: mails have to go somewhere');
  }
  if (config.SMTP_URL !== undefined && config.MAIL_FROM === undefined) {
    problems.push('MAIL_FROM is required with SMTP_URL');
  }
  if ((config.ADMIN_EMAIL === undefined) !== (config.ADMIN_PASSWORD === undefined)) {
    problems.push('ADMIN_EMAIL and ADMIN_PASSWORD go together');
  }
  if (config.ADMIN_PASSWORD !== undefined) {
    const unmet = passwordViolations(config.ADMIN_PASSWORD).map(({ description }) => description);
    if (unmet.length > 0) problems.push(`ADMIN_PASSWORD ${unmet.join(', ')}`);
  }
  if (problems.length > 0) throw new ConfigError(problems);
}

/** Where mails go: to a server, or into a folder. */
export function postOf({ SMTP_URL: url, MAIL_FROM: from, MAIL_DIR: folder }: AccountConfig): Post {
  if (url !== undefined) return openSmtpPost({ url, from: from as string });
  return openFolderPost({
    folder: path.resolve(folder ?? '.chat4all/mail'),
    from: from ?? 'Chat4All <no-reply@localhost>',
  });
}
