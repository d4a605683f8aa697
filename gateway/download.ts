import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Metadata, ServiceError } from '@grpc/grpc-js';
import { bytesIn, headOnlyKey, release } from '#lib/rpc/raw-body.ts';
import { callerKey } from '#lib/rpc/status.ts';
import type { RawBody } from './bindings.ts';
import { asIs, Outgoing, type CallOptions } from './call.ts';
import { downloadHead } from './download-head.ts';
import { fromMetadata, noteCaller } from './headers.ts';
import { Pace } from './pace.ts';
import { sendWhole } from './unread.ts';

/** What a download needs. */
export interface DownloadOptions extends CallOptions {
  rawBody: RawBody;
  /** Milliseconds after which a client is cut off that takes nothing. */
  idle: number;
}

/**
 * Answers a request with the bytes that a server-streaming RPC sends, at the pace of the client.
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
  const message = outgoing.message({ values, query, headers: askedBy(request) });
  return receive(request, response, options, outgoing, message);
}

/** The headers that may be fields. */
function askedBy({ method, headers }: IncomingMessage): IncomingHttpHeaders {
  if (method !== 'HEAD') return headers;
  // Ranges are defined for GET alone (RFC 9110, 14.2).
  const { range: _ofNoUse, ...others } = headers;
  return others;
}

function receive(
  request: IncomingMessage,
  response: ServerResponse,
  { backend, binding, transcoder, dialect, rawBody, idle }: DownloadOptions,
  outgoing: Outgoing,
  message: Buffer,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const pace = new Pace();
    let isOpen = true;
    let metadata: Metadata | undefined;
    /** Bytes that are still to come; undefined until the first message is there, Infinity if nobody said. */
    let left: number | undefined;

    if (request.method === 'HEAD' && !dialect.json.strict) outgoing.sent[headOnlyKey] = '1';
    const upstream = backend.streams.makeServerStreamRequest(binding.rpcPath, asIs, asIs, message, outgoing.metadata, {
      deadline: outgoing.deadline,
      interceptors: [pace.interceptor],
    });
    const close = (then: () => void) => {
      if (!isOpen) return;
      isOpen = false;
      response.off('close', onClose).off('drain', onDrain);
      then();
    };
    const cancel = () => {
      close(() => {
        upstream.cancel();
        resolve();
      });
    };
    const fail = (error: unknown) => close(() => reject(error as Error));

    const onClose = () => cancel();
    const onDrain = () => pace.resume();
    response.on('close', onClose).on('drain', onDrain);

    const begin = (first: Uint8Array) => {
      const { successStatus } = binding;
      const fields = transcoder.fields(binding, first);
      const { status, headers, length } = downloadHead(successStatus, rawBody.responseHeaders, fields, request.headers);
      Object.assign(headers, dialect.headersOf(fromMetadata(metadata)));
      if (request.method === 'HEAD' || status === 304) {
        sendWhole(response, status, headers);
        cancel();
        return;
      }
      response.writeHead(status, headers);
      response.setTimeout(idle, () => {
        if (response.writableNeedDrain || response.writableEnded) response.destroy();
        // The backend had nothing for it.
        else response.setTimeout(idle);
      });
      left = length ?? Infinity;
    };

    upstream.on('metadata', (received: Metadata) => {
      metadata = received;
    });
    upstream.on('status', ({ metadata: trailers }) => noteCaller(response, trailers.get(callerKey)[0]));
    upstream.on('data', (encoded: Buffer) => {
      if (!isOpen) return;
      try {
        if (outgoing.isWrong) throw outgoing.wrong();
        if (left === undefined) begin(encoded);
        const bytes = left === undefined ? undefined : bytesIn(rawBody.bytes, encoded);
        if (left === undefined || bytes === undefined) return;
        left -= bytes.length;
        if (left < 0) throw new Error(`${binding.rpcPath} sent more than it said`);
        if (!response.write(bytes, () => release(encoded))) pace.pause();
      } catch (error) {
        fail(error);
        upstream.cancel();
      }
    });
    upstream.on('error', (error: ServiceError) => fail(outgoing.refusal(error)));
    upstream.on('end', () => {
      if (!isOpen) return;
      if (outgoing.isWrong) fail(outgoing.wrong());
      else if (left === undefined) fail(new Error(`${binding.rpcPath} answered nothing at all`));
      else if (left > 0 && left !== Infinity) fail(new Error(`${binding.rpcPath} sent less than it said`));
      else {
        response.end();
        close(resolve);
      }
    });
  });
}
