import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { startKafka } from '../../dev/engines/kafka.ts';
import { loadConfig } from '../config.ts';
import { openLog } from '../log.ts';
import { deadLetterTopic, type ReceivedEvent } from './bus.ts';
import { busContract } from './contract.ts';
import type { Engine } from './contract/fixtures.ts';
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

  test('an event that another program published, without all that ours have, goes to the dead letters', async (t) => {
    const topic = `foreign-${randomUUID()}`;
    const bus = await engineOn(brokers).open();
    const kafka = new Kafka({ brokers: brokers.split(','), logLevel: logLevel.NOTHING });
    const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
    t.teardown(async () => {
      await producer.disconnect();
      await bus.stop();
    });
    const retry = { attempts: 1, firstMs: 1, maxMs: 1 };
    const handle = async () => Promise.reject(new Error('not ours'));
    await bus.consume({ topics: [topic], group: 'readers', retry, handle });
    const found = Promise.withResolvers<ReceivedEvent>();
    await bus.consume({
      topics: [deadLetterTopic(topic)],
      group: 'readers',
      handle: async ([letter]) => found.resolve(letter!),
    });
    await producer.connect();
    await producer.send({ topic, messages: [{ value: 'x', headers: { dead_letter: '{' } }] });
    t.like(await found.promise, { id: '', type: '', key: 'none', deadLetter: { topic, reason: 'Error: not ours' } });
  });
} else if (process.env['CI'] === 'true') {
  test('there is a Kafka to test against', (t) => t.fail('TEST_KAFKA_BROKERS is not set'));
} else {
  test.skip('the contract of the bus on Kafka: TEST_KAFKA_BROKERS is not set', (t) => t.pass());
}
