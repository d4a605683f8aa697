import type { Agent, ClientRequest, IncomingMessage } from 'node:http';
import { httpOf, limitConnecting } from '#lib/http.ts';
import { release } from '#lib/rpc/raw-body.ts';
import { unavailable } from './failures.ts';
import { exactly } from './pieces.ts';
import type { Bytes } from './storage.ts';
import { fieldOf } from './xml.ts';

/** How long a store may make no progress. The time that the other side takes doesn't count. */
const idleTimeoutMs = 30_000;
const connectTimeoutMs = 5_000;
/** The maximum size of an error answer. */
const maxRefusalChars = 64 * 1024;
/** The size of the pieces that are passed on. */
const pieceBytes = 128 * 1024;

/** A request to the store, signed. */
export interface SignedRequest {
  method: string;
  url: URL;
  headers: Record<string, string>;
}

/** An error answer of the store: its status and S3's error code (`NoSuchKey`). */
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
 * Whether a request failed because the store had closed its kept-alive connection, for example in a restart: it can be repeated at once on
 * a new connection.
 */
export function wasClosed(request: ClientRequest, error: Error): boolean {
  const { code } = error as NodeJS.ErrnoException;
  // The listener is removed when an answer comes.
  return request.reusedSocket && request.listenerCount('response') > 0 && (code === 'ECONNRESET' || code === 'EPIPE');
}

/**
 * Sends `size` bytes. The last byte is sent only when `bytes` has completed, so that the store never gets the whole of a body that must not
 * be stored. After that the signal has no effect any more.
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

/** @returns `closed` if nothing was sent, because the connection had been closed */
async function sendThrough(
  agent: Agent | false,
  signed: SignedRequest,
  size: number,
  bytes: Bytes,
  signal: AbortSignal,
): Promise<'sent' | 'closed'> {
  signal.throwIfAborted();
  // This ends the wait for bytes; `interrupt` ends the wait for the store.
  const failed = new AbortController();
  let interrupt: (reason: unknown) => void = () => {};
  const fail = (reason: unknown) => {
    failed.abort(reason);
    interrupt(failed.signal.reason);
  };
  const abort = () => fail(signal.reason);
  const watch = watchdog(() => fail(unavailable(new Error(`no progress for ${idleTimeoutMs} ms`))));
  /** Waits for the store, up to `idleTimeoutMs`. */
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

  // With `Expect: 100-continue` the store answers before the body is sent: so a refusal costs nothing and is always read, whereas a sender
  // might only see the connection close. Not with an empty body, for which no 100 is sent.
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
      // Waits until the kernel has accepted the piece, whose memory may be reused after that. The kernel's buffers keep the connection busy
      // meanwhile.
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
  const watch = watchdog(() => request?.destroy(new Error(`no progress for ${idleTimeoutMs} ms`)));
  const abort = () => request?.destroy(new Error('aborted'));
  /** Waits for the response's head. */
  function ask(agent: Agent | false): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const asking = open(agent, signed);
      request = asking;
      // The listener stays: later errors must be handled as well.
      asking.on('error', (error) => (wasClosed(asking, error) ? resolve(ask(false)) : reject(error)));
      asking.once('response', resolve);
      asking.end();
    });
  }
  signal.addEventListener('abort', abort);
  try {
    watch.start();
    const response = await ask(agent);
    // Node's HTTP parser runs first and has copied the bytes.
    const { socket } = response;
    socket.on('data', release);
    request!.on('close', () => socket.off('data', release));
    if (response.statusCode !== 200 && response.statusCode !== 206) throw await readRefusal(response);
    const length = response.headers['content-length'];
    if (length !== String(size)) {
      // A shorter object gives a shorter range. A server that sends the whole object, or no length, doesn't support ranges.
      const code = response.statusCode === 206 && length !== undefined ? 'InvalidRange' : '';
      throw new Refusal(
        response.statusCode,
        code,
        `${length ?? 'Any number of'} bytes are offered of a range of ${size}`,
      );
    }
    // Chunks of 64 KiB at most are collected into larger pieces, since each piece has a fixed cost. The buffer is reused, as the port
    // allows.
    const buffer = Buffer.allocUnsafeSlow(Math.min(pieceBytes, size));
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
    // No effect if the answer has been read to its end.
    request?.destroy();
  }
}

/** Calls `onStall` if a wait for the store takes too long. */
function watchdog(onStall: () => void) {
  let since: number | undefined;
  // One interval is cheaper than a timer for each wait.
  const timer = setInterval(() => {
    if (since !== undefined && performance.now() - since > idleTimeoutMs) onStall();
  }, idleTimeoutMs / 10);
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

/** Opens a request, which fails if it isn't connected in time. */
function open(agent: Agent | false, { method, url, headers }: SignedRequest): ClientRequest {
  const request = httpOf(url.protocol).request(url, { method, headers, agent });
  limitConnecting(request, connectTimeoutMs);
  return request;
}

/** Reads an error answer. */
async function readRefusal(response: IncomingMessage): Promise<Error> {
  const status = response.statusCode!;
  let text = '';
  try {
    for await (const piece of response.setEncoding('utf8')) {
      text += piece;
      if (text.length > maxRefusalChars) break;
    }
  } catch (error) {
    return unavailable(error);
  }
  return new Refusal(status, fieldOf(text, 'Code') ?? '', fieldOf(text, 'Message') ?? `HTTP status ${status}`);
}
