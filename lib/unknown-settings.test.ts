import test from 'ava';
import { unknownSettings } from './unknown-settings.ts';

const told = (...names: string[]) => unknownSettings(Object.fromEntries(names.map((name) => [name, '1'])));

test('unknownSettings: a setting with a typing error is named, with what is likely meant', (t) => {
  for (const [wrong, meant] of [
    ['DELIVERY_DEADLIN', 'DELIVERY_DEADLINE'],
    ['DELIVREY_DEADLINE', 'DELIVERY_DEADLINE'],
    ['KAFKA_BROKER', 'KAFKA_BROKERS'],
    ['BUS_PARTITION', 'BUS_PARTITIONS'],
    ['RATE_LIMITS', 'RATE_LIMIT'],
    ['FILE__GRPC_PROT', 'FILE__GRPC_PORT'],
    ['FIEL__GRPC_PORT', 'FILE__GRPC_PORT'],
  ]) {
    t.deepEqual(told(wrong!), [`There is no setting ${wrong}: is ${meant} meant?`]);
  }
});

test('unknownSettings: what begins as only settings of ours do is named', (t) => {
  t.deepEqual(told('KAFKA_TIMEOUT', 'S3_PATH_STYLE', 'MESSAGE__RETRIES'), [
    'There is no setting KAFKA_TIMEOUT',
    'There is no setting S3_PATH_STYLE',
    'There is no setting MESSAGE__RETRIES',
  ]);
});

test('unknownSettings: settings are not named, nor is what others take', (t) => {
  const others = [
    'PATH',
    'HOME',
    'HTTP_PROXY',
    'NODE_ENV',
    'NODE_OPTIONS',
    'TZ',
    'HOSTNAME',
    'GRPC_TRACE',
    'GRPC_VERBOSITY',
  ];
  // As Kubernetes tells each container of the services around it.
  const kubernetes = ['MESSAGE_SERVICE_HOST', 'MESSAGE_PORT_50051_TCP_ADDR', 'FILE_PORT', 'AUTH_SERVICE_PORT_GRPC'];
  t.deepEqual(told(...others, ...kubernetes, 'DELIVERY_DEADLINE', 'FILE__GRPC_PORT', 'GATEWAY__HOST'), []);
});
