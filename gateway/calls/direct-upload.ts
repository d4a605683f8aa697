import type { ClientRequest, IncomingMessage } from 'node:http';
import { httpOf, limitConnecting, openAgent, receivingMark, sendingMark } from '#lib/http.ts';
import { release } from '#lib/rpc/raw-body.ts';

/** How long a connection may take, and then `100 Continue`. */
const connectTimeoutMs = 1_000;
const askTimeoutMs = 5_000;
/** How long an origin is avoided that could not be reached. */
const avoidMs = 30_000;

/** How long a store may be silent in the middle of a body, while more of it is wanted. */
const silenceTimeoutMs = 20_000;

const agents = { 'http:': openAgent('http:', sendingMark), 'https:': openAgent('https:', sendingMark) };
const readingAgents = { 'http:': openAgent('http:', receivingMark), 'https:': openAgent('https:', receivingMark) };

/** Until when an origin is avoided, in milliseconds since the start of the process. */
const unreachable = new Map<string, number>();

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

/** A range of what is at a URL, on its way from there. */
export interface DirectDownload {
  /** More of it is wanted, after `onBytes` has said that it is enough. */
  resume(): void;
  /** Nothing more of it is wanted. */
  destroy(): void;
}

/** One of the last three is called, once, unless the download is destroyed. */
export interface DirectDownloadEvents {
  /** The other side has it, and sends it. */
  onReady(): void;
  /** @returns false to be given no more until `resume` is called */
  onBytes(bytes: Buffer): boolean;
  /** All of it was given. */
  onWhole(): void;
  /** The other side doesn't have it, or can't be reached, before a byte came. */
  onRefused(): void;
  /** A part was given, and the rest doesn't come. */
  onFailed(error: Error): void;
}

/**
 * Gets the bytes from `start` up to `end`, exclusive, of what is at a URL. A store may close the connection to a slow reader: then it is
 * asked for the rest, as long as each request brings some bytes and the content is still the same (If-Match).
 */
export function openDirectDownload(
  location: string,
  start: number,
  end: number,
  events: DirectDownloadEvents,
): DirectDownload {
  let at = start;
  let isOver = false;
  let isReady = false;
  let isPaused = false;
  let tag: string | undefined;
  let request: ClientRequest | undefined;
  let answer: IncomingMessage | undefined;
  const timer = setTimeout(() => {
    if (isPaused) timer.refresh();
    else request?.destroy(new Error(`nothing came for ${silenceTimeoutMs} ms`));
  }, silenceTimeoutMs);
  const over = (then: () => void) => {
    if (isOver) return;
    isOver = true;
    clearTimeout(timer);
    // Without effect on a connection whose answer has been read to its end.
    request?.destroy();
    then();
  };
  const refuse = (error: Error) => over(() => (isReady ? events.onFailed(error) : events.onRefused()));

  function ask(place: Place, isFresh: boolean): void {
    const from = at;
    let wasBroken = false;
    const broken = (error: Error) => {
      if (isOver || wasBroken) return;
      wasBroken = true;
      asking.destroy();
      const again = isAvoided(place.url.origin) ? undefined : place;
      // One that was kept open may turn out to be closed: that says nothing of the store.
      if (again !== undefined && !isFresh && asking.reusedSocket && !isAnswered) ask(again, true);
      else if (again !== undefined && at > from) ask(again, false);
      else refuse(error);
    };
    let isAnswered = false;
    const headers = { range: `bytes=${at}-${end - 1}`, ...(tag !== undefined && { 'if-match': tag }) };
    const agent = isFresh ? false : readingAgents[place.protocol];
    const asking = httpOf(place.protocol).request(place.url, { headers, agent });
    request = asking;
    const limit = setTimeout(() => asking.destroy(new Error('no answer in time')), askTimeoutMs);
    limitConnecting(asking, connectTimeoutMs, () => avoid(place));
    asking.on('error', broken);
    asking.on('close', () => clearTimeout(limit));
    asking.on('response', (response: IncomingMessage) => {
      isAnswered = true;
      clearTimeout(limit);
      if (isOver) return;
      response.on('error', broken);
      if (!isRange(response, at, end)) {
        refuse(new Error(`the place of a body answers ${response.statusCode}, and not the range that was asked for`));
        return;
      }
      answer = response;
      tag ??= response.headers.etag;
      const { socket } = response;
      // Node's parser, which is called first, has copied what it hands on.
      socket.on('data', release);
      asking.on('close', () => socket.off('data', release));
      timer.refresh();
      response.on('data', (bytes: Buffer) => {
        if (isOver) return;
        timer.refresh();
        at += bytes.length;
        isPaused = !events.onBytes(bytes);
        if (isPaused) response.pause();
      });
      response.on('end', () => {
        if (at === end) over(() => events.onWhole());
        else broken(new Error('the answer ended before its time'));
      });
      if (isReady) return;
      isReady = true;
      events.onReady();
    });
    asking.end();
  }

  const place = placeOf(location);
  if (place === undefined) process.nextTick(() => refuse(new Error('there is no such place')));
  else ask(place, false);
  return {
    resume() {
      isPaused = false;
      timer.refresh();
      answer?.resume();
    },
    destroy: () => over(() => {}),
  };
}

/** Whether an answer has the bytes from `start` up to `end`, and as many as it should. */
function isRange({ statusCode, headers }: IncomingMessage, start: number, end: number): boolean {
  const { 'content-range': range = '', 'content-length': length, 'content-encoding': coding } = headers;
  if (coding !== undefined || length !== String(end - start)) return false;
  return statusCode === 206 ? range.startsWith(`bytes ${start}-${end - 1}/`) : statusCode === 200 && start === 0;
}

/** Where a body is put to or read from. */
interface Place {
  url: URL;
  protocol: 'http:' | 'https:';
}

/** Where a URL leads; undefined if nowhere, or to where nobody could be reached a moment ago. */
function placeOf(location: string): Place | undefined {
  const url = URL.canParse(location) ? new URL(location) : undefined;
  const protocol = url?.protocol;
  if (url === undefined || (protocol !== 'http:' && protocol !== 'https:') || isAvoided(url.origin)) return undefined;
  return { url, protocol };
}

function avoid({ url }: Place): void {
  unreachable.set(url.origin, performance.now() + avoidMs);
}

function isAvoided(origin: string): boolean {
  const until = unreachable.get(origin);
  if (until === undefined) return false;
  if (performance.now() < until) return true;
  unreachable.delete(origin);
  return false;
}
