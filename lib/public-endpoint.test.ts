import test from 'ava';
import { openPinnedConnections } from './pinned-connections.ts';
import { EndpointRefused, isPublic, openEndpoints } from './public-endpoint.ts';
import { answering, startToolServer } from '../test/tool-servers.ts';

const nowhere = async () => [];

/** Hosts of URLs that all lead to an address which isn't public, in whatever notation. */
const refusedHosts = [
  '127.0.0.1',
  '127.1',
  '127.0.1',
  '2130706433',
  '0x7f000001',
  '0x7f.0.0.1',
  '0177.0.0.1',
  '017700000001',
  '127.0.0.1.',
  '0',
  '0.0.0.0',
  '10.0.0.1',
  '0xa.1',
  '10.255.255.255',
  '100.64.0.1',
  '100.127.255.255',
  '169.254.169.254',
  '0xa9fea9fe',
  '172.16.0.1',
  '172.31.255.255',
  '192.0.0.1',
  '192.0.2.1',
  '192.168.1.1',
  '198.18.0.1',
  '198.51.100.7',
  '203.0.113.7',
  '224.0.0.1',
  '240.0.0.1',
  '255.255.255.255',
  '①②⑦.⓪.⓪.①',
  '127。0。0。1',
  '%31%32%37.0.0.1',
  '[::]',
  '[::1]',
  '[0:0:0:0:0:0:0:1]',
  '[::ffff:127.0.0.1]',
  '[::ffff:7f00:1]',
  '[::ffff:10.0.0.1]',
  '[::127.0.0.1]',
  '[fe80::1]',
  '[fec0::1]',
  '[fc00::1]',
  '[fd12:3456:789a::1]',
  '[ff02::1]',
  '[100::1]',
  '[2001:db8::1]',
  '[3fff::1]',
  '[5f00::1]',
  '[2001::1]',
  '[2001:20::1]',
  '[2002:7f00:1::]',
  '[2002:a00:1::]',
  '[2002:c0a8:101::1]',
  '[64:ff9b::7f00:1]',
  '[64:ff9b::10.0.0.1]',
  '[64:ff9b::169.254.169.254]',
  '[64:ff9b:1::1]',
  '[64:ff9b:1:ffff:ffff:ffff:8.8.8.8]',
  '[4000::1]',
];

const publicHosts = [
  '8.8.8.8',
  '134744072',
  '0x08080808',
  '1.1.1.1.',
  '100.63.255.255',
  '172.32.0.1',
  '[2606:4700::1111]',
  '[::ffff:8.8.8.8]',
  '[2002:808:808::1]',
  '[64:ff9b::8.8.8.8]',
];

for (const host of refusedHosts) {
  test(`${host}: is refused at creation and at the call`, async (t) => {
    const { problem, locate } = openEndpoints([], nowhere);
    for (const url of [`http://${host}/tool`, `https://${host}:8443/tool?a=1`]) {
      t.is(problem(url)?.rule, 'public_address', url);
      await t.throwsAsync(locate(url), { instanceOf: EndpointRefused }, url);
    }
  });
}

for (const host of publicHosts) {
  test(`${host}: may be asked`, async (t) => {
    const { problem, locate } = openEndpoints([], nowhere);
    t.is(problem(`http://${host}:8080/tool`), undefined);
    t.is((await locate(`http://${host}:8080/tool`)).addresses.length, 1);
  });
}

test('only http and https URLs without a username or password are endpoints', (t) => {
  const { problem } = openEndpoints([], nowhere);
  for (const wrong of [
    '',
    'tool',
    '//example.com',
    'ftp://example.com',
    'file:///etc/passwd',
    'http://',
    'gopher://x',
    ' http://example.com/',
    'http://exam\tple.com/',
    'http://example.com/\0',
    'http://example.com/a b',
  ]) {
    t.truthy(problem(wrong), wrong);
  }
  for (const wrong of ['http://user@example.com/', 'http://:secret@example.com/', 'http://example.com@127.0.0.1/']) {
    t.truthy(problem(wrong), wrong);
  }
  t.is(problem('https://example.com/tool?key=1#part'), undefined);
  t.is(problem('HTTP://EXAMPLE.com'), undefined);
});

test('a name is looked up at the call alone, and refused for any of its addresses', async (t) => {
  const answers: Record<string, string[]> = {
    'public.example': ['8.8.8.8', '2606:4700::1111'],
    'private.example': ['10.0.0.1'],
    'mixed.example': ['8.8.8.8', '127.0.0.1'],
    'mapped.example': ['::ffff:127.0.0.1'],
    'scoped.example': ['fe80::1%eth0'],
    'xn--bcher-kva.example': ['127.0.0.1'],
    'dotted.example.': ['127.0.0.1'],
  };
  const asked: string[] = [];
  const { problem, locate } = openEndpoints([], async (host) => {
    asked.push(host);
    return answers[host] ?? [];
  });
  t.deepEqual((await locate('http://public.example/')).addresses, answers['public.example']);
  const refused = [
    'private.example',
    'mixed.example',
    'mapped.example',
    'scoped.example',
    'bücher.example',
    'dotted.example.',
  ];
  for (const host of refused) {
    t.is(problem(`http://${host}/`), undefined);
    await t.throwsAsync(locate(`http://${host}/`), { instanceOf: EndpointRefused }, host);
  }
  t.is(asked.length, 7);
  await t.throwsAsync(locate('http://unknown.example/'), { message: /no address/ });
});

test('localhost is refused, whatever the system says that it is', async (t) => {
  const { locate } = openEndpoints([]);
  await t.throwsAsync(locate('http://localhost:9/'), { instanceOf: EndpointRefused });
});

test('what is allowed may be asked: hosts by name, addresses, networks', async (t) => {
  const { problem, locate } = openEndpoints(
    ['Tools.Internal.', '127.0.0.0/8', '::1', 'fd00::/8', '192.168.7.7'],
    async () => ['10.9.9.9'],
  );
  for (const url of [
    'http://127.0.0.1',
    'http://2130706434/',
    'http://[::1]/',
    'http://[::ffff:127.0.0.1]/',
    'http://[fd00::5]/',
    'http://192.168.7.7/',
  ]) {
    t.is(problem(url), undefined, url);
    t.is((await locate(url)).addresses.length, 1, url);
  }
  t.deepEqual((await locate('http://tools.internal/')).addresses, ['10.9.9.9']);
  t.deepEqual((await locate('http://TOOLS.internal./')).addresses, ['10.9.9.9']);
  await t.throwsAsync(locate('http://other.internal/'), { instanceOf: EndpointRefused });
  t.truthy(problem('http://192.168.7.8/'));
});

test('isPublic: what is no address is not', (t) => {
  for (const text of ['', 'localhost', '1.2.3.256', '::g']) t.false(isPublic(text), text);
});

test('a host whose addresses change is asked at those that were checked, which it is looked up for once', async (t) => {
  const right = await startToolServer();
  const wrong = await startToolServer('127.0.0.2');
  t.teardown(async () => void (await Promise.all([right.stop(), wrong.stop()])));
  right.on('/', answering({ from: 'right' }));
  wrong.on('/', answering({ from: 'wrong' }));
  const connections = openPinnedConnections({ timeout: 5_000, maxHosts: 2, connectionsPerHost: 2 });
  t.teardown(() => connections.close());
  const answers = [['127.0.0.1'], ['127.0.0.2'], ['127.0.0.2']];
  let lookups = 0;
  const { locate } = openEndpoints(['127.0.0.1'], async () => answers[lookups++]!);
  const { port } = new URL(right.url);
  const request = { headers: {}, body: '{}', signal: new AbortController().signal };
  const destination = await locate(`http://changing.example:${port}/`);
  for (let time = 0; time < 3; time += 1) {
    const { body } = await connections.post(destination, request);
    t.deepEqual(await body.json(), { from: 'right' });
  }
  t.is(lookups, 1);
  t.is(right.asked[0]?.headers.host, `changing.example:${port}`);
  await t.throwsAsync(locate(`http://changing.example:${port}/`), { instanceOf: EndpointRefused });
  t.is(wrong.asked.length, 0);
});

test('a connection that is kept belongs to the addresses that were checked for it', async (t) => {
  const first = await startToolServer();
  t.teardown(() => first.stop());
  first.on('/', answering({ from: 'first' }));
  const connections = openPinnedConnections({ timeout: 2_000, maxHosts: 2, connectionsPerHost: 2 });
  t.teardown(() => connections.close());
  const answers = [['127.0.0.1'], ['127.0.0.3']];
  const { locate } = openEndpoints(['127.0.0.0/8'], async () => answers.shift()!);
  const url = `http://changing.example:${new URL(first.url).port}/`;
  const request = { headers: {}, body: '{}', signal: new AbortController().signal };
  const { body } = await connections.post(await locate(url), request);
  t.deepEqual(await body.json(), { from: 'first' });
  // Nothing listens there: an open connection to the first address must not be what answers.
  await t.throwsAsync(connections.post(await locate(url), request), { code: 'ECONNREFUSED' });
  t.is(first.asked.length, 1);
});
