import { pino, type DestinationStream, type Logger } from 'pino';
import pretty from 'pino-pretty';
import { z } from 'zod';
import { currentContext } from './context.ts';

export type { Logger } from 'pino';

/** Settings that every process takes for its log. */
export const logSettings = {
  LOG_FORMAT: z
    .enum(['text', 'json'])
    .optional()
    .describe('text for people, json for machines; not set, text on a terminal and json elsewhere'),
  LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .default('info')
    .describe('the least important lines to write'),
};

export interface LogOptions {
  /** Which service writes. */
  name: string;
  /** By default text on a terminal, and JSON elsewhere. */
  format?: 'text' | 'json' | undefined;
  level: string;
  /** Where the lines go; standard output by default. */
  destination?: DestinationStream;
}

const censor = '[hidden]';

/** What must never be in a log line, by the names under which it travels. */
const secretNames = ['password', 'token', 'access_token', 'authorization', 'secretKey'];

/**
 * The fields of a line, without values that have such a name, and without those in an object that is a field itself. Almost no line
 * has one, so this looks before it copies: pino's own `redact` takes longer than all else that is done for a line.
 */
function withoutNamedSecrets(fields: Record<string, unknown>): Record<string, unknown> {
  let safe = censored(fields);
  for (const name of Object.keys(safe)) {
    const value = safe[name];
    if (typeof value !== 'object' || value === null || secretsIn(value).length === 0) continue;
    if (safe === fields) safe = { ...fields };
    // What pino tells of an error may be inherited.
    safe[name] = value instanceof Error ? Object.assign(Object.create(value), hidden(value)) : censored({ ...value });
  }
  return safe;
}

function censored(fields: Record<string, unknown>): Record<string, unknown> {
  return secretsIn(fields).length === 0 ? fields : { ...fields, ...hidden(fields) };
}

function hidden(fields: object): Record<string, string> {
  return Object.fromEntries(secretsIn(fields).map((name) => [name, censor]));
}

function secretsIn(fields: object): string[] {
  return secretNames.filter((name) => Object.hasOwn(fields, name));
}

/**
 * What must never be in a log line, by what it looks like: texts of errors quote addresses, statements and headers.
 * Tokens (RFC 7519), API keys and other opaque tokens of ours, hashes of bcrypt, passwords in URLs, signatures of URLs and requests,
 * private keys (RFC 8037).
 */
const secretTexts =
  /(?:(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)|(?:(?<![\w-])c4[apr]_[\w-]{28,})|(?:\$2[aby]\$\d\d\$[./A-Za-z\d]{53})|(?<=:\/\/[^\s:@/"\\]*:)[^\s@/"\\]+(?=@)|(?<=\b(?:signature|x-amz-(?:signature|credential|security-token))=)[^\s&,"\\]+|(?<=[{,]\\*"d\\*":\\*")[\w-]{43}/gi;

/** Each of them has one of these. To look for them takes a tenth of the time of the expression, and most lines have none. */
const secretSigns = ['eyJ', 'c4a_', 'c4r_', 'c4p_', '$2', '://', '=', '"d"', '"d\\'];

function withoutSecrets(line: string): string {
  return secretSigns.some((sign) => line.includes(sign)) ? line.replace(secretTexts, censor) : line;
}

/**
 * Lines are gathered until the process has done what it is at, or until one more would make them longer than 4 KiB, which a pipe takes
 * whole (PIPE_BUF), so that lines of several processes don't mix. The process waits for the write: whoever reads too slowly slows it down,
 * and no line is lost or piled up in memory.
 */
const mostGathered = 4 * 1024;
let output: (DestinationStream & { flushSync(): void }) | undefined;

/** Standard output, which all logs of a process share. What was written just before the process ends is not lost, either. */
function standardOutput(): DestinationStream {
  if (output !== undefined) return output;
  // Its own way to gather needs `flushSync`, which has the system write a file to its disk each time (fsync).
  const file = pino.destination({ dest: 1, sync: true });
  let gathered = '';
  let isWaiting = false;
  const flush = () => {
    if (gathered !== '') file.write(gathered);
    gathered = '';
  };
  process.once('exit', flush);
  output = {
    write(line) {
      if (gathered.length + line.length > mostGathered) flush();
      gathered += line;
      if (isWaiting) return;
      isWaiting = true;
      setImmediate(() => {
        isWaiting = false;
        flush();
      });
    },
    // Called by pino after a fatal line.
    flushSync: flush,
  };
  return output;
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
export function openLog({ name, format = usualFormat(), level, destination }: LogOptions): Logger {
  const stream =
    format === 'json'
      ? (destination ?? standardOutput())
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
      formatters: { log: withoutNamedSecrets },
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

function usualFormat(): 'text' | 'json' {
  return process.stdout.isTTY ? 'text' : 'json';
}
