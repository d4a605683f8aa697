import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Metadata, ServiceError } from '@grpc/grpc-js';
import { bytesIn, handOverKeys, headOnlyKey, release } from '#lib/rpc/raw-body.ts';
import { maxTimerMs } from '#lib/deadline.ts';
import { minDownloadRate } from '#lib/rate-floor.ts';
import { callerKey } from '#lib/rpc/status.ts';
import type { RawBody } from '../rules/stream-bindings.ts';
import { asIs, Outgoing, type CallOptions } from './call.ts';
import { downloadHead, type DownloadHead } from './download-head.ts';
import { openDirectDownload, type DirectDownload } from './direct-download.ts';
import { fromMetadata } from '../grpc/metadata.ts';
import { recordCaller } from '../http/request-details.ts';
import { FlowControl } from './flow-control.ts';
import { hasPreconditions } from '../http/preconditions.ts';
import { Problem } from '../http/problem.ts';
import { PacedResponse } from './paced-response.ts';
import { sendWhole } from '../http/lingering-close.ts';

/** What a download needs. */
export interface DownloadOptions extends CallOptions {
  rawBody: RawBody;
  /** Milliseconds in which a client takes at least as much as `minDownloadRate` says, or is cut off. */
  idle: number;
}

/**
 * Answers a request with the bytes that a server-streaming RPC sends, at the pace of the client. A backend may name a place that
 * has them instead; if that can't be reached, the backend is asked for them after all.
 *
 * An answer that can't be finished ends with its connection, so that it never looks complete.
 *
 * @throws Problem or Error, also in the middle of the answer
 */
export async function answerDownload(
  request: IncomingMessage,
  response: ServerResponse,
  values: readonly string[],
  query: string,
  options: DownloadOptions,
): Promise<void> {
  const outgoing = new Outgoing(request, response, options);
  const headers = askedBy(request);
  const message = outgoing.message({ values, query, headers });
  const isOfRange = headers.range !== undefined;
  const head = () => headOf(request, response, values, query, options);
  // Conditions come before ranges (RFC 9110, 13.2.2), and of a range that lies outside the backend says nothing else.
  if (isOfRange && hasPreconditions(headers)) {
    const { status, headers: answered } = await head();
    if (status === 304) return sendWhole(response, status, answered);
  }
  const receiving = (mayFetch: boolean) => receive(request, response, options, outgoing, message, mayFetch);
  const mayFetch = request.method !== 'HEAD';
  try {
    if ((await receiving(mayFetch)) === 'unreachable') await receiving(false);
  } catch (error) {
    throw isOfRange && error instanceof Problem && error.status === 416 ? await withLength(error, head) : error;
  }
}

/** The same for a range that lies outside, which says how long the whole is (RFC 9110, 15.5.17). */
async function withLength(problem: Problem, head: () => Promise<DownloadHead>): Promise<Problem> {
  const { length } = await head().catch(() => ({ length: undefined }));
  if (length === undefined) return problem;
  const { code, message: detail, cause } = problem;
  return new Problem(416, code, detail, { cause, headers: { 'Content-Range': `bytes */${length}` } });
}

/** Asks the backend for the head of all of it, without a range. @throws Problem 412 if the request's conditions are not met */
function headOf(
  request: IncomingMessage,
  response: ServerResponse,
  values: readonly string[],
  query: string,
  options: DownloadOptions,
): Promise<DownloadHead> {
  const { backend, binding, dialect, rawBody } = options;
  const outgoing = new Outgoing(request, response, options);
  const message = outgoing.message({ values, query, headers: withoutRange(request.headers) });
  outgoing.sent[headOnlyKey] = '1';
  const { metadata, deadline } = outgoing;
  const upstream = backend.streams.makeServerStreamRequest(binding.rpcPath, asIs, asIs, message, metadata, {
    deadline,
  });
  const cancel = () => upstream.cancel();
  response.on('close', cancel);
  return new Promise<DownloadHead>((resolve, reject) => {
    upstream.on('data', (encoded: Buffer) => {
      try {
        const fields = dialect.transcoder.fields(binding, encoded);
        const { successStatus } = binding;
        resolve(
          downloadHead(successStatus, rawBody.responseHeaders, fields, request.method as string, request.headers),
        );
      } catch (error) {
        reject(error as Error);
      }
      cancel();
    });
    upstream.on('error', (error: ServiceError) => reject(outgoing.refusal(error)));
    upstream.on('end', () => reject(new Error(`${binding.rpcPath} answered nothing at all`)));
  }).finally(() => response.off('close', cancel));
}

/** The headers that may be fields. */
function askedBy({ method, headers }: IncomingMessage): IncomingHttpHeaders {
  // Ranges are defined for GET alone (RFC 9110, 14.2).
  return method === 'HEAD' ? withoutRange(headers) : headers;
}

function withoutRange({ range: _ofNoUse, ...others }: IncomingHttpHeaders): IncomingHttpHeaders {
  return others;
}

/** How a body came to its end, or that it has to come over the stream. */
type Ending = 'over' | 'unreachable';

/**
 * Asks the backend, and passes on what it sends.
 *
 * @param mayFetch whether the backend may name a place where the body is
 */
function receive(
  request: IncomingMessage,
  response: ServerResponse,
  { backend, binding, dialect, rawBody, idle }: DownloadOptions,
  outgoing: Outgoing,
  message: Buffer,
  mayFetch: boolean,
): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const flowControl = new FlowControl();
    let isOpen = true;
    let metadata: Metadata | undefined;
    /** What was said of the body; undefined until the first message is there. */
    let head: DownloadHead | undefined;
    /** Bytes that are still to come, Infinity if nobody said. */
    let left = Infinity;
    let location: string | undefined;
    let fetched: DirectDownload | undefined;
    let pacedResponse: PacedResponse | undefined;

    if (mayFetch) outgoing.sent[handOverKeys.offer] = 'get';
    else delete outgoing.sent[handOverKeys.offer];
    if (request.method === 'HEAD') outgoing.sent[headOnlyKey] = '1';
    const upstream = backend.streams.makeServerStreamRequest(binding.rpcPath, asIs, asIs, message, outgoing.metadata, {
      deadline: outgoing.deadline,
      interceptors: [flowControl.interceptor],
    });
    const close = (then: () => void) => {
      if (!isOpen) return;
      isOpen = false;
      clearTimeout(late);
      response.off('close', cancel);
      fetched?.destroy();
      then();
    };
    const cancel = () => {
      close(() => {
        upstream.cancel();
        resolve('over');
      });
    };
    const fail = (error: unknown) => close(() => reject(error as Error));
    response.on('close', cancel);
    // The call itself may be over long before its body is.
    const late = setTimeout(
      () =>
        location !== undefined && fail(new Problem(504, 'DEADLINE_EXCEEDED', 'The request took longer than it may')),
      Math.min(Math.max(outgoing.deadline - Date.now(), 0), maxTimerMs),
    );

    const begin = ({ status, headers }: DownloadHead, resume: () => void) => {
      response.writeHead(status, headers);
      pacedResponse = new PacedResponse(response, { ...minDownloadRate, window: idle }, resume);
    };
    const end = () => {
      pacedResponse?.end();
      close(() => resolve('over'));
    };
    const first = (encoded: Uint8Array) => {
      const fields = dialect.transcoder.fields(binding, encoded);
      head = downloadHead(
        binding.successStatus,
        rawBody.responseHeaders,
        fields,
        request.method as string,
        request.headers,
      );
      Object.assign(head.headers, dialect.headersOf(fromMetadata(metadata)));
      if (request.method === 'HEAD' || head.status === 304) {
        sendWhole(response, head.status, head.headers);
        cancel();
        return;
      }
      left = head.length ?? Infinity;
      if (location === undefined) begin(head, () => flowControl.resume());
    };

    const fetch = (from: string, said: DownloadHead) => {
      const range = rangeOf(said);
      if (range === undefined) {
        close(() => resolve('unreachable'));
        return;
      }
      fetched = openDirectDownload(from, range.start, range.end, {
        onReady: () => begin(said, () => fetched?.resume()),
        onBytes: (bytes) => pacedResponse!.write(bytes, () => release(bytes)),
        onWhole: end,
        onRefused: () => close(() => resolve('unreachable')),
        onFailed: fail,
      });
    };

    upstream.on('metadata', (received: Metadata) => {
      metadata = received;
      const [named] = received.get(handOverKeys.location);
      if (mayFetch && typeof named === 'string') location = named;
    });
    upstream.on('status', ({ metadata: trailers }) => recordCaller(response, trailers.get(callerKey)[0]));
    upstream.on('data', (encoded: Buffer) => {
      if (!isOpen) return;
      try {
        if (outgoing.isWrong) throw outgoing.wrong();
        if (head === undefined) first(encoded);
        const bytes = isOpen && location === undefined ? bytesIn(rawBody.bytes, encoded) : undefined;
        if (bytes === undefined) return;
        left -= bytes.length;
        if (left < 0) throw new Error(`${binding.rpcPath} sent more than it said`);
        if (!pacedResponse!.write(bytes, () => release(encoded))) flowControl.pause();
      } catch (error) {
        fail(error);
        upstream.cancel();
      }
    });
    upstream.on('error', (error: ServiceError) => fail(outgoing.refusal(error)));
    upstream.on('end', () => {
      if (!isOpen) return;
      if (outgoing.isWrong) fail(outgoing.wrong());
      else if (head === undefined) fail(new Error(`${binding.rpcPath} answered nothing at all`));
      else if (location !== undefined) fetch(location, head);
      else if (left > 0 && left !== Infinity) fail(new Error(`${binding.rpcPath} sent less than it said`));
      else end();
    });
  });
}

/** Which bytes of what a place has are the body. @returns undefined if that was not said, or there are none */
function rangeOf({ headers, length }: DownloadHead): { start: number; end: number } | undefined {
  if (length === undefined || length === 0) return undefined;
  const range = headers['content-range'];
  if (range === undefined) return { start: 0, end: length };
  const start = Number(/^bytes (\d+)-/.exec(range)?.[1]);
  return Number.isSafeInteger(start) ? { start, end: start + length } : undefined;
}
