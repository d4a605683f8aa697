import { performance } from 'node:perf_hooks';
import type { DescField, DescMethod } from '@bufbuild/protobuf';
import { Metadata } from '@grpc/grpc-js';
import { clientOf, type Networks } from '../client-address.ts';
import type { CallContext } from '../context.ts';
import { maxTimerMs, within } from '../deadline.ts';
import { errorKinds, HubError, invalidFields, type ErrorKind, type FieldViolation } from '../errors.ts';
import type { Identity, UserIdentity } from '../identity.ts';
import type { Logger } from '../log.ts';
import { beginAtZero, counter, durationHistogram, gauge } from '../metrics.ts';
import { minBodyRate, minDownloadRate, type RateFloorOptions } from '../rate-floor.ts';
import { describeSpan, requestIdOf, withTracedContext } from '../tracing.ts';
import { apiKeyHeader, type AccessRule, type Callers } from './callers.ts';
import { isWithoutPlace, placeRefusals, type Places } from './places.ts';
import { tooSlow } from './raw-body.ts';
import { malformedRequest } from './refusing.ts';
import { rpcAttributes, validate } from './schema.ts';
import { decodeViolations } from './status.ts';

/** What a handler learns about its call. */
export interface Call<Caller = unknown> {
  /** The caller, as the access rule of the RPC guarantees it. */
  caller: Caller;
  requestId: string;
  /** The client's address, for limits by address. */
  address: string;
  /** The URL at which the client reached the gateway, without a slash at the end; undefined if it didn't come through one. */
  origin: string | undefined;
  /** Aborted when the caller has gone, its deadline has passed, or its user was disabled. */
  signal: AbortSignal;
  /** The caller's credentials, to call other services as this caller (`CallOptions` of `client.ts`). Secret. */
  credentials: Credentials;
}

/** The metadata with the caller's token or API key, as the caller sent it. */
export type Credentials = Readonly<Partial<Record<'authorization' | typeof apiKeyHeader, string>>>;

/** A call that is answered with a stream. */
export interface StreamCall<Caller = unknown> extends Call<Caller> {
  /**
   * Says for which user a public call is, by what its request shows. It ends when that user is disabled, as the calls of users do by
   * themselves.
   *
   * @throws HubError if the user is disabled now
   */
  isFor(userId: string): void;
  /** Sends the initial metadata now, before the first message. */
  begin(): void;
}

/** A call by a user: RPCs with the access rule USER or ADMIN. */
export type UserCall = Call<UserIdentity>;
export type UserStreamCall = StreamCall<UserIdentity>;

/** What is wrong with a request beyond the rules in its proto. */
export type Check = (
  request: object,
  found: readonly FieldViolation[],
  caller: Identity | undefined,
) => FieldViolation[] | Promise<FieldViolation[]>;
/** Checks that what a request names exists and belongs to the caller. @throws HubError if not */
export type Find = (
  request: object,
  found: readonly FieldViolation[],
  caller: Identity | undefined,
) => void | Promise<void>;

/** A request as the deserialiser returns it: that must not throw, so errors are found later. */
export interface Decoded {
  encoded: Buffer;
  /** The message, and its canonical bytes, which every decoder reads alike; undefined if the bytes are no message of that type. */
  read: () => { request: object; canonical: Uint8Array } | undefined;
}

/** An RPC, as its proto and its service describe it. */
export interface Rpc extends AccessRule {
  /** `<service>/<method>` */
  name: string;
  description: DescMethod;
  /** How long a call without a deadline may take, in milliseconds, if its proto says so. */
  timeout: number | undefined;
  /** The kind of place that its calls take. */
  kind: 'short' | 'long' | 'listening';
  check: Check | undefined;
  /** The field of the request that must name the caller, if there is one. */
  callerField: DescField | undefined;
  find: Find | undefined;
}

export interface Serving {
  callers: Callers;
  log: Logger;
  defaultDeadline: number;
  trustedProxies: Networks;
  places: Places;
  clientLimits: ClientLimits;
}

/** How slowly a client may send or read a stream. */
export interface ClientLimits {
  /** How long its first message may take. */
  firstMessageMs: number;
  /** The minimum rate at which it must send after that. */
  sending: RateFloorOptions;
  /** The minimum rate at which it must read a stream of the server. */
  reading: RateFloorOptions;
}

export const defaultClientLimits: ClientLimits = {
  firstMessageMs: 10_000,
  sending: minBodyRate,
  reading: minDownloadRate,
};

/** Metadata of a call by a service: the client that the call is for. Only accepted from services. */
export const onBehalfKey = 'x-on-behalf-of';

const handled = counter(
  'rpc_handled_total',
  'RPCs answered, by how they ended; with a reason where they were refused for want of a place (OVERLOADED, TOO_MANY_CALLS)',
  ['rpc', 'code', 'reason'],
);
const handling = durationHistogram('rpc_duration_seconds', 'From the first byte of an RPC to its answer', ['rpc']);
const inFlight = gauge('rpc_in_flight', 'RPCs being answered');
/** The codes that are a failure of the server rather than of its caller: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/ */
const failuresOfServers: ReadonlySet<ErrorKind> = new Set([
  'DEADLINE_EXCEEDED',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
]);

/** Makes the counter of an RPC's calls begin at 0, so that a monitor sees the first call as an increase. */
export function beginCounting(rpc: string): void {
  beginAtZero(handled, { rpc: [rpc], code: ['OK', ...errorKinds] });
  for (const { reason, kind } of placeRefusals) beginAtZero(handled, { reason: [reason], rpc: [rpc], code: [kind] });
}

/** The common part of grpc-js's call types. */
interface ServerCall {
  metadata: Metadata;
  getDeadline(): Date | number;
  getPeer(): string;
  on(event: 'cancelled', listener: () => void): unknown;
}

/** How a call ended, with its request id, and the caller's id if that is a user. */
export type Outcome = Ending & { requestId: string; userId: string | undefined };
type Ending = { answer: object } | { failure: HubError };

/** The request of a call, or a function that waits for it. */
type Request = { there: Decoded } | { coming: () => Promise<Decoded | undefined> };
type Handle = (request: object, about: Omit<StreamCall, 'begin'>) => Promise<object>;

/**
 * Handles a call with what every call needs: authentication and access, a place, validation, a deadline, an error boundary, metrics and a
 * log line.
 */
export async function handleCall(
  rpc: Rpc,
  serving: Serving,
  call: ServerCall,
  given: Request,
  handler: Handle,
): Promise<Outcome> {
  const began = performance.now();
  inFlight.inc();
  const [traceparent] = call.metadata.get('traceparent');
  const context: CallContext = {
    requestId: requestIdOf(call.metadata.get(requestIdKey)[0], traceparent),
    ...deadlineOf(call.getDeadline(), rpc.timeout ?? serving.defaultDeadline),
  };
  const span = {
    kind: 'server',
    traceparent,
    isFirst: traceparent === undefined,
    attributes: rpcAttributes(rpc.name),
  } as const;
  return withTracedContext(context, rpc.name, span, async () => {
    const { outcome, caller } = await outcomeOf(rpc, serving, call, given, handler, context);
    const failure = 'failure' in outcome ? outcome.failure : undefined;
    const code = failure?.kind ?? 'OK';
    const isRefused = failure !== undefined && isWithoutPlace(failure);
    const isOfServer = failure !== undefined && failuresOfServers.has(failure.kind);
    describeSpan({ 'rpc.response.status_code': code }, isOfServer ? failure.reason : undefined);
    const took = performance.now() - began;
    inFlight.dec();
    handled.inc({ ...(isRefused ? { reason: failure.reason } : {}), rpc: rpc.name, code });
    handling.observe({ rpc: rpc.name }, took / 1_000);
    const line = {
      rpc: rpc.name,
      code,
      reason: failure?.reason,
      ms: Math.round(took * 10) / 10,
      by: caller?.kind === 'user' ? caller.userId : caller?.name,
    };
    // A log line for each refused call would add to the overload.
    if (isRefused) serving.log.debug(line, 'rpc');
    // Without a stack: the cause is not in this code.
    else if (failure?.kind === 'UNAVAILABLE') serving.log.warn({ ...line, cause: causeOf(failure) }, failure.message);
    // Services repeat their long polls for ever: a normal end is only worth a debug line.
    else serving.log[rpc.access === 'SERVICE' && rpc.kind === 'long' && code === 'OK' ? 'debug' : 'info'](line, 'rpc');
    return {
      ...outcome,
      requestId: context.requestId,
      userId: caller?.kind === 'user' ? caller.userId : undefined,
    };
  });
}

async function outcomeOf(
  rpc: Rpc,
  { callers, log, trustedProxies, places, clientLimits }: Serving,
  call: ServerCall,
  given: Request,
  handler: Handle,
  context: CallContext,
): Promise<{ outcome: Ending; caller?: Identity | undefined }> {
  const { metadata } = call;
  const { address, isTrusted } = originator(call, trustedProxies);
  const abort = new AbortController();
  let isOver = false;
  call.on('cancelled', () => {
    // grpc-js emits this at the end of each call, also of one that was answered.
    if (!isOver) abort.abort(new HubError('CANCELLED', 'CANCELLED', 'The caller has gone'));
  });
  let caller: Identity | undefined;
  let release = () => {};
  let unwatch = () => {};
  const ended = Promise.withResolvers<never>();

  /** Fails the call before its work is done, and aborts the signal of its handler. */
  function end(why: HubError): void {
    ended.reject(why);
    abort.abort(why);
  }

  function isFor(userId: string): void {
    if (isOver) return;
    unwatch();
    unwatch = callers.watch(userId, end);
  }

  async function work(): Promise<object> {
    caller = await callers.identify(metadata, rpc, () => {
      context.client = clientOf(address);
      return places.take('unknown', context.client);
    });
    context.client = clientBehind(caller, metadata, address);
    // A short call ends soon by itself.
    if (caller?.kind === 'user' && rpc.kind !== 'short') isFor(caller.userId);
    const decoded = 'there' in given ? given.there : await first(given.coming);
    // A call that was cancelled meanwhile, or whose deadline has passed, takes no place.
    abort.signal.throwIfAborted();
    release = places.take(rpc.kind, context.client);
    const read = decoded?.read();
    if (read === undefined) throw malformedRequest();
    const { request } = read;
    if (rpc.callerField !== undefined) requireCaller(request, rpc.callerField, caller);
    const violations = violationsIn(metadata);
    if (violations === undefined) throw malformedRequest();
    await rpc.find?.(request, violations, caller);
    const found = [...violations, ...withoutRepeats(validate(rpc.description.input, read.canonical), violations)];
    const more = rpc.check === undefined ? [] : await rpc.check(request, found, caller);
    const wrong = [...found, ...withoutRepeats(more, found)];
    if (wrong.length > 0) throw invalidFields(wrong);
    return handler(request, {
      caller,
      requestId: context.requestId,
      address,
      origin: isTrusted ? originOf(metadata) : undefined,
      signal: abort.signal,
      credentials: credentialsIn(metadata),
      isFor,
    });
  }

  /** Waits for the first message of a stream. */
  async function first(coming: () => Promise<Decoded | undefined>): Promise<Decoded | undefined> {
    const leave = places.take('opening', context.client);
    try {
      return await within(clientLimits.firstMessageMs, coming(), tooSlow);
    } finally {
      leave();
    }
  }

  const tooLate = () =>
    end(new HubError('DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED', 'The call took longer than its deadline'));
  const timer = setTimeout(tooLate, Math.min((context.deadline as number) - Date.now(), maxTimerMs));
  try {
    // First, since it costs least.
    places.requireRoom(rpc.kind);
    return { outcome: { answer: await Promise.race([work(), ended.promise]) }, caller };
  } catch (error) {
    return { outcome: { failure: refusal(error, rpc, abort.signal, log) }, caller };
  } finally {
    isOver = true;
    clearTimeout(timer);
    release();
    unwatch();
  }
}

/** The text of an error's cause. */
function causeOf({ cause }: HubError): string | undefined {
  return cause instanceof Error ? cause.message : undefined;
}

/** @throws HubError PERMISSION_DENIED `NOT_YOUR_PATH` if a field doesn't name the caller */
function requireCaller(request: object, { localName }: DescField, caller: Identity | undefined): void {
  const named = (request as Record<string, string>)[localName] as string;
  if (caller?.kind === 'user') {
    if (named.toLowerCase() === caller.userId) return;
    if (caller.numId === 0n && /^[1-9]\d*$/.test(named)) {
      throw new HubError('UNAUTHENTICATED', 'TOKEN_EXPIRED', 'The token is too old to be used here: log in again');
    }
    if (caller.numId !== 0n && named === String(caller.numId)) return;
  }
  throw new HubError('PERMISSION_DENIED', 'NOT_YOUR_PATH', 'Access denied: the user in the path is not you');
}

function credentialsIn(metadata: Metadata): Credentials {
  // If both are sent, the token counts.
  for (const key of ['authorization', apiKeyHeader] as const) {
    const [value] = metadata.get(key);
    if (typeof value === 'string') return { [key]: value };
  }
  return {};
}

/**
 * The client that limits count a call for: a user, or without one the network of an address. A service names the client that it calls for;
 * undefined for a service's own work.
 */
function clientBehind(caller: Identity | undefined, metadata: Metadata, address: string): string | undefined {
  if (caller === undefined) return clientOf(address);
  if (caller.kind === 'user') return caller.userId;
  const [reported] = metadata.get(onBehalfKey);
  return typeof reported === 'string' ? reported : undefined;
}

/** The error for the caller. Anything but a HubError is a bug, unless the call was aborted. */
function refusal(error: unknown, rpc: Rpc, signal: AbortSignal, log: Logger): HubError {
  if (error instanceof HubError) return error;
  // A stream that is aborted fails with errors of its own.
  if (signal.aborted && signal.reason instanceof HubError) return signal.reason;
  log.error({ err: error, rpc: rpc.name }, 'An RPC failed in a way that it should not');
  return new HubError('INTERNAL', 'INTERNAL', 'Something went wrong on our side');
}

const violationsKey = 'x-field-violations-bin';
/** The wrong fields that a gateway found while it decoded the request (google.rpc.BadRequest): they are reported with ours. */
function violationsIn(metadata: Metadata): FieldViolation[] | undefined {
  const [encoded] = metadata.get(violationsKey);
  if (encoded === undefined) return [];
  try {
    const violations = decodeViolations(encoded as Buffer);
    return violations.length > 0 ? violations : undefined;
  } catch {
    return undefined;
  }
}

/** Metadata of a request and its answer: the request id, which the logs contain as well. */
export const requestIdKey = 'x-request-id';

/** The initial metadata of an answer. */
export function initialMetadata(requestId: string): Metadata {
  const metadata = new Metadata();
  metadata.set(requestIdKey, requestId);
  return metadata;
}

function deadlineOf(given: Date | number, fallback: number): Pick<CallContext, 'deadline' | 'isDeadlineOurs'> {
  const at = given instanceof Date ? given.getTime() : given;
  return Number.isFinite(at) ? { deadline: at } : { deadline: Date.now() + fallback, isDeadlineOurs: true };
}

function directAddress(peer: string): string {
  return peer.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
}

/** The client's address as the nearest trusted proxy reports it, or the peer's own; and whether the peer is a trusted proxy. */
export function originator(
  call: Pick<ServerCall, 'metadata' | 'getPeer'>,
  trustedProxies: Serving['trustedProxies'],
): { address: string; isTrusted: boolean } {
  const direct = directAddress(call.getPeer());
  const isTrusted = trustedProxies.has(direct);
  const [forwarded] = call.metadata.get('x-forwarded-for');
  const reported = typeof forwarded === 'string' && isTrusted ? forwarded.split(',').at(-1)?.trim() : undefined;
  return { address: reported || direct, isTrusted };
}

/** The URL at which the client reached the gateway, as the gateway reports it. */
function originOf(metadata: Metadata): string | undefined {
  const [host] = metadata.get('x-forwarded-host');
  const [protocol = 'http'] = metadata.get('x-forwarded-proto');
  if (typeof host !== 'string' || !/^(http|https)$/.test(String(protocol))) return undefined;
  // A Host header may contain text that is not valid in a URL.
  return /^[\w.-]+(:\d+)?$|^\[[\da-f:.]+\](:\d+)?$/i.test(host) ? `${String(protocol)}://${host}` : undefined;
}

/** The violations in `found` whose field has none in `reported`. */
function withoutRepeats(found: readonly FieldViolation[], reported: readonly FieldViolation[]): FieldViolation[] {
  const named = new Set(reported.map((violation) => violation.field));
  return found.filter((violation) => !named.has(violation.field));
}
