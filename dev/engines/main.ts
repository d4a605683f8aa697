import path from 'node:path';
import { startKafka } from './kafka.ts';

/** `npm run engines`: the real engines, natively, until Ctrl-C. Prints the environment that makes the services use them. */
const data = path.resolve(import.meta.dirname, '../../.chat4all/engines');

const stop = new Promise<void>((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
});

try {
  const kafka = await startKafka({ dataDir: path.join(data, 'kafka-data'), port: 9092, log: console.log });
  console.log('Kafka is ready. To use it:\n');
  console.log(`export KAFKA_BROKERS=${kafka.brokers}\n`);
  console.log('Ctrl-C stops it; what is in it stays.');
  const died = kafka.exited.then(() => 'died');
  if ((await Promise.race([stop, died])) === 'died') {
    throw new Error(`Kafka ended by itself. Its log: ${path.join(data, 'kafka-data', 'server.log')}`);
  }
  await kafka.stop();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
