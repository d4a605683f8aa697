import type { IncomingHttpHeaders } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import { maxTimerMs } from '../deadline.ts';
import { changeHttp2Server } from './http2-server.ts';

/** Milliseconds of each unit of `grpc-timeout` (gRPC over HTTP/2, Requests) that may be too long for a timer. */
const units: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000 };

/**
 * Reduces timeouts that are longer than Node's timers may be (24.8 days) to that. grpc-js 1.14 keeps 32 bits of the milliseconds: such a
 * call would end at once, or at an arbitrary time.
 */
export function boundTimeouts(server: Server): void {
  // Runs before the listener of grpc-js, which gets the same headers object.
  changeHttp2Server(server, (made) => made.prependListener('stream', (_stream, headers) => bound(headers)));
}

function bound(headers: IncomingHttpHeaders): void {
  const given = headers['grpc-timeout'];
  const [, digits, unit] = /^(\d{1,8})([HMS])$/.exec(String(given)) ?? [];
  if (unit === undefined || Number(digits) * (units[unit] as number) <= maxTimerMs) return;
  headers['grpc-timeout'] = `${Math.floor(maxTimerMs / 1_000)}S`;
}
