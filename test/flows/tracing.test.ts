import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { InMemorySpanExporter, SimpleSpanProcessor, type ReadableSpan } from '@opentelemetry/sdk-trace';
import { SpanKind, SpanStatusCode } from '@opentelemetry/api';
import test from 'ava';
import { v4 as uuid } from 'uuid';
import { loadConfig } from '#lib/config.ts';
import { openLog } from '#lib/log.ts';
import { inSpan, openTracing, startTracing, tracingSettings, withTracedContext } from '#lib/tracing.ts';
import { eventually } from '../eventually.ts';
import { opened } from '../opened.ts';
import { ended, messageOf, openConversation, openedMeshes, send, type Person } from './meshes.ts';

// All processes of a mesh run in this one, and so do their traces.
const exporter = new InMemorySpanExporter();
opened(
  () => openTracing({ name: 'test', part: 1, processor: new SimpleSpanProcessor({ exporter }) }),
  (stop) => stop(),
);

const spansOf = (traceId: string) =>
  exporter.getFinishedSpans().filter((span) => span.spanContext().traceId === traceId);

/** The names of the spans from one of them up to the first of its trace. */
function wayUp(span: ReadableSpan, spans: readonly ReadableSpan[]): string[] {
  const parent = spans.find((each) => each.spanContext().spanId === span.parentSpanContext?.spanId);
  return [span.name, ...(parent === undefined ? [] : wayUp(parent, spans))];
}

const meshes = openedMeshes(['embedded', 'kafka']);

for (const mesh of meshes) {
  const [user1, user2] = mesh.people as [Person, Person];

  test.serial(`${mesh.bus}: a message is one trace, from the client's own span to the delivery and back`, async (t) => {
    const conversation = await openConversation([user1, user2]);
    const [traceId, parent] = [uuid().replaceAll('-', ''), uuid().replaceAll('-', '').slice(0, 16)];
    const json = messageOf(user1, conversation);
    const headers = { traceparent: `00-${traceId}-${parent}-01` };
    const answer = await user1.rest.call('POST', '/v1/messages', { json, headers });
    const requestId = `${traceId}-${parent}`;
    t.is(answer.requestId, requestId);
    await ended(user1, json.message_id);

    await eventually(
      'the delivery is told',
      () => spansOf(traceId).map(({ name }) => name),
      (names) => names.includes('process message_status'),
    );
    // A span whose parent hasn't ended seems to be the first one.
    await eventually(
      'all that it led to has ended, and is below the first span',
      () => spansOf(traceId).map((span, _, spans) => wayUp(span, spans).at(-1)),
      (firsts) => firsts.every((name) => name === 'POST /v1/messages'),
    );
    const attempt = spansOf(traceId);
    const named = (name: string) => attempt.find((span) => span.name === name)!;
    const first = named('POST /v1/messages');
    t.is(first.parentSpanContext?.spanId, parent);
    t.is(first.kind, SpanKind.SERVER);
    t.like(first.attributes, { 'http.route': '/v1/messages', 'http.response.status_code': 200 });
    t.deepEqual(wayUp(named('chat4all.message.v1.MessageService/SendMessage'), attempt).slice(1), [
      'POST /v1/messages',
    ]);
    t.true(
      attempt.some(
        ({ name, attributes }) =>
          name === 'PostgreSQL' && /insert into messages/.test(String(attributes['db.query.text'])),
      ),
    );
    t.deepEqual(wayUp(named('process whatsapp_outgoing'), attempt).at(-1), 'POST /v1/messages');
    t.true(wayUp(named('deliver whatsapp'), attempt).includes('process whatsapp_outgoing'));
    if (mesh.bus === 'kafka') {
      // Its events have headers, so that each stage is below the one before.
      t.deepEqual(wayUp(named('deliver whatsapp'), attempt), [
        'deliver whatsapp',
        'process whatsapp_outgoing',
        'send whatsapp_outgoing',
        'process message_processing',
        'send message_processing',
        'POST /v1/messages',
      ]);
    }
    const lines = mesh.services.message!.lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    t.true(lines.some((line) => line['trace_id'] === traceId && line['request_id'] === requestId));
  });

  test.serial(`${mesh.bus}: what is done for several messages at once is linked to the trace of each`, async (t) => {
    const conversation = await openConversation([user1, user2]);
    exporter.reset();
    const sent = await Promise.all(Array.from({ length: 20 }, () => send(user1, conversation)));
    for (const id of sent) await ended(user1, id);
    const shared = exporter.getFinishedSpans().filter(({ links }) => links.length > 1);
    t.true(shared.some(({ name }) => name === 'round of message.accepted'));
    t.true(shared.some(({ name }) => name === 'process message_processing together'));
    const known = new Set(exporter.getFinishedSpans().map((span) => span.spanContext().spanId));
    for (const { links, parentSpanContext } of shared) {
      t.is(parentSpanContext, undefined);
      t.is(new Set(links.map(({ context }) => context.traceId)).size, links.length);
      for (const { context } of links) t.true(known.has(context.spanId));
    }
  });
}

test.serial('what has failed is an error in its trace, and what a client got wrong is none', async (t) => {
  const [mesh] = meshes as [(typeof meshes)[number]];
  const [user1, user2] = mesh.people as [Person, Person];
  const conversation = await openConversation([user1, user2]);
  const names = ['POST /v1/messages', 'chat4all.message.v1.MessageService/SendMessage'];
  const sendTraced = async (conversationId: string) => {
    const traceId = uuid().replaceAll('-', '');
    const json = messageOf(user1, conversationId);
    const headers = { traceparent: `00-${traceId}-00f067aa0ba902b7-01` };
    const { status } = await user1.rest.call('POST', '/v1/messages', { json, headers });
    const spans = await eventually(
      'both spans have ended',
      () => names.map((name) => spansOf(traceId).find((span) => span.name === name)),
      (found) => found.every((span) => span !== undefined),
    );
    const [http, rpc] = spans.map((span) => ({ status: span!.status.code, error: span!.attributes['error.type'] }));
    return { status, http, rpc, code: spans[1]!.attributes['rpc.response.status_code'] };
  };
  const none = { status: SpanStatusCode.UNSET, error: undefined };
  t.deepEqual(await sendTraced(uuid()), { status: 404, http: none, rpc: none, code: 'NOT_FOUND' });
  await mesh.services.conversation!.stop();
  t.deepEqual(await sendTraced(conversation), {
    status: 503,
    http: { status: SpanStatusCode.ERROR, error: '503' },
    rpc: { status: SpanStatusCode.ERROR, error: 'SERVICE_UNAVAILABLE' },
    code: 'UNAVAILABLE',
  });
});

test.serial('a client with a request id of its own has a trace by that, linked to its span', async (t) => {
  const requestId = `order-${uuid()}`;
  const caller = uuid().replaceAll('-', '');
  const context = { requestId };
  await withTracedContext(context, 'entry', { isFirst: true, traceparent: `00-${caller}-00f067aa0ba902b7-01` }, () =>
    inSpan('part', {}, async () => {}),
  );
  await withTracedContext(context, 'later', {}, async () => {});
  const entry = exporter.getFinishedSpans().find(({ name }) => name === 'entry')!;
  t.is(entry.parentSpanContext, undefined);
  t.deepEqual(
    entry.links.map(({ context: { traceId } }) => traceId),
    [caller],
  );
  const spans = spansOf(entry.spanContext().traceId);
  const above = new Map(spans.map(({ name, parentSpanContext }) => [name, parentSpanContext?.spanId]));
  const { spanId } = entry.spanContext();
  t.deepEqual(
    above,
    new Map([
      ['part', spanId],
      ['entry', undefined],
      ['later', spanId],
    ]),
  );
});

test.serial(
  'a collector is sent the part of all traces that was asked for, over OTLP; without one nothing is traced',
  async (t) => {
    const bodies: string[] = [];
    const collector = createServer((request, response) => {
      void text(request).then((body) => {
        bodies.push(`${request.url} ${body}`);
        response.writeHead(200, { 'Content-Type': 'application/json' }).end('{}');
      });
    }).listen(0, '127.0.0.1');
    t.teardown(() => collector.close());
    await once(collector, 'listening');
    const log = openLog({ name: 'test', format: 'json', level: 'silent' });
    const OTEL_EXPORTER_OTLP_ENDPOINT = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
    const config = loadConfig(tracingSettings, { OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER_ARG: '0.5' });
    const stop = await startTracing(config, 'router', log);
    for (let count = 0; count < 200; count += 1) {
      await withTracedContext({ requestId: uuid() }, 'half of them', { isFirst: true }, async () => {});
    }
    await stop();
    t.true(bodies.every((body) => body.startsWith('/v1/traces ') && body.includes('router')));
    const count = bodies.join('').split('half of them').length - 1;
    t.true(count > 50 && count < 150, String(count));
    const none = await startTracing(loadConfig(tracingSettings, {}), 'router', log);
    await withTracedContext({ requestId: uuid() }, 'none of them', { isFirst: true }, async () => {});
    await none();
    t.false(bodies.join('').includes('none of them'));
  },
);
