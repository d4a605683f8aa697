import { createHash, randomUUID } from 'node:crypto';
import {
  diag,
  DiagLogLevel,
  isSpanContextValid,
  isValidTraceId,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
  TraceFlags,
  type Attributes,
  type Link,
  type Span,
  type SpanContext,
  type Tracer,
} from '@opentelemetry/api';
import type { SpanProcessor } from '@opentelemetry/sdk-trace';
import { httpUrl, ratio, type Config } from './config.ts';
import {
  activeSpans,
  currentContext,
  requestIdPattern,
  withActiveSpans,
  withContext,
  type CallContext,
} from './context.ts';
import { within } from './deadline.ts';
import { HubError } from './errors.ts';
import type { Logger } from './log.ts';

/**
 * Traces of OpenTelemetry: one for each request, through HTTP, gRPC, PostgreSQL and the bus.
 *
 * A trace is known by its request id, which goes wherever the work goes, also through outboxes and tables. The trace id is what the request
 * id begins with where that is a UUID or a trace id, else a hash of it; the id of the first span is made of it, too; and the trace id decides
 * whether the trace is sampled. So work that waits in a table needs no columns for its trace, and all processes decide alike.
 */

/** Settings of every process's traces. Their names are those of OpenTelemetry. */
export const tracingSettings = {
  OTEL_EXPORTER_OTLP_ENDPOINT: httpUrl()
    .optional()
    .describe(
      'URL of an OpenTelemetry collector for traces (OTLP over HTTP, at /v1/traces below it). Not set, nothing is traced',
    ),
  OTEL_TRACES_SAMPLER_ARG: ratio()
    .default(0.01)
    .describe('the part of all requests that is traced. Must be the same in all processes'),
};

export interface SpanOptions {
  /** By default `internal`: work inside of this process. */
  kind?: keyof typeof kinds;
  /** Named by the semantic conventions of OpenTelemetry where they have a name. */
  attributes?: Attributes;
}

export interface EntryOptions extends SpanOptions {
  /** The caller's `traceparent` (W3C Trace Context), if there was one. */
  traceparent?: unknown;
  /** Whether a trace may begin here, with this span as its first. By default the work is what a request led to later. */
  isFirst?: boolean;
}

const kinds = {
  internal: SpanKind.INTERNAL,
  server: SpanKind.SERVER,
  client: SpanKind.CLIENT,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
};

/** How traces are made in this process, while they are. */
interface Tracing {
  tracer: Tracer;
  isSampled(traceId: string): boolean;
}

let tracing: Tracing | undefined;
/** The ids of the next span, where they are not to be random. */
let givenIds: { traceId: string; spanId: string } | undefined;

const flushLimitMs = 2_000;

/**
 * Starts to trace, if a collector is configured. While the collector is away, traces are lost and nothing else.
 *
 * @param name of the process
 * @returns a function that sends what is left, and ends it
 */
export async function startTracing(
  config: Config<typeof tracingSettings>,
  name: string,
  log: Logger,
): Promise<() => Promise<void>> {
  const { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_TRACES_SAMPLER_ARG: part } = config;
  if (endpoint === undefined) return async () => {};
  // Imported here, so that only processes that trace load the code.
  const [{ BatchSpanProcessor }, { OTLPTraceExporter }] = await Promise.all([
    import('@opentelemetry/sdk-trace'),
    import('@opentelemetry/exporter-trace-otlp-http'),
  ]);
  const warn = (text: string) => log.warn(`traces: ${text}`);
  const ignore = () => {};
  diag.setLogger({ error: warn, warn, info: ignore, debug: ignore, verbose: ignore }, DiagLogLevel.WARN);
  const exporter = new OTLPTraceExporter({ url: `${endpoint.replace(/\/+$/, '')}/v1/traces` });
  return openTracing({ name, part, processor: new BatchSpanProcessor({ exporter }) });
}

/**
 * Traces a part of all requests, from 0 to 1, and gives the spans to a processor.
 *
 * @returns a function that flushes the processor and ends the tracing
 */
export async function openTracing(options: {
  name: string;
  part: number;
  processor: SpanProcessor;
}): Promise<() => Promise<void>> {
  const [{ RandomIdGenerator, TraceIdRatioBasedSampler, TracerProvider, SamplingDecision }, resources] =
    await Promise.all([import('@opentelemetry/sdk-trace'), import('@opentelemetry/resources')]);
  const random = new RandomIdGenerator();
  const sampler = new TraceIdRatioBasedSampler(options.part);
  const provider = new TracerProvider({
    resource: resources.defaultResource().merge(resources.resourceFromAttributes({ 'service.name': options.name })),
    idGenerator: {
      generateTraceId: () => givenIds?.traceId ?? random.generateTraceId(),
      generateSpanId: () => givenIds?.spanId ?? random.generateSpanId(),
    },
    spanProcessors: [options.processor],
  });
  const opened: Tracing = {
    tracer: provider.getTracer('chat4all'),
    isSampled: (traceId) => sampler.shouldSample(ROOT_CONTEXT, traceId).decision !== SamplingDecision.NOT_RECORD,
  };
  tracing = opened;
  return async () => {
    if (tracing === opened) tracing = undefined;
    // What can't be sent now is lost with the process.
    await within(flushLimitMs, provider.shutdown(), () => new Error('the collector does not answer')).catch(() => {});
  };
}

/** The id of a request: the caller's own if it is usable, else the ids of the caller's trace and span, else a new one. */
export function requestIdOf(given: unknown, traceparent: unknown): string {
  if (typeof given === 'string' && requestIdPattern.test(given)) return given;
  const caller = read(traceparent);
  return caller === undefined ? randomUUID() : `${caller.traceId}-${caller.spanId}`;
}

/** A piece of work on a request, with a span of its own. */
export interface TracedWork {
  /** Runs a part of it: spans that begin in there are below its own. */
  run<T>(work: () => T): T;
  /**
   * @param name the span's final name
   * @param failure of the work itself, not of what it was asked for: a reason or a code
   */
  end(name: string, attributes: Attributes, failure?: string): void;
}

/**
 * Begins a piece of work on a request. Its span is below what this process is doing for the same trace, else below the caller's, else below
 * the first of the trace, or is that itself.
 *
 * @returns undefined if the request is not traced
 */
export function beginWork(requestId: string, name: string, options: EntryOptions = {}): TracedWork | undefined {
  const span = beginEntry(requestId, name, options);
  return (
    span && {
      run: (work) => withActiveSpans({ span }, work),
      end(finalName, attributes, failure) {
        span.updateName(finalName);
        describe(span, attributes, failure);
        span.end();
      },
    }
  );
}

/** Runs `work` with `context` as the current one, as a piece of work on its request (`beginWork`). */
export async function withTracedContext<T>(
  context: CallContext,
  name: string,
  options: EntryOptions,
  work: () => Promise<T>,
): Promise<T> {
  const span = beginEntry(context.requestId, name, options);
  if (span === undefined) return withContext(context, work);
  return ending([span], () => withActiveSpans({ span }, () => withContext(context, work)));
}

/**
 * Adds to the current span what is known only at the end of its work.
 *
 * @param failure as in `TracedWork.end`, for work that tells of its failure without throwing
 */
export function describeSpan(attributes: Attributes, failure?: string): void {
  const active = activeSpans();
  if (active !== undefined) describe(active.span, attributes, failure);
}

/** Runs a part of the current work in a span of its own, if that work is traced. */
export async function inSpan<T>(name: string, options: SpanOptions, work: () => Promise<T>): Promise<T> {
  const active = activeSpans();
  if (active === undefined || tracing === undefined) return work();
  const span = startSpan(tracing, name, options, active.span.spanContext());
  return ending([span], () => withActiveSpans({ span }, work));
}

/** Does work that several callers share. If some of them are traced it has a span of its own, which is linked to theirs. */
export async function inBatch<T>(name: string, callers: readonly SpanContext[], work: () => Promise<T>): Promise<T> {
  if (tracing === undefined || callers.length === 0) return work();
  const span = startSpan(tracing, name, {}, undefined, linksTo(callers));
  return ending([span], () => withActiveSpans({ span }, work));
}

/** An event, as far as its trace is concerned. */
export interface TracedEvent {
  requestId: string;
  traceparent?: string;
}

/**
 * Handles events. Each that is traced gets a span in its own trace; what is done for several events together is in a span that is linked to
 * these.
 */
export async function handlingEvents<T>(
  name: string,
  events: readonly TracedEvent[],
  work: () => Promise<T>,
): Promise<T> {
  if (tracing === undefined) return work();
  const ofTraces = new Map<string, Span>();
  for (const { requestId, traceparent } of events) {
    const span = ofTraces.has(traceIdOf(requestId))
      ? undefined
      : beginEntry(requestId, name, { kind: 'consumer', traceparent });
    if (span !== undefined) ofTraces.set(span.spanContext().traceId, span);
  }
  const spans = [...ofTraces.values()];
  const [first] = spans;
  if (first === undefined) return work();
  if (events.length === 1) return ending(spans, () => withActiveSpans({ span: first }, work));
  const links = linksTo(spans.map((span) => span.spanContext()));
  const attributes = { 'messaging.batch.message_count': events.length };
  const batch = startSpan(tracing, `${name} together`, { attributes }, undefined, links);
  return ending([...spans, batch], () => withActiveSpans({ span: batch, ofTraces }, work));
}

/**
 * Publishes events: each that is traced gets a span in its own trace.
 *
 * @param work is given the events with the `traceparent` that consumers should see
 */
export async function publishingEvents<E extends TracedEvent, T>(
  name: string,
  events: readonly E[],
  work: (events: readonly E[]) => Promise<T>,
): Promise<T> {
  if (tracing === undefined) return work(events);
  const spans: Span[] = [];
  const marked = events.map((event) => {
    const span = beginEntry(event.requestId, name, { kind: 'producer' });
    if (span === undefined) return event;
    spans.push(span);
    return { ...event, traceparent: written(span.spanContext()) };
  });
  return ending(spans, () => work(marked));
}

/** The `traceparent` of calls that the current work makes; undefined if that is not traced. */
export function currentTraceparent(): string | undefined {
  if (tracing === undefined) return undefined;
  const span = activeSpans()?.span.spanContext();
  if (span !== undefined) return written(span);
  const requestId = currentContext()?.requestId;
  return requestId !== undefined && tracing.isSampled(traceIdOf(requestId)) ? written(firstOf(requestId)) : undefined;
}

function beginEntry(requestId: string, name: string, options: EntryOptions): Span | undefined {
  if (tracing === undefined) return undefined;
  const traceId = traceIdOf(requestId);
  if (!tracing.isSampled(traceId)) return undefined;
  const caller = read(options.traceparent);
  const isOfCaller = caller?.traceId === traceId;
  const parent = activeIn(traceId) ?? (isOfCaller ? caller : undefined);
  // A caller with a trace of its own, but another request id, is linked.
  const links = caller === undefined || isOfCaller ? [] : linksTo([caller]);
  if (options.isFirst !== true) return startSpan(tracing, name, options, parent ?? firstOf(requestId), links);
  givenIds = firstOf(requestId);
  try {
    return startSpan(tracing, name, options, parent, links);
  } finally {
    givenIds = undefined;
  }
}

function startSpan(
  { tracer }: Tracing,
  name: string,
  { kind = 'internal', attributes = {} }: SpanOptions,
  parent: SpanContext | undefined,
  links: Link[] = [],
): Span {
  const above = parent === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, parent);
  return tracer.startSpan(name, { kind: kinds[kind], attributes, links }, above);
}

function describe(span: Span, attributes: Attributes, failure: string | undefined): void {
  span.setAttributes(attributes);
  if (failure !== undefined) fail(span, failure);
}

function fail(span: Span, reason: string): void {
  span.setAttribute('error.type', reason);
  span.setStatus({ code: SpanStatusCode.ERROR, message: reason });
}

/** Does work, and ends its spans with it. */
async function ending<T>(spans: readonly Span[], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    for (const span of spans) fail(span, reasonOf(error));
    throw error;
  } finally {
    for (const span of spans) span.end();
  }
}

/** What may be told of an error outside of the logs: texts of others may hold what people wrote. */
function reasonOf(error: unknown): string {
  if (error instanceof HubError) return error.reason;
  return error instanceof Error ? error.name : 'Error';
}

/** What this process is doing for a trace, if that is what it is doing now. */
function activeIn(traceId: string): SpanContext | undefined {
  const active = activeSpans();
  const span = active?.ofTraces?.get(traceId) ?? active?.span;
  const found = span?.spanContext();
  return found?.traceId === traceId ? found : undefined;
}

function linksTo(spans: readonly SpanContext[]): Link[] {
  return spans.map((context) => ({ context }));
}

const withTraceId = /^([\da-f]{32})(?:-[\da-f]{16})?$|^([\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12})$/i;

function hashOf(requestId: string): string {
  return createHash('sha256').update(requestId).digest('hex');
}

function traceIdOf(requestId: string): string {
  const [, traceId, uuid] = withTraceId.exec(requestId) ?? [];
  const known = (traceId ?? uuid?.replaceAll('-', ''))?.toLowerCase();
  return known !== undefined && isValidTraceId(known) ? known : hashOf(requestId).slice(0, 32);
}

/** The first span of the trace of a request. */
function firstOf(requestId: string): SpanContext {
  const spanId = hashOf(requestId).slice(32, 48);
  return { traceId: traceIdOf(requestId), spanId, traceFlags: TraceFlags.SAMPLED, isRemote: true };
}

const traceparentPattern = /^(?!ff)[\da-f]{2}-([\da-f]{32})-([\da-f]{16})-[\da-f]{2}(-|$)/;

/** Reads a `traceparent` (W3C Trace Context, 3.2). */
function read(traceparent: unknown): SpanContext | undefined {
  const [, traceId, spanId] = typeof traceparent === 'string' ? (traceparentPattern.exec(traceparent) ?? []) : [];
  if (traceId === undefined || spanId === undefined) return undefined;
  const found = { traceId, spanId, traceFlags: TraceFlags.SAMPLED, isRemote: true };
  return isSpanContextValid(found) ? found : undefined;
}

function written({ traceId, spanId }: SpanContext): string {
  return `00-${traceId}-${spanId}-01`;
}
