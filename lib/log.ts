import { promisify } from 'node:util';
import { pino, type DestinationStream, type Logger } from 'pino';
import pretty from 'pino-pretty';
import { z } from 'zod';
import { activeSpans, currentContext } from './context.ts';

export type { Logger } from 'pino';

/** Settings of every process's log. */
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
  /** The service that writes. */
  name: string;
  /** By default text on a terminal, and JSON elsewhere. */
  format?: 'text' | 'json' | undefined;
  level: string;
  /** Where the lines go; standard output by default. */
  destination?: DestinationStream;
}

const censor = '[hidden]';

/** Names of fields that must never be in a log line. */
const secretNames = ['password', 'token', 'access_token', 'authorization', 'secretKey'];

/**
 * The fields of a log line without the values of secret names, at the top and one level below. Few lines have any, so this checks before it
 * copies: pino's own `redact` takes longer than everything else that is done for a line.
 */
function withoutNamedSecrets(fields: Record<string, unknown>): Record<string, unknown> {
  let safe = censored(fields);
  for (const name of Object.keys(safe)) {
    const value = safe[name];
    if (typeof value !== 'object' || value === null || secretsIn(value).length === 0) continue;
    if (safe === fields) safe = { ...fields };
    // Properties that pino logs of an error may be inherited.
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
 * Patterns of secrets that must never be in a log line: error texts quote addresses, statements and headers. JSON Web Tokens (RFC 7519),
 * API keys and our other opaque tokens, bcrypt hashes, passwords in URLs, signatures of URLs and requests, private keys (RFC 8037).
 */
const secretTexts =
  /(?:(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)|(?:(?<![\w-])c4[apr]_[\w-]{28,})|(?:\$2[aby]\$\d\d\$[./A-Za-z\d]{53})|(?<=:\/\/[^\s:@/"\\]*:)[^\s@/"\\]+(?=@)|(?<=\b(?:signature|x-amz-(?:signature|credential|security-token))=)[^\s&,"\\]+|(?<=[{,]\\*"d\\*":\\*")[\w-]{43}/gi;

/** Every match of the pattern contains one of these. To look for them takes a tenth of the time, and most lines have none. */
const secretSigns = ['eyJ', 'c4a_', 'c4r_', 'c4p_', '$2', '://', '=', '"d"', '"d\\'];

function withoutSecrets(line: string): string {
  return secretSigns.some((sign) => line.includes(sign)) ? line.replace(secretTexts, censor) : line;
}

/**
 * Lines are buffered until the end of the current turn of the event loop, or until they would exceed 4 KiB, which a pipe writes atomically
 * (PIPE_BUF), so that lines of several processes don't mix. The write is synchronous: a slow reader slows the process down, and no line is
 * lost or piles up in memory. A process that is killed (SIGKILL) loses the lines of that turn: `written` waits for them.
 */
const maxBufferedBytes = 4 * 1024;

/** What pino calls of a destination, and we have ourselves. */
interface Output extends DestinationStream {
  /** Writes what is buffered. */
  flushSync(): void;
  /** Calls `done` once what is buffered now has been written. */
  flush(done: () => void): void;
}

let output: Output | undefined;

/** Standard output, shared by all logs of the process. Lines written just before the process ends are not lost. */
function standardOutput(): Output {
  if (output !== undefined) return output;
  // pino's own buffering would need `flushSync`, which also calls fsync if the output is a file.
  const file = pino.destination({ dest: 1, sync: true });
  let gathered = '';
  let bytes = 0;
  let isWaiting = false;
  const waiting: (() => void)[] = [];
  const flush = () => {
    if (gathered !== '') file.write(gathered);
    gathered = '';
    bytes = 0;
    for (const done of waiting.splice(0)) done();
  };
  process.once('exit', flush);
  output = {
    write(line) {
      const length = Buffer.byteLength(line);
      if (bytes + length > maxBufferedBytes) flush();
      gathered += line;
      bytes += length;
      if (isWaiting) return;
      isWaiting = true;
      setImmediate(() => {
        isWaiting = false;
        flush();
      });
    },
    // Called by pino after a fatal line.
    flushSync: flush,
    flush(done) {
      if (gathered === '') done();
      else waiting.push(done);
    },
  };
  return output;
}

/** Escapes control characters, which could begin a new line or control the terminal. */
function visible(text: unknown): string {
  if (typeof text !== 'string') return '';
  // eslint-disable-next-line no-control-regex -- it is them that are looked for
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, escaped);
}

function escaped(char: string): string {
  const short = JSON.stringify(char).slice(1, -1);
  return short.length > 1 ? short : `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** Opens a log. Each line has the request id and the message id of its context (`lib/context.ts`), and the ids of its trace and span. */
export function openLog({ name, format = defaultFormat(), level, destination }: LogOptions): Logger {
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
        const { traceId, spanId } = activeSpans()?.span.spanContext() ?? {};
        return {
          request_id: context.requestId,
          ...(context.messageId !== undefined && { message_id: context.messageId }),
          ...(traceId !== undefined && { trace_id: traceId, span_id: spanId }),
        };
      },
    },
    stream,
  );
}

/** Fulfilled once the lines that this log has been given so far are written, so that no end of this process takes them away. */
export function written(log: Logger): Promise<void> {
  return promisify((done: () => void) => log.flush(done))();
}

function defaultFormat(): 'text' | 'json' {
  return process.stdout.isTTY ? 'text' : 'json';
}
