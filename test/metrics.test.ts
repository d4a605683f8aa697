import test from 'ava';
import { serveMetrics } from '#lib/metrics.ts';
import { readinessOf } from '#lib/readiness.ts';
import { eventually } from './eventually.ts';
import { kafkaIsThere, startMesh } from './harness.ts';

test('every counter of the hub shows a 0 before the first event that it counts', async (t) => {
  const port = await serveMetrics(
    { METRICS_PORT: 0, METRICS_HOST: '127.0.0.1' },
    {
      isEnding: () => false,
      readiness: async () => readinessOf({ dependencies: {}, optional: {} }),
    },
  );
  const mesh = await startMesh({ bus: kafkaIsThere ? 'kafka' : 'embedded' });
  t.teardown(() => mesh.stop());
  const samples = async () => {
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    const counters = [...text.matchAll(/^# TYPE (chat4all_\w+) counter$/gm)].map(([, name]) => name!);
    return new Map(
      counters.map((name) => [name, text.split('\n').filter((line) => new RegExp(`^${name}[ {]`).test(line))]),
    );
  };
  const empty = async () => [...(await samples())].filter(([, lines]) => lines.length === 0).map(([name]) => name);
  await eventually('all of them have a sample', empty, (names) => names.length === 0);

  const all = await samples();
  for (const line of [
    'chat4all_messages_ended_total{status="failed"} 0',
    'chat4all_messages_refused_total{channel="whatsapp",reason="CHANNEL_OVERLOADED"} 0',
    'chat4all_deliveries_total{channel="instagram",status="delivered"} 0',
    'chat4all_delivery_attempts_total{channel="whatsapp"} 0',
    'chat4all_tool_invocations_total{status="timeout"} 0',
    'chat4all_rpc_handled_total{rpc="chat4all.message.v1.MessageService/SendMessage",code="UNAVAILABLE"} 0',
    'chat4all_http_requests_total{method="POST",route="/v1/messages",status="503"} 0',
    'chat4all_http_refused_total{of="calls",why="full"} 0',
    'chat4all_bus_published_total{topic="message_processing"} 0',
    'chat4all_bus_dead_letters_total{topic="message_processing",group="router"} 0',
    'chat4all_assistant_turns_total{outcome="failed"} 0',
  ]) {
    const name = /^\w+/.exec(line)![0];
    t.true(all.get(name)?.includes(line), `${line} in\n${all.get(name)?.slice(0, 20).join('\n')}`);
  }
});
