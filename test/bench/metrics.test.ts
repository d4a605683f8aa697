import test from 'ava';
import { counterLines, samplesOf, sumOf, sumsOf } from './metrics.ts';

const text = `# HELP chat4all_bus_published_total Events
# TYPE chat4all_bus_published_total counter
chat4all_bus_published_total{topic="messages"} 12
chat4all_bus_published_total{topic="a \\"quoted\\", {odd} one"} 1.5e+3
chat4all_messages_accepted_total 7
chat4all_rpc_in_flight 3
process_cpu_user_seconds_total 9
`;

test("counterLines: the hub's own counters, with and without labels, and nothing else", (t) => {
  t.deepEqual(counterLines(text), [
    ['chat4all_bus_published_total{topic="messages"}', 12],
    ['chat4all_bus_published_total{topic="a \\"quoted\\", {odd} one"}', 1500],
    ['chat4all_messages_accepted_total', 7],
  ]);
});

test('samplesOf, sumOf, sumsOf: one metric, by its labels, largest first; what is missing is not zero', (t) => {
  const metrics = {
    'chat4all_rpc_handled_total{rpc="A",code="OK"}': 2,
    'chat4all_rpc_handled_total{rpc="B",code="OK"}': 5,
    'chat4all_rpc_handled_total{rpc="A",code="ABORTED"}': 1,
    'chat4all_rpc_handled_total_more{rpc="C"}': 9,
  };
  t.deepEqual(samplesOf(metrics, 'rpc_handled_total')[0], {
    name: 'rpc_handled_total',
    labels: { rpc: 'A', code: 'OK' },
    value: 2,
  });
  t.is(sumOf(metrics, 'rpc_handled_total'), 8);
  t.is(sumOf(metrics, 'kafka_requests_total'), undefined);
  t.deepEqual(Object.entries(sumsOf(metrics, 'rpc_handled_total', ({ rpc }) => rpc!)), Object.entries({ B: 5, A: 3 }));
});
