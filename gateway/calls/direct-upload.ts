import type { IncomingMessage } from 'node:http';
import { httpOf, limitConnecting, openAgent, sendingMark } from '#lib/http.ts';
import { release } from '#lib/rpc/raw-body.ts';
import { askTimeoutMs, avoid, connectTimeoutMs, placeOf } from './direct-place.ts';

const agents = { 'http:': openAgent('http:', sendingMark), 'https:': openAgent('https:', sendingMark) };
/** A body on its way to the URL that a backend has named for it, such as one of an object store. */
export interface DirectUpload {
  /** @returns false to be given no more until `onDrain` is called */
  write(bytes: Buffer): boolean;
  /** All of the body was written. */
  end(): void;
  /** Aborts the request, so that the store never takes a partial body for the whole. */
  destroy(): void;
}

/** One of the last three is called, once, unless the upload is destroyed. */
export interface DirectUploadEvents {
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

/** Puts `size` bytes to a URL, after it has asked for them with `100 Continue`. */
export function openDirectUpload(location: string, size: number, events: DirectUploadEvents): DirectUpload {
  const place = placeOf(location);
  if (place === undefined) {
    process.nextTick(() => events.onRefused());
    return { write: () => true, end: () => {}, destroy: () => {} };
  }
  const { url, protocol } = place;
  let state: 'asking' | 'sending' | 'over' = 'asking';
  const headers = { 'content-length': size, expect: '100-continue' };
  const { request: open } = httpOf(protocol);
  const request = open(url, { method: 'PUT', headers, agent: agents[protocol] });
  const timer = setTimeout(() => request.destroy(new Error('not asked for the body in time')), askTimeoutMs);
  const over = (then: () => void) => {
    clearTimeout(timer);
    if (state === 'over') return;
    state = 'over';
    then();
  };

  limitConnecting(request, connectTimeoutMs, () => avoid(place));
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
