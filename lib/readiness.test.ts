import test from 'ava';
import { featuresOf, readinessOf } from './readiness.ts';

const all = {
  auth: 'up',
  'auth.database': 'up',
  conversation: 'up',
  message: 'up',
  'message.bus': 'up',
  router: 'up',
  connectors: 'up',
  file: 'up',
  'file.store': 'up',
} as const;

test('featuresOf: each feature needs its own services, and what they depend on, and nothing else', (t) => {
  t.deepEqual(featuresOf(all), { accounts: 'up', conversations: 'up', messages: 'up', files: 'up' });
  const without = (name: string) => featuresOf({ ...all, [name]: 'down' });
  t.deepEqual(without('file.store'), { accounts: 'up', conversations: 'up', messages: 'up', files: 'down' });
  t.deepEqual(without('router'), { accounts: 'up', conversations: 'up', messages: 'down', files: 'up' });
  t.deepEqual(without('message.bus'), { accounts: 'up', conversations: 'up', messages: 'down', files: 'up' });
  t.deepEqual(without('conversation'), { accounts: 'up', conversations: 'down', messages: 'down', files: 'down' });
});

test('featuresOf: a wrong clock is told of elsewhere; services of others are features by their names', (t) => {
  t.deepEqual(featuresOf({ file: 'up', 'file.clock': 'down' }), { files: 'up' });
  t.deepEqual(featuresOf({ shop: 'up', 'shop.database': 'down', ledger: 'up' }), { shop: 'down', ledger: 'up' });
});

test('readinessOf: ready if all that is needed is up, whatever can be done without', (t) => {
  const optional = { 'assistant.mcp.maps': 'down' } as const;
  t.like(readinessOf({ dependencies: all, optional }), { status: 'ready', reason: undefined });
  t.like(readinessOf({ dependencies: { ...all, file: 'down' }, optional }), {
    status: 'not_ready',
    reason: 'unavailable',
  });
  t.like(readinessOf({ dependencies: all, optional }, 'stopping'), { status: 'not_ready', reason: 'stopping' });
});
