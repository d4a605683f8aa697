import type { Agent, ClientRequest, IncomingMessage } from 'node:http';
import { httpOf, limitConnecting } from '#lib/http.ts';
import { release } from '#lib/rpc/raw-body.ts';
import { unavailable } from './failures.ts';
import { exactly } from './pieces.ts';
import type { Bytes } from './storage.ts';
import { fieldOf } from './xml.ts';

/** Milliseconds that a store may keep us waiting without any progress. The time that the other side takes doesn't count. */
const idleLimit = 30_000;
/** Milliseconds that a connection may take. */
const connectLimit = 5_000;
/** Bytes of an answer that is read for its error code. */
const largestRefusal = 64 * 1024;
/** Bytes that are given on at once. */
const pieceSize = 128 * 1024;

/** A request to the store, signed. */
export interface SignedRequest {
  method: string;
  url: URL;
  headers: Record<string, string>;
}

/** An answer of the store that is not success: its status, and what S3 calls the reason (`NoSuchKey`). */
export class Refusal extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.name = 'Refusal';
    this.status = status;
    this.code = code;
  }
}

/**
 * Whether a request failed on a connection that was kept open and that the store had closed meanwhile, as it does when it
 * restarts: it is worth another try at once, on a new one.
 */
export function wasClosed(request: ClientRequest, error: Error): boolean {
  const { code } = error as NodeJS.ErrnoException;
  // The listener goes when an answer comes.
  return request.reusedSocket && request.listenerCount('response') > 0 && (code === 'ECONNRESET' || code === 'EPIPE');
}

/**
 * Sends `size` bytes. The last of them is sent only when `bytes` has ended well, so that the store never has all of a body
 * that isn't to be stored; from then on, the signal has no effect any more.
 *
 * @throws Refusal, HubError `STORE_UNAVAILABLE`, the signal's reason, or what `bytes` throws
 */
export async function send(
  agent: Agent,
  signed: SignedRequest,
  size: number,
  bytes: Bytes,
  signal: AbortSignal,
): Promise<void> {
  if ((await sendThrough(agent, signed, size, bytes, signal)) === 'closed') {
    await sendThrough(false, signed, size, bytes, signal);
  }
}

/** @returns `closed` if nothing was sent, since there was no connection any more */
async function sendThrough(
  agent: Agent | false,
  signed: SignedRequest,
  size: number,
  bytes: Bytes,
  signal: AbortSignal,
): Promise<'sent' | 'closed'> {
  signal.throwIfAborted();
  // Ends the wait for bytes, and `interrupt` the wait for the store.
  const failed = new AbortController();
  let interrupt: (reason: unknown) => void = () => {};
  const fail = (reason: unknown) => {
    failed.abort(reason);
    interrupt(failed.signal.reason);
  };
  const abort = () => fail(signal.reason);
  const watch = watchdog(() => fail(unavailable(new Error(`no progress for ${idleLimit} ms`))));
  /** Waits for the store to do something. */
  function until<T>(begin: (done: (value: T) => void) => void): Promise<T> {
    return new Promise((resolve, reject) => {
      if (failed.signal.aborted) return reject(failed.signal.reason as Error);
      interrupt = reject;
      watch.start();
      begin((value) => {
        watch.stop();
        resolve(value);
      });
    });
  }

  // The store looks at the request before it asks for the body: a refusal then costs nothing, and is always read, which it
  // is not by those who are busy sending while the connection is closed. Nobody asks for a body that is empty.
  const headers = size > 0 ? { ...signed.headers, expect: '100-continue' } : signed.headers;
  const request = open(agent, { ...signed, headers });
  let step: 'asking' | 'sending' | 'sent' = 'asking';
  let closed = false;
  request.once('response', (response) => {
    if (step !== 'sent') void readRefusal(response).then(fail);
  });
  request.on('error', (error) => {
    closed = step === 'asking' && wasClosed(request, error);
    fail(unavailable(error));
  });
  signal.addEventListener('abort', abort);
  try {
    if (size > 0) {
      await until<void>((done) => {
        request.once('continue', done);
        request.flushHeaders();
      });
    }
    step = 'sending';
    let left = size;
    let last: Uint8Array | undefined;
    for await (const piece of exactly(bytes, size, failed.signal)) {
      left -= piece.byteLength;
      const now = left > 0 ? piece : piece.subarray(0, -1);
      if (left === 0) last = Uint8Array.of(piece.at(-1)!);
      // Waits until the kernel has it all, since the piece may be reused then. It has buffers of its own, so the connection
      // doesn't run dry meanwhile.
      if (now.byteLength > 0) {
        await until<void>((done) => void request.write(now, (error) => (error ? fail(unavailable(error)) : done())));
      }
    }
    signal.removeEventListener('abort', abort);
    const response = await until<IncomingMessage>((done) => {
      step = 'sent';
      request.once('response', done);
      request.end(last);
    });
    if (response.statusCode !== 200) throw await readRefusal(response);
    response.on('error', () => {});
    response.resume();
    return 'sent';
  } catch (error) {
    request.destroy();
    if (closed) return 'closed';
    throw error;
  } finally {
    signal.removeEventListener('abort', abort);
    watch.end();
  }
}

/**
 * Reads a body of `size` bytes.
 *
 * @throws Refusal, also for a body of another size; HubError `STORE_UNAVAILABLE`; or the signal's reason
 */
export async function* receive(
  agent: Agent,
  signed: SignedRequest,
  size: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  signal.throwIfAborted();
  let request: ClientRequest | undefined;
  const watch = watchdog(() => request?.destroy(new Error(`no progress for ${idleLimit} ms`)));
  const abort = () => request?.destroy(new Error('aborted'));
  /** Waits for the head of the answer. */
  function ask(agent: Agent | false): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const asking = open(agent, signed);
      request = asking;
      // Stays on: errors come here as well when nobody is waiting.
      asking.on('error', (error) => (wasClosed(asking, error) ? resolve(ask(false)) : reject(error)));
      asking.once('response', resolve);
      asking.end();
    });
  }
  signal.addEventListener('abort', abort);
  try {
    watch.start();
    const response = await ask(agent);
    // Node's parser, which is called first, has copied what it hands on.
    const { socket } = response;
    socket.on('data', release);
    request!.on('close', () => socket.off('data', release));
    if (response.statusCode !== 200 && response.statusCode !== 206) throw await readRefusal(response);
    const length = response.headers['content-length'];
    if (length !== String(size)) {
      // A shorter object has less of the range. Who sends the whole of it, or doesn't say how much there is, knows no ranges.
      const code = response.statusCode === 206 && length !== undefined ? 'InvalidRange' : '';
      throw new Refusal(
        response.statusCode,
        code,
        `${length ?? 'Any number of'} bytes are offered of a range of ${size}`,
      );
    }
    // They come in pieces of 64 KiB at most, each of which would cost as much on its way as a large one. The buffer is
    // used again, as the port allows.
    const buffer = Buffer.allocUnsafeSlow(Math.min(pieceSize, size));
    let filled = 0;
    for await (const part of response as AsyncIterable<Buffer>) {
      for (let taken = 0; taken < part.byteLength;) {
        const count = part.copy(buffer, filled, taken);
        taken += count;
        filled += count;
        if (filled < buffer.byteLength) continue;
        filled = 0;
        watch.stop();
        yield buffer;
      }
      release(part);
      watch.start();
    }
    if (filled > 0) yield buffer.subarray(0, filled);
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof Refusal ? error : unavailable(error);
  } finally {
    signal.removeEventListener('abort', abort);
    watch.end();
    // Without effect on a connection whose answer has been read to its end.
    request?.destroy();
  }
}

/** Bites if a wait for the store lasts too long. */
function watchdog(bite: () => void) {
  let since: number | undefined;
  // One timer that looks now and then is cheaper than one for each wait.
  const timer = setInterval(() => {
    if (since !== undefined && performance.now() - since > idleLimit) bite();
  }, idleLimit / 10);
  return {
    start() {
      since = performance.now();
    },
    stop() {
      since = undefined;
    },
    end() {
      clearInterval(timer);
    },
  };
}

/** Opens a request, which fails if no connection is had in time. */
function open(agent: Agent | false, { method, url, headers }: SignedRequest): ClientRequest {
  const request = httpOf(url.protocol).request(url, { method, headers, agent });
  limitConnecting(request, connectLimit);
  return request;
}

/** What an answer that is not success says. */
async function readRefusal(response: IncomingMessage): Promise<Error> {
  const status = response.statusCode!;
  let text = '';
  try {
    for await (const piece of response.setEncoding('utf8')) {
      text += piece;
      if (text.length > largestRefusal) break;
    }
  } catch (error) {
    return unavailable(error);
  }
  return new Refusal(status, fieldOf(text, 'Code') ?? '', fieldOf(text, 'Message') ?? `HTTP status ${status}`);
}
