import test from 'ava';
import { overloadJudgements, type FloodReport } from './overload.ts';
import { readAnswer } from './raw-http.ts';
import { replicasJudgements } from './replicas.ts';

function flood(changes: Partial<FloodReport>): FloodReport {
  const times = { count: 1, p50: 1, p95: 1, p99: 1, max: 1 };
  return {
    factor: 2,
    offeredPerSecond: 200,
    goodputPerSecond: 95,
    accept: times,
    refusal: times,
    lag: times,
    delivery: times,
    wellAgainSeconds: 1,
    refused: {},
    ...changes,
  };
}

test('overloadJudgements: each goal of each flood by itself', (t) => {
  const best = { acceptedPerSecond: 100, users: 50 };
  const times = { count: 1, p50: 1, p95: 1, p99: 2_500, max: 1 };
  const reached = (changes: Partial<FloodReport>) =>
    overloadJudgements({ best, floods: [flood(changes)] }).map(({ isReached }) => isReached);
  t.deepEqual(reached({}), [true, true, true, true]);
  t.deepEqual(reached({ goodputPerSecond: 89 }), [false, true, true, true]);
  t.deepEqual(reached({ accept: times }), [true, false, true, true]);
  t.deepEqual(reached({ refusal: times }), [true, true, false, true]);
  t.deepEqual(reached({ wellAgainSeconds: Infinity }), [true, true, true, false]);
});

test('replicasJudgements: how many times as much, and how soon work moves', (t) => {
  const rates = [40, 77, 130].map((deliveriesPerSecond, index) => ({
    replicas: [1, 2, 4][index]!,
    offeredPerSecond: 500,
    deliveriesPerSecond,
  }));
  const report = { rates, added: { sinceReady: 3, sinceStart: 12 }, killed: { slowestSeconds: 10.5 } };
  t.deepEqual(
    replicasJudgements(report).map(({ isReached }) => isReached),
    [true, false, true, false],
  );
});

test('readAnswer: an answer is there once its last byte is, whatever comes behind it', (t) => {
  const body = Buffer.from('{"error_code":"ação"}').toString('latin1');
  const head = `HTTP/1.1 503 Service Unavailable\r\ncontent-length: ${body.length}\r\nRetry-After: 2\r\nConnection: close`;
  const answer = `${head}\r\n\r\n${body}`;
  t.is(readAnswer(answer.slice(0, -1)), undefined);
  t.is(readAnswer(head), undefined);
  t.deepEqual(readAnswer(`${answer}HTTP/1.1 200 OK`), {
    status: 503,
    retryAfter: 2,
    body: '{"error_code":"ação"}',
    end: answer.length,
    closes: true,
  });
  t.like(readAnswer('HTTP/1.1 204 No Content\r\nX: y\r\n\r\n'), {
    status: 204,
    retryAfter: 0,
    body: '',
    closes: false,
  });
});
