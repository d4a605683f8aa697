import { readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { register } from 'prom-client';
import { kafkaIsThere, startMesh } from './harness.ts';

const root = path.resolve(import.meta.dirname, '..');
const read = (file: string) => readFileSync(path.join(root, file), 'utf8');

for (const bus of kafkaIsThere ? (['embedded', 'kafka'] as const) : (['embedded'] as const)) {
  test.serial(`${bus}: one of each service may have as many connections as the operating guide says`, async (t) => {
    t.timeout(120_000);
    const [, onKafka, onPostgres] = /one of each service: at most (\d+) with Kafka, (\d+) where/.exec(
      read('docs/operating.md'),
    )!;
    const mesh = await startMesh({ bus, env: { DATABASE_POOL: '10' } });
    try {
      const { values } = await register.getSingleMetric('chat4all_database_connections_max')!.get();
      const may = values[0]!.value;
      t.is(may, Number(bus === 'kafka' ? onKafka : onPostgres));
    } finally {
      await mesh.stop();
    }
    const { values } = await register.getSingleMetric('chat4all_database_connections_max')!.get();
    t.is(values[0]!.value, 0);
  });
}

test('docker-compose.yml: PostgreSQL takes four of each service, with a migration', (t) => {
  const [, one] = /one of each service: at most (\d+) with Kafka/.exec(read('docs/operating.md'))!;
  const [, most] = /max_connections=(\d+)/.exec(read('docker-compose.yml'))!;
  t.true(4 * Number(one) + 18 + 3 <= Number(most));
});
