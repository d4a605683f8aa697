import { MethodOptions_IdempotencyLevel as Idempotency } from '@bufbuild/protobuf/wkt';
import { Metadata, type ServiceError } from '@grpc/grpc-js';
import { text, type Config } from '../config.ts';
import { currentContext } from '../context.ts';
import { unlessAborted } from '../deadline.ts';
import { HubError, type ErrorKind } from '../errors.ts';
import type { Identities } from '../identity.ts';
import { currentTraceparent, inSpan } from '../tracing.ts';
import { onBehalfKey, type Credentials } from './call.ts';
import { openClient } from './grpc-client.ts';
import type { MethodDefinition, Methods } from './methods.ts';
import { connectionOptions, isAddress, Reach, targetOf } from './reach.ts';
import { method, rpcAttributes, timeoutOf } from './schema.ts';
import { fromServiceError, hasDetails, wideTrailersKey } from './status.ts';
import { openTransport, type transportSettings } from './transport.ts';

export interface ConnectOptions {
  config: Config<typeof transportSettings>;
  /** Name of the called service, the audience of our token. */
  target: string;
  /** host:port, a gRPC target such as dns:///auth:50051, or several IP addresses with ports, separated by commas. */
  address: string;
  identities: Identities;
}

/** A setting for the address of another service. */
export function serviceAddress() {
  return text().refine(isAddress, 'must be host:port, or several IP addresses with ports and commas between them');
}

export interface CallOptions {
  /** Cancels the call when it is aborted. */
  signal?: AbortSignal;
  /** Calls with these credentials of a user, in place of this service's identity. */
  credentials?: Credentials;
}

/** The unary RPCs of another service, and the connection to it. */
export type Connection<D> = Methods<D, [options?: CallOptions]> & { close(): void };

/** An inner call's deadline is this much earlier than its caller's, so that the caller still gets the error (as in boulder). */
const deadlineMarginMs = 20;
/** The timeout of a call without a deadline, unless its proto gives it more time. */
const defaultTimeoutMs = 5_000;

/**
 * Another service's RPCs as functions. Each call carries this service's identity, the request id, the client that it is for and the rest of
 * the caller's deadline. It waits while the service is unavailable for a moment, and is retried if it was never processed or is idempotent
 * by its proto.
 *
 * Calls throw HubError: the other side's own, or UNAVAILABLE, or DEADLINE_EXCEEDED.
 */
export function connect<D extends Record<string, MethodDefinition<unknown, unknown>>>(
  definition: D,
  { config, target, address, identities }: ConnectOptions,
): Connection<D> {
  const client = openClient(targetOf(address), openTransport(config).client, connectionOptions);
  const reach = new Reach(client);
  const unaryMethods = Object.entries(definition).filter(([, rpc]) => !rpc.requestStream && !rpc.responseStream);
  const methods = unaryMethods.map(([key, rpc]) => {
    const serialize = rpc.requestSerialize as (value: unknown) => Buffer;
    const description = method(rpc.path);
    const isRepeatable = description.idempotency !== Idempotency.IDEMPOTENCY_UNKNOWN;
    const timeoutMs = timeoutOf(description) ?? defaultTimeoutMs;
    const name = rpc.path.slice(1);
    const ask = async (request: unknown, { signal, credentials }: CallOptions): Promise<unknown> => {
      const metadata = new Metadata();
      const shown = credentials ?? { authorization: `Bearer ${await identities.serviceToken(target)}` };
      for (const [key, value] of Object.entries(shown)) metadata.set(key, value);
      metadata.set(wideTrailersKey, '1');
      const context = currentContext();
      if (context !== undefined) metadata.set('x-request-id', context.requestId);
      if (context?.client !== undefined) metadata.set(onBehalfKey, context.client);
      const traceparent = currentTraceparent();
      if (traceparent !== undefined) metadata.set('traceparent', traceparent);
      const [own, given] = [Date.now() + timeoutMs, (context?.deadline ?? Infinity) - deadlineMarginMs];
      const deadline = Math.min(own, given);
      // Then our own timeout has passed, not the caller's deadline: the other service is too slow.
      const isOurs = own <= given || context?.isDeadlineOurs === true;
      const attempt = () =>
        new Promise((resolve, reject) => {
          const running = client.makeUnaryRequest(
            rpc.path,
            serialize,
            rpc.responseDeserialize,
            request,
            metadata,
            { deadline },
            (error: ServiceError | null, response: unknown) => {
              signal?.removeEventListener('abort', cancel);
              if (error === null) resolve(response);
              else reject(error);
            },
          );
          const cancel = () => running.cancel();
          signal?.addEventListener('abort', cancel);
        });
      try {
        const isGone = () => signal?.aborted ?? false;
        const running = reach.call(attempt, { isRepeatable, deadline, isGone });
        return await (signal === undefined ? running : unlessAborted(signal, running));
      } catch (error) {
        if (signal?.aborted === true) throw new HubError('CANCELLED', 'CANCELLED', 'Nobody waits for the answer');
        throw isServiceError(error) ? translated(error, target, isOurs) : error;
      }
    };
    const span = { kind: 'client', attributes: rpcAttributes(name) } as const;
    const call = (request: unknown, options: CallOptions = {}) => inSpan(name, span, () => ask(request, options));
    return [key, call] as const;
  });
  return { ...Object.fromEntries(methods), close: () => client.close() } as Connection<D>;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error;
}

/**
 * Errors of the other service are passed on. Errors of gRPC itself have no details and name internal addresses, so they get our own text.
 *
 * @param isOurs whether the deadline of the call was ours rather than the caller's
 */
function translated(error: ServiceError, target: string, isOurs: boolean): HubError {
  const failure = fromServiceError(error);
  if (hasDetails(error)) return failure;
  const say = (kind: ErrorKind, reason: string, message: string, retryAfter?: number) =>
    new HubError(kind, reason, message, { ...(retryAfter !== undefined && { retryAfter }), cause: error });
  switch (failure.kind) {
    case 'DEADLINE_EXCEEDED':
      if (!isOurs) return say(failure.kind, failure.kind, 'The call took longer than its deadline');
      return say('UNAVAILABLE', 'SERVICE_UNAVAILABLE', `The ${target} service doesn't answer at the moment`, 1);
    case 'UNAVAILABLE':
      return say('UNAVAILABLE', 'SERVICE_UNAVAILABLE', `The ${target} service can't be reached at the moment`, 1);
    case 'CANCELLED':
      return say(failure.kind, failure.kind, 'The call was cancelled');
    default:
      return say(failure.kind, failure.kind, `The ${target} service could not do it`);
  }
}
