import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { startKafka } from '../../dev/engines/kafka.ts';
import { loadConfig } from '../config.ts';
import { openLog } from '../log.ts';
import { busContract, type Engine } from './contract.ts';
import { busSettings, openBus } from './open.ts';

const brokers = process.env['TEST_KAFKA_BROKERS'] ?? '';
const log = openLog({ name: 'test', format: 'json', level: 'silent' });

function engineOn(addresses: string): Engine {
  const env = { KAFKA_BROKERS: addresses };
  return { env, open: () => openBus(loadConfig(busSettings, env), { log, clientId: 'test' }) };
}

if (brokers !== '') {
  busContract(test, {
    shared: () => engineOn(brokers),
    async startPrivate() {
      const dataDir = await mkdtemp(path.join(tmpdir(), 'chat4all-kafka-'));
      let broker = await startKafka({ dataDir });
      const { port } = broker;
      return {
        ...engineOn(broker.brokers),
        stop: () => broker.stop(),
        async start() {
          broker = await startKafka({ dataDir, port });
        },
        async remove() {
          await broker.stop();
          await rm(dataDir, { recursive: true, force: true });
        },
      };
    },
  });
} else if (process.env['CI'] === 'true') {
  test('there is a Kafka to test against', (t) => t.fail('TEST_KAFKA_BROKERS is not set'));
} else {
  test.skip('the contract of the bus on Kafka: TEST_KAFKA_BROKERS is not set', (t) => t.pass());
}
