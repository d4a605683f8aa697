import test from 'ava';
import { loadConfig } from '#lib/config.ts';
import { openLog } from '#lib/log.ts';
import { transportSettings } from '#lib/rpc/transport.ts';
import { startStandalone } from '../gateway/standalone.ts';
import { exchange, type Answer } from './echo-gateway.ts';
import { buildExamples, goIsThere, startGo } from './grpc-gateway/build.ts';
import { createdId, ofIntegrationTests, ofRules } from './grpc-gateway/example-requests.ts';

const compare = goIsThere() || process.env['CI'] === 'true' ? test.serial : test.serial.skip;

/** Where the gateway does something else on purpose. */
const differences: readonly { reason: string; applies(line: string, body: unknown): boolean }[] = [
  {
    reason: 'a wrong message of a stream in both directions is told, where Go ends the stream as if there were no more',
    applies: (line, body) => line.endsWith('/echo_duration') && !/^("[\d.]+s"\s*)*$/.test(String(body)),
  },
];

/** Says how an answer came, or is of HTTP itself. */
const headersOfHttp =
  /^(date|connection|keep-alive|content-length|transfer-encoding|vary|grpc-metadata-(date|grpc-accept-encoding))$/;

compare("the gateway alone serves grpc-gateway's own examples as that does", async (t) => {
  t.timeout(20 * 60_000);
  const { program, descriptors, apiConfiguration } = await buildExamples({ log: (line) => t.log(line) });
  const log = openLog({ name: 'gateway', format: 'json', level: 'silent', destination: { write() {} } });
  const start = async () => {
    const server = await startGo(program, 'server');
    t.teardown(() => server.stop());
    return `127.0.0.1:${server.port}`;
  };
  // Their servers keep what they are sent.
  const go = await startGo(program, 'gateway', await start());
  t.teardown(() => go.stop());
  const options = {
    descriptorSet: descriptors,
    apiConfiguration,
    port: 0,
    host: '127.0.0.1',
    enumNames: 'proto',
  } as const;
  const config = loadConfig(transportSettings, {});
  const sides = [{ name: 'grpc-gateway', port: go.port, created: '' }];
  for (const grpcClient of ['own', 'grpc-js'] as const) {
    // oxlint-disable-next-line no-await-in-loop -- each beside a server of its own
    const ours = await startStandalone({ ...options, backend: await start(), grpcClient }, config, log);
    t.teardown(() => ours.stop());
    sides.push({ name: grpcClient, port: ours.port as number, created: '' });
  }

  const wrong: string[] = [];
  const requests = [...ofIntegrationTests, ...ofRules];
  for (const { line, ...send } of requests) {
    const seen: unknown[] = [];
    for (const side of sides) {
      // oxlint-disable-next-line no-await-in-loop -- later requests ask for what earlier ones made
      const answer = await exchange(side.port, line.replace(createdId, side.created), {
        ...send,
        headers: { host: 'gateway.test', ...send.headers },
      });
      if (/^POST \S+a_bit_of_everything$/.test(line)) side.created = String(answer.json['uuid']);
      seen.push(shown(answer, side.created));
    }
    const [theirs, ...ours] = seen.map((each) => JSON.stringify(each));
    const allowed = differences.find(({ applies }) => applies(line, send.body));
    for (const [index, own] of ours.entries()) {
      const title = `${sides[index + 1]!.name}: ${line} ${JSON.stringify(send)}`;
      if (allowed === undefined && theirs !== own) wrong.push(`${title}\n  ${theirs}\n  is here\n  ${own}`);
      if (allowed !== undefined && theirs === own) wrong.push(`${title} is no difference any more: ${allowed.reason}`);
    }
  }
  t.log(`${requests.length} requests`);
  t.is(wrong.join('\n'), '');
});

/** What a client sees of an answer; of the body of an error only its code. */
function shown({ status, headers, text }: Answer, created: string): unknown {
  const isError = status >= 400;
  const told = Object.entries(headers)
    .filter(([name]) => !headersOfHttp.test(name) && !(isError && /^(content-type|x-content-type-options)$/.test(name)))
    .map(([name, value]) => [name, name === 'trailer' ? String(value).split(', ').toSorted().join(', ') : value])
    .toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1));
  return JSON.parse(
    JSON.stringify({ status, told, body: bodyOf(text, isError) }).replaceAll(
      created === '' ? /[\da-f]{48}/g : created,
      '<id>',
    ),
  );
}

function bodyOf(text: string, isError: boolean): unknown {
  // The order of what a server keeps in a map is another one each time.
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      try {
        const json = JSON.parse(line) as Record<string, unknown>;
        const { error } = (json ?? {}) as { error?: { code: number; message: string } };
        if (isError) return { code: json['code'] };
        return error === undefined ? sorted(json) : { error: { code: error.code } };
      } catch {
        return line;
      }
    })
    .map((each) => JSON.stringify(each).replaceAll(/[\da-f]{48}/g, '<id>'))
    .toSorted();
}

/** With the members of objects in order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]),
  );
}
