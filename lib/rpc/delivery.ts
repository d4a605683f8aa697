import http2 from 'node:http2';
import { status, type ServiceError } from '@grpc/grpc-js';

/**
 * How far a failed call came:
 *
 * - `never sent`: nothing of it left this process.
 * - `refused unprocessed`: the server has not processed it: REFUSED_STREAM, or a GOAWAY with an earlier last stream (RFC 9113, 8.7).
 * - `maybe processed`: it was sent, and its stream or connection ended without a gRPC status.
 * - `answered`: the server, or a proxy in front of it, answered with an error.
 * - `given up`: this side ended it, by its deadline or a cancellation.
 * - `too large`: this side ended it, because a message of the answer exceeds the limit. The status is RESOURCE_EXHAUSTED, as if the server
 * had run out of something.
 */
export type Delivery = 'never sent' | 'refused unprocessed' | 'maybe processed' | 'answered' | 'given up' | 'too large';

/** A failed call. Each client of ours says how far the call came; other clients don't. */
export interface CallError extends ServiceError {
  delivery?: Delivery;
}

/** Whether a call was lost: it ended without an answer of the server. */
export function isLost({ delivery }: Pick<CallError, 'delivery'>): boolean {
  return delivery === 'never sent' || delivery === 'refused unprocessed' || delivery === 'maybe processed';
}

/**
 * The status of a call that was lost once its deadline had passed. A server that ends a call at its deadline resets the stream, and a
 * busy client reads that before its own timer fires. grpc-go and gRPC's core treat it in the same way.
 */
export const deadlineExceeded = {
  code: status.DEADLINE_EXCEEDED,
  details: 'Deadline exceeded',
  delivery: 'given up',
} as const;

/** Whether an HTTP status without a gRPC status comes from a proxy that couldn't reach the server, or lost it. */
export function isOfGateway(httpStatus: number): boolean {
  return httpStatus >= 502 && httpStatus <= 504;
}

const { NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_INADEQUATE_SECURITY } = http2.constants;

/** Whether this is an HTTP/2 error code (RFC 9113, 7) by which a server refuses such calls. */
export function isUnwanted(resetCode: number): boolean {
  return resetCode === NGHTTP2_ENHANCE_YOUR_CALM || resetCode === NGHTTP2_INADEQUATE_SECURITY;
}
