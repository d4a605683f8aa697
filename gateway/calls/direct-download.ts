import type { ClientRequest, IncomingMessage } from 'node:http';
import { httpOf, limitConnecting, openAgent, receivingMark } from '#lib/http.ts';
import { release } from '#lib/rpc/raw-body.ts';
import { askTimeoutMs, avoid, connectTimeoutMs, isAvoided, placeOf, type Place } from './direct-place.ts';

/** How long a store may be silent in the middle of a body, while more of it is wanted. */
const silenceTimeoutMs = 20_000;

const agents = { 'http:': openAgent('http:', receivingMark), 'https:': openAgent('https:', receivingMark) };

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
    const agent = isFresh ? false : agents[place.protocol];
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
