import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Logger } from '#lib/log.ts';
import { counter } from '#lib/metrics.ts';
import { Shares } from '#lib/shares.ts';
import { limitConnections } from './connections.ts';
import { Problem } from './problem.ts';

export interface AdmissionOptions {
  /** How many unary calls may be under way at once; everything else follows from that. */
  places: number;
  /** Bytes that a JSON body may have. */
  bodyLimit: number;
  /** The client that a request counts for. */
  clientOf(request: IncomingMessage, response: ServerResponse): string;
  log: Logger;
}

/** What is limited, as it is called in metrics and in the log. */
type Limited = 'calls' | 'streams' | 'standing' | 'bodies' | 'connections' | 'backends';

/** A stream lasts up to an hour, a unary call for seconds: streams have places of their own and take none of those of calls. */
const streamsPerCall = 0.5;
/** A call that waits for events holds a socket and next to nothing else. */
const standingPerCall = 10;
/** A body that is on its way holds no more than a socket and `pieceSize` bytes, so there may be more of them than calls. */
const bodiesPerCall = 4;
/** Clients keep connections for their next request, and browsers open several at once. */
const connectionsPerCall = 10;
/** Bodies count in pieces of so many bytes beyond their first: as many as one read from a socket gives. */
const pieceSize = 64 * 1024;
/** Bytes of bodies that may be held in memory together: what a small machine can spare, but no fewer than some of the largest bodies. */
const minBodyBytes = 256 * 1024 * 1024;
const minLargestBodies = 8;
/** How often refusals are logged at most: a line for each would cost what there is too little of. */
const logIntervalMs = 10_000;

const refused = counter('http_refused_total', 'Requests and connections for which there was no place', {
  of: ['calls', 'streams', 'standing', 'bodies', 'connections', 'backends'] satisfies Limited[],
  why: ['full', 'share'],
});

/**
 * Decides, in one place, for what there is room: unary calls, streams (uploads, downloads, streams of messages), bodies that are
 * being read, and connections. Each has places of its own, so that none of them keeps the others out, and of each all clients
 * get fair shares (`Shares`): one alone at most half.
 */
export class Admission {
  readonly #clientOf: AdmissionOptions['clientOf'];
  readonly #log: Logger;
  readonly #calls: Places;
  readonly #streams: Places;
  readonly #standing: Places;
  readonly #bodies: Places;
  readonly #pieces: Places;
  readonly #connections: Places;
  #refused: Partial<Record<Limited, number>> = {};
  #loggedAt = Number.NEGATIVE_INFINITY;

  constructor({ places, bodyLimit, clientOf, log }: AdmissionOptions) {
    this.#clientOf = clientOf;
    this.#log = log;
    const bytes = Math.max(minBodyBytes, minLargestBodies * bodyLimit);
    this.#calls = new Places('calls', places);
    this.#streams = new Places('streams', places * streamsPerCall);
    this.#standing = new Places('standing', places * standingPerCall);
    this.#bodies = new Places('bodies', places * bodiesPerCall);
    this.#pieces = new Places('bodies', bytes / pieceSize);
    this.#connections = new Places('connections', places * connectionsPerCall);
  }

  /**
   * Takes a place for a unary call, all of which is there, until its answer is taken.
   *
   * @throws Problem 503 or 429
   */
  call(request: IncomingMessage, response: ServerResponse): void {
    this.#hold(this.#calls, request, response);
  }

  /** The same for an upload, a download or a stream of messages. @throws Problem 503 or 429 */
  stream(request: IncomingMessage, response: ServerResponse): void {
    this.#hold(this.#streams, request, response);
  }

  /** The same for a call that stays open for long, with next to nothing to do. @throws Problem 503 or 429 */
  standing(request: IncomingMessage, response: ServerResponse): void {
    this.#hold(this.#standing, request, response);
  }

  /**
   * Takes a place for a body that doesn't come with the head of its request, until `end` is called. The bytes that it is told of
   * count until the answer is taken, since they are held until then.
   *
   * @throws Problem 503 or 429; so does `grow`
   */
  body(request: IncomingMessage, response: ServerResponse): { grow(size: number): void; end(): void } {
    const end = this.#take(this.#bodies, request, response);
    const pieces: (() => void)[] = [];
    const grow = (size: number) => {
      if (size <= (pieces.length + 1) * pieceSize) return;
      if (pieces.length === 0) response.on('close', () => pieces.forEach((leave) => leave()));
      while (size > (pieces.length + 1) * pieceSize) pieces.push(this.#take(this.#pieces, request, response));
    };
    return { grow, end };
  }

  /** Gives each connection of a server a place, and closes at once those for which there is none. */
  connections(server: Server): void {
    limitConnections(server, (client) => {
      const leave = this.#connections.take(client);
      if (leave === undefined) this.#tell(this.#connections);
      return leave;
    });
  }

  /**
   * Whether a problem says that there is too much to do, here or in a backend, or too much of one client. All of those together
   * leave a line in the log now and then, so they need none of their own.
   */
  isRefusal({ code, cause }: Problem): boolean {
    if (code !== 'OVERLOADED' && code !== 'TOO_MANY_CALLS') return false;
    // What a backend has said has its error for a cause.
    if (cause !== undefined) this.#tell({ of: 'backends', isFull: code === 'OVERLOADED' });
    return true;
  }

  #hold(places: Places, request: IncomingMessage, response: ServerResponse): void {
    const leave = this.#take(places, request, response);
    // There is no second `close` event.
    if (response.destroyed) leave();
    else response.on('close', leave);
  }

  #take(places: Places, request: IncomingMessage, response: ServerResponse): () => void {
    const leave = places.take(this.#clientOf(request, response));
    if (leave !== undefined) return leave;
    this.#tell(places);
    throw places.isFull ? overloaded() : tooManyAtOnce();
  }

  #tell({ of, isFull }: Pick<Places, 'of' | 'isFull'>): void {
    refused.inc({ of, why: isFull ? 'full' : 'share' });
    this.#refused[of] = (this.#refused[of] ?? 0) + 1;
    if (performance.now() - this.#loggedAt < logIntervalMs) return;
    this.#log.warn(
      { refused: this.#refused },
      'there is more to do than can be done, or than is for one client: it is refused',
    );
    this.#refused = {};
    this.#loggedAt = performance.now();
  }
}

/** The places of one kind. */
class Places {
  readonly of: Limited;
  readonly #shares: Shares;

  constructor(of: Limited, count: number) {
    this.of = of;
    this.#shares = new Shares(Math.max(2, Math.floor(count)));
  }

  get isFull(): boolean {
    return this.#shares.isFull;
  }

  take(client: string): (() => void) | undefined {
    return this.#shares.take(client);
  }
}

function overloaded(): Problem {
  return new Problem(503, 'OVERLOADED', 'Too many requests at once: try again a little later', { retryAfter: 1 });
}

function tooManyAtOnce(): Problem {
  const detail = 'You have more requests under way than your share: wait until some have ended';
  return new Problem(429, 'TOO_MANY_CALLS', detail, { retryAfter: 1 });
}
