import test from 'ava';
import { clientOf, isNetwork, Networks } from './client-address.ts';

test('clientOf: an IPv4 address counts for itself, however it is written', (t) => {
  t.is(clientOf('192.0.2.7'), '192.0.2.7');
  t.is(clientOf('::ffff:192.0.2.7'), '192.0.2.7');
  t.is(clientOf('::ffff:c000:207'), '192.0.2.7');
});

test('clientOf: an IPv6 address counts for its network of 56 bits', (t) => {
  const network = clientOf('2001:db8:0:1ff::1');
  t.is(network, '2001:db8:0:100::/56');
  t.is(clientOf('2001:DB8::100:0:0:0:2'), network);
  t.is(clientOf('2001:db8:0:0142:ffff:ffff:ffff:ffff'), network);
  t.not(clientOf('2001:db8:0:200::1'), network);
  t.is(clientOf('fe80::1%eth0'), clientOf('fe80::2'));
});

test('clientOf: what is no address is a client of that name', (t) => {
  t.is(clientOf('unknown'), 'unknown');
  t.is(clientOf('no:address'), 'no:address');
});

test('Networks: addresses and networks of both families', (t) => {
  const networks = new Networks(['127.0.0.1', '::1', '10.1.0.0/16', 'fd00:1::/32', '192.0.2.99/24']);
  for (const address of [
    '127.0.0.1',
    '::ffff:127.0.0.1',
    '::1',
    '0:0:0:0:0:0:0:1',
    '10.1.255.3',
    'fd00:1:2::3',
    '192.0.2.1',
  ]) {
    t.true(networks.has(address), address);
  }
  for (const address of ['127.0.0.2', '::2', '10.2.0.1', 'fd00:2::1', '192.0.3.1', '', 'localhost', '10.1.0.0/16']) {
    t.false(networks.has(address), address);
  }
  t.false(new Networks([]).has('127.0.0.1'));
});

test('isNetwork: addresses and CIDR notation, and nothing else', (t) => {
  for (const text of ['127.0.0.1', '::1', '10.0.0.0/8', '::/0']) t.true(isNetwork(text), text);
  for (const text of ['', 'localhost', '10.0.0.0/33', '10.0.0/8', '::/129', '10.0.0.0/', '10.0.0.0/8/8'])
    t.false(isNetwork(text), text);
});
