import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { Metadata, status } from '@grpc/grpc-js';
import test from 'ava';
import { loadConfig } from '#lib/config.ts';
import { eventually } from '../../test/eventually.ts';
import { failingBare, registry, startEchoBackend, type EchoBackend } from '../../test/echo-backend.ts';
import { fixture, type Answer } from '../../test/echo-gateway.ts';
import { grpcGatewayDialect } from '../dialects/grpc-gateway/dialect.ts';
import { settings } from '../index.ts';
import { httpStatusOf } from '../http/problem.ts';
import { Reading } from '../json/reading.ts';
import { failure } from './exchange.ts';

const portOf = ({ address }: EchoBackend) => Number(address.split(':')[1]);

/** `GET /v1/everything` may be asked twice, as its proto says; of `POST /v1/everything` nothing is said. */
const repeatable = 'GET /v1/everything';
const once = 'POST /v1/everything';

test('overload: a client gets half of the places, others the rest; more is refused at once, health excepted, and then all is well', async (t) => {
  const { backend, send } = await fixture(t, { HTTP_CONCURRENCY: '4', RATE_LIMIT: '0' });
  const waiting: (() => void)[] = [];
  backend.handler = (call, callback) => void waiting.push(() => callback(null, call.request));
  const taken: Promise<Answer>[] = [];
  const take = async (from: string, count = 1) => {
    for (let index = 0; index < count; index++) taken.push(send(repeatable, { from }));
    await eventually(
      `${taken.length} are under way`,
      () => waiting.length,
      (length) => length === taken.length,
    );
  };
  const refused = async (from: string, expected: object) => {
    const { json, headers } = await send(once, { body: {}, from });
    t.like(json, { ...expected, retry_after: 1 });
    t.is(headers['retry-after'], '1');
  };
  await take('127.0.0.1', 2);
  await refused('127.0.0.1', { status: 429, error_code: 'TOO_MANY_CALLS' });
  await take('127.0.0.2');
  await refused('127.0.0.2', { status: 429, error_code: 'TOO_MANY_CALLS' });
  await take('127.0.0.3');
  for (const from of ['127.0.0.1', '127.0.0.4']) await refused(from, { status: 503, error_code: 'OVERLOADED' });
  t.is((await send('GET /health')).status, 200);
  t.is(waiting.length, 4);
  for (const answer of waiting) answer();
  for (const answer of taken) t.is((await answer).status, 200);
  backend.handler = undefined;
  t.is((await send(repeatable)).status, 200);
});

test('overload: uploads and downloads have half as many places, and take none of those of others', async (t) => {
  const { backend, send } = await fixture(t, { HTTP_CONCURRENCY: '8', RATE_LIMIT: '0' });
  const ends: (() => void)[] = [];
  backend.sender = (call) =>
    void ends.push(() => call.emit('error', { code: status.NOT_FOUND, metadata: new Metadata() }));
  const downloads = [send('GET /v1/raw/a/content'), send('GET /v1/raw/b/content')];
  await eventually(
    'two are under way',
    () => ends.length,
    (count) => count === 2,
  );
  t.like((await send('GET /v1/raw/c/content')).json, { status: 429, error_code: 'TOO_MANY_CALLS' });
  t.like((await send('PATCH /v1/raw/upload')).json, { status: 429, error_code: 'TOO_MANY_CALLS' });
  t.is((await send('PATCH /v1/raw/upload', { from: '127.0.0.2' })).status, 201);
  t.is((await send(repeatable)).status, 200);
  for (const end of ends) end();
  for (const download of downloads) t.is((await download).status, 404);
});

for (const [what, line, expected] of [
  ['is made again if its proto says that it may be', repeatable, 200],
  ['is else told as 503', once, 503],
] as const) {
  test(`a call that is lost on the way ${what}`, async (t) => {
    const { backend, send } = await fixture(t);
    t.is((await send(repeatable)).status, 200);
    let again: Promise<EchoBackend> | undefined;
    backend.handler = () => {
      backend.stop();
      again = startEchoBackend(portOf(backend));
    };
    const answer = await send(line, line === once ? { body: {} } : {});
    t.teardown(async () => (await again)?.stop());
    t.is(answer.status, expected);
    if (expected === 503) t.like(answer.json, { error_code: 'UNAVAILABLE', retry_after: 1 });
  });
}

test('what a backend itself answers is never asked for again, whatever code and text it has', async (t) => {
  const { backend, send } = await fixture(t, { RATE_LIMIT: '0' });
  const codes = Object.values(status).filter((code) => typeof code === 'number' && code !== status.OK) as status[];
  t.is(codes.length, 16);
  for (const code of codes) {
    for (const text of [
      'No',
      'No connection established',
      'Stream refused by server',
      'Received RST_STREAM with code 2',
    ]) {
      backend.handler = failingBare(code, text);
      for (const [line, body] of [[repeatable], [once, {}]] as const) {
        backend.calls.length = 0;
        const answer = await send(line, { body });
        t.is(answer.status, httpStatusOf(code), `${line}: ${status[code]} ${text}`);
        t.is(backend.calls.length, 1, `${line}: ${status[code]} ${text}`);
      }
    }
  }
});

/** A message with a text so long, made without the time that encoding it takes. */
function large(length: number): Buffer {
  const { number } = registry.getMessage('transcoding.v1.Everything')!.field['textValue']!;
  return Buffer.from(
    new BinaryWriter().tag(number, WireType.LengthDelimited).bytes(Buffer.alloc(length, 'x')).finish(),
  );
}

// By itself: others ask in this process whether it is alive.
test.serial('an answer that is too large is our fault, in whatever way it comes, and asked for once', async (t) => {
  const { backend, send } = await fixture(t, { REQUEST_TIMEOUT: '60s' });
  const ours = { status: 502, error_code: 'ANSWER_TOO_LARGE' };
  backend.handler = (_call, callback) => callback(null, large(33 * 2 ** 20));
  for (const [line, body] of [[repeatable], [once, {}]] as const) {
    const answer = await send(line, { body });
    t.like(answer.json, ours, line);
    t.false('retry-after' in answer.headers);
    t.false('retry_after' in answer.json);
  }
  t.is(backend.calls.length, 2);
  for (const before of [0, 2]) {
    backend.sender = (call) => {
      for (let count = 0; count < before; count++) call.write(large(1));
      call.write(large(5 * 2 ** 20));
      call.end();
    };
    const answer = await send('GET /v1/streams/a?count=3');
    t.is(answer.status, before === 0 ? 502 : 200);
    const lines = answer.text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, object>);
    t.is(lines.length, before + 1);
    t.like(before === 0 ? lines[0] : lines.at(-1)!['error'], ours);
    t.false('retry-after' in answer.headers);
    t.false(answer.text.includes('retry_after'));
  }
  backend.handler = failingBare(status.RESOURCE_EXHAUSTED, 'Received message larger than max (5 vs 4)');
  t.like((await send(repeatable)).json, { status: 429, error_code: 'RESOURCE_EXHAUSTED', retry_after: 1 });
  t.is((await send(repeatable)).headers['retry-after'], '1');
});

test('an answer that is too large is what gRPC says of it, to the clients of grpc-gateway', (t) => {
  const details = 'Received message larger than max (5 vs 4)';
  const error = failure(status.RESOURCE_EXHAUSTED, details, 'too large');
  const problem = grpcGatewayDialect(registry, 'proto').problemOf(error, new Reading(), {
    errorStatuses: new Map(),
    errorCodes: undefined,
  });
  t.is(problem.status, 429);
  t.false('Retry-After' in problem.headers);
  t.like(JSON.parse(problem.body(undefined)), { code: 8, message: details });
});

test('a backend that is away for a moment is waited for, whatever is asked of it', async (t) => {
  const { backend, send } = await fixture(t);
  t.is((await send(repeatable)).status, 200);
  backend.stop();
  const answers = Promise.all([send(repeatable), send(once, { body: {} }), send('GET /v1/raw/a/content')]);
  const again = await startEchoBackend(portOf(backend));
  t.teardown(() => again.stop());
  t.deepEqual(
    (await answers).map((answer) => answer.status),
    [200, 201, 200],
  );
});

test('several servers share the calls, one that is gone is left out, and ready is whoever has one left', async (t) => {
  const others = await Promise.all([startEchoBackend(), startEchoBackend()]);
  t.teardown(() => others.forEach((each) => each.stop()));
  const [first, second] = others as [EchoBackend, EchoBackend];
  const { send } = await fixture(t, {
    BACKENDS: others.map(({ address }) => `transcoding.v1=${address}`).join(','),
  });
  await eventually(
    'both are asked',
    () => send(once, { body: {} }),
    () => first.calls.length > 0 && second.calls.length > 0,
  );
  first.stop();
  for (let count = 0; count < 20; count += 1) t.is((await send(repeatable)).status, 200);
  t.is((await send('GET /ready')).status, 200);
  second.health.setStatus('database', 'NOT_SERVING');
  await eventually(
    'its database counts',
    () => send('GET /ready'),
    (answer) => answer.status === 503,
  );
  // Whatever is down behind it, a load balancer is to go on.
  t.is((await send('GET /live')).status, 200);
  second.stop();
  const isDown = async () => ((await send('GET /ready')).json['dependencies'] as { transcoding: string }).transcoding;
  t.is(await eventually('none is left', isDown, (state) => state === 'down'), 'down');
});

test('settings: several servers of one package are named by their IP addresses', (t) => {
  const read = (BACKENDS: string) => loadConfig(settings, { BACKENDS });
  t.is(read('a.v1=10.0.0.1:1,a.v1=10.0.0.2:1,b.v1=some.where:1').BACKENDS.length, 3);
  t.is(read('a.v1=[::1]:1,a.v1=[::1]:2').BACKENDS.length, 2);
  for (const bad of ['a.v1=one:1,a.v1=two:1', 'a.v1=10.0.0.1:1,a.v1=[::1]:1']) {
    t.throws(() => read(bad), { message: /BACKENDS must name each package or service once, or with the IP address/ });
  }
});

test('retire: the gateway is not ready any more, still answers, and lets go of its connections', async (t) => {
  const { gateway, send } = await fixture(t);
  t.is((await send('GET /ready')).status, 200);
  gateway.retire();
  const ready = await send('GET /ready');
  t.like(ready.json, { status: 'not_ready', reason: 'stopping' });
  t.is(ready.status, 503);
  const live = await send('GET /live');
  t.like(live, { status: 503, json: { status: 'stopping' } });
  const answer = await send(repeatable, { headers: { connection: 'keep-alive' } });
  t.is(answer.status, 200);
  t.is(answer.headers.connection, 'close');
});
