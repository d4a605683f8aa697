import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { loadConfig } from '#lib/config.ts';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { transportSettings } from '#lib/rpc/transport.ts';
import { descriptorSet, failing, startEchoBackend } from '../test/echo-backend.ts';
import { dial, exchange } from '../test/echo-gateway.ts';
import { eventually } from '../test/eventually.ts';
import { foreignDescriptors } from '../test/grpc-gateway/build.ts';
import { startStandalone, type StandaloneOptions } from './standalone.ts';

/**
 * The gateway that stands alone, in front of an echoing backend.
 *
 * @param rename bytes of the descriptor set, and those in their place
 * @param protos the test protos in it
 */
async function start(
  t: ExecutionContext,
  {
    rename = ['', ''],
    protos,
    ...more
  }: Partial<StandaloneOptions> & { rename?: [string, string]; protos?: string[] } = {},
) {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const descriptors = path.join(folder, 'descriptors.binpb');
  await foreignDescriptors(descriptorSet, descriptors, protos);
  const changed = (await readFile(descriptors, 'latin1')).replaceAll(...rename);
  await writeFile(descriptors, changed, 'latin1');
  const backend = await startEchoBackend();
  t.teardown(() => backend.stop());
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  const log = openLog({ name: 'gateway', format: 'json', level: 'warn', destination });
  const options = { descriptorSet: descriptors, backend: backend.address, port: 0, host: '127.0.0.1' };
  const gateway = await startStandalone(
    { ...options, enumNames: 'proto', ...more },
    loadConfig(transportSettings, {}),
    log,
  );
  t.teardown(() => gateway.stop());
  return { backend, gateway, lines };
}

test('standalone: /healthz says whether the server serves, and whether the gateway does', async (t) => {
  const { backend, gateway } = await start(t);
  const becomes = (expected: number) =>
    eventually(
      `it answers ${expected}`,
      () => exchange(gateway.port, 'GET /healthz'),
      (answer) => answer.status === expected,
    );
  const { headers, json } = await becomes(200);
  t.is(headers['content-type'], 'application/json');
  t.deepEqual(json, { status: 'SERVING' });
  t.is((await exchange(gateway.port, 'HEAD /healthz')).text, '');
  t.is((await exchange(gateway.port, 'POST /healthz')).status, 404);
  backend.health.setStatus('', 'NOT_SERVING');
  t.like((await becomes(503)).json, { code: 14, error_code: 'UNAVAILABLE' });
  backend.health.setStatus('', 'SERVING');
  await becomes(200);
  gateway.retire();
  t.is((await exchange(gateway.port, 'GET /healthz')).status, 503);
});

test('standalone: a rule that takes /healthz goes before', async (t) => {
  // `get` of the HttpRule, and in its place a shorter one with a `selector` of 1 byte: lengths stand in front of both together.
  const { backend, gateway } = await start(t, {
    rename: ['\u0012\u0017/v1/letters/{letter_id}', '\u0012\u0014/{letter_id=healthz}\u000a\u0001x'],
  });
  t.is((await exchange(gateway.port, 'GET /healthz')).status, 200);
  t.is(backend.calls.length, 1);
});

test('standalone: options of ours change nothing, neither in answers nor in errors', async (t) => {
  const protos = ['transcoding/v1/transcoding.proto', 'transcoding/v1/envelope.proto'];
  const { backend, gateway } = await start(t, { protos });
  const send = (line: string, body?: object) => exchange(gateway.port, line, { body });
  const thing = await send('PATCH /api/v1/things/a', { nickname: 'n', nope: 1 });
  t.is(thing.status, 200);
  t.like(thing.json, { textValue: 'a', nickname: 'n', int64Value: '0', nested: null });
  t.deepEqual((await send('GET /api/v1/shelves/s/things?pagination.total=7')).json, []);
  t.is((await send('DELETE /api/v1/things/a')).status, 200);
  t.like((await send('GET /api/v1/nope')).json, { code: 5, error_code: 'ROUTE_NOT_FOUND' });
  t.like((await send('GET /api/v1/health')).json, { code: 5, error_code: 'ROUTE_NOT_FOUND' });
  backend.handler = failing(new HubError('PERMISSION_DENIED', 'LIMIT_EXCEEDED', 'no'));
  t.like((await send('GET /api/v1/things/a')).json, { code: 7, message: 'no', error_code: 'LIMIT_EXCEEDED' });
  await exchange(gateway.port, 'GET /api/v1/things/a', { headers: { 'x-api-key': 'k' } });
  t.deepEqual(backend.calls.at(-1)!.metadata.get('x-api-key'), []);
});

test('standalone: rules that are not usable are named with their methods, and left out on demand', async (t) => {
  // A field in the path of one rule becomes one that there isn't.
  const rename: [string, string] = ['{letter_id}', '{letter_ie}'];
  const error = await t.throwsAsync(start(t, { rename }));
  t.regex(error.message, /rule of transcoding\.v1\.LetterService\.GetLetter binds letter_ie, which is no single value/);
  t.regex(error.message, /--skip-unusable/);
  const { gateway, lines } = await start(t, { rename, skipUnusable: true });
  t.true(lines.some((line) => line.includes('LetterService.GetLetter binds letter_ie')));
  t.is((await exchange(gateway.port, 'GET /v1/letters/a')).status, 404);
  t.is((await exchange(gateway.port, 'GET /v1/threads/a/letters')).status, 200);
});

test('standalone: one address that takes all the places it gets refuses nobody else, and health answers', async (t) => {
  const { backend, gateway, lines } = await start(t, { concurrency: 8 });
  const waiting: (() => void)[] = [];
  let isWaiting = true;
  backend.handler = (call, callback) => {
    if (isWaiting) waiting.push(() => backend.echo(call, callback));
    else backend.echo(call, callback);
  };
  const attacker = '127.0.0.2';
  const letter = 'GET /v1/letters/a';
  const taken = Array.from({ length: 4 }, () => exchange(gateway.port, letter, { from: attacker }));
  await eventually(
    'its share',
    () => waiting.length,
    (count) => count === 4,
  );
  const refused = await exchange(gateway.port, letter, { from: attacker });
  t.like(refused.json, { status: 429, error_code: 'TOO_MANY_CALLS' });
  t.is(refused.headers['retry-after'], '1');
  t.is((await exchange(gateway.port, 'GET /healthz', { from: attacker })).status, 200);
  isWaiting = false;
  const [first] = taken;
  const other = await exchange(gateway.port, letter);
  for (const answer of waiting) answer();
  t.is(other.status, (await first!).status);
  await Promise.all(taken);

  // Of 80 connections it gets half.
  const idle = await Promise.all(Array.from({ length: 60 }, () => dial(gateway.port, attacker)));
  let closed = 0;
  for (const { socket } of idle) {
    socket.on('close', () => (closed += 1));
    t.teardown(() => socket.destroy());
  }
  await eventually(
    'those beyond its share are closed',
    () => closed + idle.filter(({ socket }) => socket.destroyed).length,
    (count) => count >= 20,
  );
  t.is((await exchange(gateway.port, letter)).status, other.status);
  t.is(lines.length, 1, 'one line for all');
});
