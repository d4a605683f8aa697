import { pino, type DestinationStream, type Logger } from 'pino';
import pretty from 'pino-pretty';
import { z } from 'zod';
import { currentContext } from './context.ts';

export type { Logger } from 'pino';

/** Settings that every process takes for its log. */
export const logSettings = {
  LOG_FORMAT: z.enum(['text', 'json']).default('text').describe('text for people, json for machines'),
  LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .default('info')
    .describe('the least important lines to write'),
};

export interface LogOptions {
  /** Which service writes. */
  name: string;
  format: 'text' | 'json';
  level: string;
  /** Where the lines go; standard output by default. */
  destination?: DestinationStream;
}

const censor = '[hidden]';

/** What must never be in a log line, by the names under which it travels. */
const secrets = ['password', 'token', 'access_token', 'authorization', 'secretKey'].flatMap((name) => [
  name,
  `*.${name}`,
]);

/**
 * What must never be in a log line, by what it looks like: texts of errors quote addresses, statements and headers.
 * Tokens (RFC 7519), API keys and other opaque tokens of ours, hashes of bcrypt, passwords in URLs, signatures of URLs and requests,
 * private keys (RFC 8037).
 */
const secretTexts =
  /(?:(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)|(?:(?<![\w-])c4[apr]_[\w-]{28,})|(?:\$2[aby]\$\d\d\$[./A-Za-z\d]{53})|(?<=:\/\/[^\s:@/"\\]*:)[^\s@/"\\]+(?=@)|(?<=\b(?:signature|x-amz-(?:signature|credential|security-token))=)[^\s&,"\\]+|(?<=[{,]\\*"d\\*":\\*")[\w-]{43}/gi;

function withoutSecrets(line: string): string {
  return line.replace(secretTexts, censor);
}

/** Control characters in a message would begin a line of their own, or tell the terminal something. */
function visible(text: unknown): string {
  if (typeof text !== 'string') return '';
  // eslint-disable-next-line no-control-regex -- it is them that are looked for
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, escaped);
}

function escaped(char: string): string {
  const short = JSON.stringify(char).slice(1, -1);
  return short.length > 1 ? short : `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** Opens a log. Each line carries the request id and the message id of the work that wrote it. */
export function openLog({ name, format, level, destination }: LogOptions): Logger {
  const stream =
    format === 'json'
      ? (destination ?? pino.destination({ dest: 1, sync: true }))
      : pretty({
          colorize: destination === undefined && process.stdout.isTTY,
          translateTime: 'SYS:HH:MM:ss.l',
          ignore: 'pid,hostname',
          singleLine: true,
          messageFormat: (line, key) => visible(line[key]),
          sync: true,
          destination: destination ?? 1,
        });
  return pino(
    {
      name,
      level,
      redact: { paths: secrets, censor },
      hooks: { streamWrite: withoutSecrets },
      mixin() {
        const context = currentContext();
        if (context === undefined) return {};
        return context.messageId === undefined
          ? { request_id: context.requestId }
          : { request_id: context.requestId, message_id: context.messageId };
      },
    },
    stream,
  );
}
