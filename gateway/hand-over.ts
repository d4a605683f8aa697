import type { IncomingMessage } from 'node:http';
import { httpOf, limitConnecting, openAgent } from '#lib/http.ts';
import { release } from '#lib/rpc/raw-body.ts';

/** Milliseconds that a connection may take, and then the answer that the body is wanted. */
const connectLimit = 1_000;
const askLimit = 5_000;
/** Milliseconds for which nothing is put where nobody could be reached. */
const shunned = 30_000;

const agents = { 'http:': openAgent('http:'), 'https:': openAgent('https:') };

/** Until when an origin isn't tried again. Milliseconds since the start of the process. */
const unreachable = new Map<string, number>();

/** A body on its way to the place that a backend has named for it. */
export interface HandedOver {
  /** @returns false to be given no more until `onDrain` is called */
  write(bytes: Buffer): boolean;
  /** All of the body was written. */
  end(): void;
  /** Breaks it off: what was written so far is not a body that the other side could take for whole. */
  destroy(): void;
}

/** What becomes of it. Of the last three, one is called, once, unless it is destroyed. */
export interface HandOverEvents {
  /** The other side wants the body. */
  onReady(): void;
  onDrain(): void;
  /** The other side has taken all of it. */
  onTaken(): void;
  /** It doesn't want it, or can't be reached, before a byte was sent. */
  onRefused(): void;
  /** Some bytes were sent, and it is not known what became of them. */
  onFailed(): void;
}

/** Puts `size` bytes to a URL, which is told first and asks for them. */
export function handOver(location: string, size: number, events: HandOverEvents): HandedOver {
  const url = URL.canParse(location) ? new URL(location) : undefined;
  const protocol = url?.protocol;
  if (url === undefined || (protocol !== 'http:' && protocol !== 'https:') || isShunned(url.origin)) {
    process.nextTick(() => events.onRefused());
    return { write: () => true, end: () => {}, destroy: () => {} };
  }
  let state: 'asking' | 'sending' | 'over' = 'asking';
  const headers = { 'content-length': size, expect: '100-continue' };
  const { request: open } = httpOf(protocol);
  const request = open(url, { method: 'PUT', headers, agent: agents[protocol] });
  const timer = setTimeout(() => request.destroy(new Error('not asked for the body in time')), askLimit);
  const over = (then: () => void) => {
    clearTimeout(timer);
    if (state === 'over') return;
    state = 'over';
    then();
  };

  limitConnecting(request, connectLimit, () => unreachable.set(url.origin, performance.now() + shunned));
  request.on('continue', () => {
    clearTimeout(timer);
    if (state !== 'asking') return;
    state = 'sending';
    events.onReady();
  });
  request.on('drain', () => state === 'sending' && events.onDrain());
  request.on('response', (response: IncomingMessage) => {
    const wasAsking = state === 'asking';
    const isTaken = response.statusCode === 200 && request.writableEnded;
    response.on('error', () => {}).resume();
    over(() => (wasAsking ? events.onRefused() : isTaken ? events.onTaken() : events.onFailed()));
    // What is not all sent can't be followed by another request on that connection.
    if (!request.writableEnded) request.destroy();
  });
  request.on('error', () => {
    const wasAsking = state === 'asking';
    over(() => (wasAsking ? events.onRefused() : events.onFailed()));
  });
  request.flushHeaders();

  return {
    write: (bytes) => request.write(bytes, () => release(bytes)),
    end: () => request.end(),
    destroy() {
      over(() => {});
      request.destroy();
    },
  };
}

function isShunned(origin: string): boolean {
  const until = unreachable.get(origin);
  if (until === undefined) return false;
  if (performance.now() < until) return true;
  unreachable.delete(origin);
  return false;
}
