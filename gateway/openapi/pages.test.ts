import { createHash } from 'node:crypto';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import test from 'ava';
import { fixture } from '../../test/echo-gateway.ts';
import { Fixed } from '../http/conditional-get.ts';

test('the pages load nothing but what this server has, and may do nothing else', async (t) => {
  const { send } = await fixture(t);
  for (const page of ['docs', 'redoc']) {
    const { status, headers, text } = await send(`GET /${page}`);
    t.is(status, 200);
    t.is(headers['content-type'], 'text/html; charset=utf-8');
    t.regex(headers['content-security-policy'] as string, /default-src 'none'; script-src 'self';/);
    t.notRegex(text, /https?:|<script>|style=/);
    const loaded = [...text.matchAll(/(?:href|src)="([^"]+)"/g)].map(([, url]) => url!);
    for (const url of loaded.filter((each) => !each.startsWith('data:'))) {
      const asset = await send(`GET /${url}`);
      t.is(asset.status, 200, url);
      t.true(asset.bytes.length > 50, url);
      t.is(asset.headers['x-content-type-options'], 'nosniff');
    }
    t.true(loaded.length >= 3);
  }
});

test('the document and the pages are sent once: then their entity tag is enough', async (t) => {
  const { send } = await fixture(t);
  for (const path of ['/openapi.json', '/docs', '/redoc', '/docs/swagger-ui.css', '/redoc/start.js']) {
    const first = await send(`GET ${path}`);
    t.is(first.status, 200, path);
    const again = await send(`GET ${path}`, { headers: { 'if-none-match': first.headers.etag! } });
    t.is(again.status, 304, path);
    t.is(again.bytes.length, 0, path);
    const head = await send(`HEAD ${path}`);
    t.is(head.headers['content-length'], String(first.bytes.length), path);
    t.is(head.bytes.length, 0, path);
  }
});

const decoders = { br: brotliDecompressSync, gzip: gunzipSync, identity: (bytes: Buffer) => bytes } as const;

test('what the pages load is had in the coding that a client prefers, with the same headers for HEAD', async (t) => {
  const { send } = await fixture(t);
  for (const path of [
    '/openapi.json',
    '/docs/swagger-ui-bundle.js',
    '/docs/swagger-ui.css',
    '/redoc/redoc.standalone.js',
  ]) {
    const plain = await send(`GET ${path}`);
    for (const [accepted, coding] of [
      ['gzip, deflate, br, zstd', 'br'],
      ['br;q=0.9, gzip', 'gzip'],
      ['br;q=0, *', 'gzip'],
      ['*', 'br'],
      ['gzip;q=0, br;q=0.5, identity;q=0.6', 'identity'],
      ['deflate', 'identity'],
    ] as const) {
      const headers = { 'accept-encoding': accepted };
      const got = await send(`GET ${path}`, { headers });
      t.is(got.status, 200);
      t.is(got.headers['content-encoding'] ?? 'identity', coding, `${path} ${accepted}`);
      t.is(got.headers['vary'], 'Accept-Encoding');
      t.is(got.headers['cache-control'], 'no-cache');
      t.true(decoders[coding](got.bytes).equals(plain.bytes), path);
      t.is(got.bytes.length < plain.bytes.length, coding !== 'identity');
      const head = await send(`HEAD ${path}`, { headers });
      for (const name of ['content-length', 'content-encoding', 'content-type', 'etag', 'vary']) {
        t.is(head.headers[name], got.headers[name], name);
      }
      t.is(head.bytes.length, 0);
      const known = await send(`GET ${path}`, { headers: { ...headers, 'if-none-match': got.headers.etag! } });
      t.is(known.status, 304);
      t.is(known.headers['vary'], 'Accept-Encoding');
      t.is(known.headers.etag, got.headers.etag);
    }
  }
  const icon = await send('GET /docs/favicon-32x32.png', { headers: { 'accept-encoding': 'gzip, br' } });
  t.false('content-encoding' in icon.headers);
  t.false('vary' in icon.headers);
});

test('what never changes is compressed once for each coding, whoever asks meanwhile', async (t) => {
  const fixed = new Fixed('a long text '.repeat(10_000), 'text/plain');
  for (const coding of ['br', 'gzip', 'identity'] as const) {
    const [one, another] = await Promise.all([fixed.encode(coding), fixed.encode(coding)]);
    t.is(one, another, coding);
    t.is(await fixed.encode(coding), one, coding);
    t.true(decoders[coding](one).equals(await fixed.encode('identity')));
  }
});

test('the document is of the services that are served', async (t) => {
  const { send } = await fixture(t);
  const { json } = await send('GET /openapi.json');
  t.is(json['openapi'], '3.1.0');
  t.true(Object.keys(json['paths'] as object).some((path) => path.startsWith('/v1/')));
});

test('a file that no page loads is not there', async (t) => {
  const { send } = await fixture(t);
  for (const name of ['index.html', 'constructor', '..%2Fpackage.json']) {
    const { status, json } = await send(`GET /docs/${name}`);
    t.is(status, 404, name);
    t.is(json['error_code'], 'ROUTE_NOT_FOUND', name);
  }
});

test('Redoc is the file that its package has', async (t) => {
  const { send } = await fixture(t);
  const { bytes } = await send('GET /redoc/redoc.standalone.js');
  t.is(
    createHash('sha256').update(bytes).digest('hex'),
    'dcaf76612bc4a3fbcc923a8966dee2f6146a5f32e5ce1b6f02dd60cbbf89500b',
  );
});
