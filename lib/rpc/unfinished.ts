import { constants, type ClientHttp2Stream } from 'node:http2';

/**
 * Makes an aborted request never look complete to the server: it is reset (RST_STREAM) without END_STREAM before.
 *
 * grpc-js ends a stream that it cancels, or whose answer came early, and so does Node before it closes one. The server would see the end of
 * the messages first, and may act on it before it sees the reset. This holds whatever aborts a call: its caller, its deadline, or an answer
 * that comes before everything was sent.
 */
export function neverEndUnfinished(stream: ClientHttp2Stream): void {
  const close = stream.close.bind(stream);
  const end = stream.end.bind(stream) as (...given: unknown[]) => ClientHttp2Stream;
  let isAnswered = false;
  const reset = () => {
    // Node's server treats a reset with CANCEL as a normal end of the request. An error makes Node reset with INTERNAL_ERROR.
    if (!stream.destroyed) stream.destroy(new Error('The request was broken off before its end'));
  };
  stream.once('response', (_headers, flags: number) => {
    if ((flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0) isAnswered = true;
  });
  stream.once('trailers', () => (isAnswered = true));
  stream.close = (code, callback) => {
    if (stream.writableEnded) close(code, callback);
    else reset();
  };
  stream.end = ((...given: unknown[]) => {
    if (!isAnswered || stream.writableEnded) return end(...given);
    // Only once the whole answer was read: a destroyed stream can't be read. Counted like any other cancellation.
    const giveUp = () => stream.close(constants.NGHTTP2_CANCEL);
    if (stream.readableEnded) giveUp();
    else stream.once('end', giveUp);
    return stream;
  }) as typeof stream.end;
}
