import type { Duplex } from 'node:stream';
import type { ClientWritableStream } from '@grpc/grpc-js';

/** What grpc-js 1.14 has inside a stream, down to that of HTTP/2. */
interface Inside {
  call?: { call?: { child?: { underlyingCalls?: { call?: { child?: { http2Stream?: Duplex } } }[] } } };
}

/**
 * Cancels a call that sends a stream, so that the server never takes it for one that came to its end.
 *
 * `cancel` alone doesn't do that: Node then ends the HTTP/2 stream before it resets it, so that the server sees the end
 * of the messages first, and may have acted on it when it learns the truth. A stream that is destroyed is only reset; and
 * because that is with another code than CANCEL, a server in Node doesn't make an end of it by itself either. grpc-js has
 * no public way to the stream; where its inside has changed, the tests of uploads that are cut off fail.
 */
export function cut(upstream: ClientWritableStream<Buffer>): void {
  const [attempt] = (upstream as unknown as Inside).call?.call?.child?.underlyingCalls ?? [];
  attempt?.call?.child?.http2Stream?.destroy(new Error('The body was cut off'));
  upstream.cancel();
}
