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

/** What must never be in a log line, by the names under which it travels. */
const secrets = ['password', 'token', 'access_token', 'authorization', '*.password', '*.token', '*.authorization'];

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
          sync: true,
          destination: destination ?? 1,
        });
  return pino(
    {
      name,
      level,
      redact: { paths: secrets, censor: '[hidden]' },
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
