import type { Request } from 'express';
import test from 'ava';
import { Callers } from './callers.ts';

const request = (authorization?: string, ip = '10.0.0.1') => ({ headers: { authorization }, ip }) as Request;
const keyRequest = (key: string, authorization?: string) =>
  ({ headers: { 'x-api-key': key, authorization }, ip: '10.0.0.1' }) as unknown as Request;

test('a request counts for its address, of IPv6 for its network, until a backend has said whose its token is', (t) => {
  const callers = new Callers();
  t.like(callers.of(request()), { client: '10.0.0.1', isUser: false });
  t.is(
    callers.of(request(undefined, '2001:db8:0:1ff::1')).client,
    callers.of(request(undefined, '2001:db8:0:101::2')).client,
  );
  const stranger = callers.of(request('Bearer a'));
  t.like(stranger, { client: '10.0.0.1', isUser: false });
  callers.answered(stranger, 200, undefined);
  t.false(callers.of(request('Bearer a')).isUser);
  callers.answered(stranger, 200, 'u1');
  t.like(callers.of(request('Bearer a', '10.0.0.2')), { client: 'user u1', isUser: true });
  t.false(callers.of(request('Bearer b')).isUser);
});

test('a token that a backend refuses is forgotten', (t) => {
  const callers = new Callers();
  callers.answered(callers.of(request('Bearer a')), 200, 'u1');
  callers.answered(callers.of(request('Bearer a')), 500, undefined);
  t.true(callers.of(request('Bearer a')).isUser);
  callers.answered(callers.of(request('Bearer a')), 401, undefined);
  t.false(callers.of(request('Bearer a')).isUser);
});

test('an API key is known by its user as a token is, and only as a key', (t) => {
  const callers = new Callers();
  callers.answered(callers.of(keyRequest('k')), 200, 'u1');
  t.like(callers.of(keyRequest('k')), { client: 'user u1', isUser: true });
  t.like(callers.of(keyRequest('k', 'Basic x')), { client: 'user u1', isUser: true });
  for (const other of [keyRequest('l'), keyRequest('k', 'Bearer a'), request('k'), request('key k'), request()]) {
    t.false(callers.of(other).isUser);
  }
  callers.answered(callers.of(keyRequest('k')), 401, undefined);
  t.false(callers.of(keyRequest('k')).isUser);
});

test('no more than 100,000 tokens are remembered: the oldest are forgotten', (t) => {
  const callers = new Callers();
  for (let count = 0; count <= 100_000; count++) callers.answered(callers.of(request(`Bearer ${count}`)), 200, 'u1');
  t.false(callers.of(request('Bearer 0')).isUser);
  t.true(callers.of(request('Bearer 1')).isUser);
  t.true(callers.of(request('Bearer 100000')).isUser);
});
