import test from 'ava';
import { b64Decode, b64Encode, toHttp, type Rule } from './wire.ts';

const get = (path: string, more: Partial<Rule> = {}): Rule => ({ verb: 'GET', path, ...more });

test('toHttp: a variable of a path is encoded, keeps the slashes of its pattern, and leads to no other path', (t) => {
  t.deepEqual(toHttp(get('/x/{a}:do'), { a: 'x/ä?' }), { path: '/x/x%2F%C3%A4%3F:do' });
  t.deepEqual(toHttp(get('/x/{a.b}'), { a: { b: 7, c: 8 } }), { path: '/x/7?a.c=8' });
  t.deepEqual(toHttp(get('/{a=shelves/*}'), { a: 'shelves/1 2' }), { path: '/shelves/1%202' });
  for (const a of [undefined, null, '', '.', '..'])
    t.throws(() => toHttp(get('/{a}'), { a }), { instanceOf: TypeError, message: /a is part of the path/ });
  t.throws(() => toHttp(get('/{a=**}'), { a: 'x/../y' }), { instanceOf: TypeError });
});

test('toHttp: the query has every value that is said, zeros too, and nothing that is elsewhere', (t) => {
  const request = {
    a: 0,
    b: '',
    c: false,
    d: null,
    e: undefined,
    f: [1, 2],
    g: { h: 'ä&', i: { j: [] } },
    k: 'path',
    m: { x: 1 },
  };
  t.is(toHttp(get('/{k}', { maps: ['m'] }), request).path, '/path?a=0&b=&c=false&f=1&f=2&g.h=%C3%A4%26&m%5Bx%5D=1');
  t.is(toHttp(get('/{k}'), { k: 1 }).path, '/1');
  t.throws(() => toHttp(get('/'), { a: [{}] }), { instanceOf: TypeError, message: /a has no place/ });
});

test('toHttp: the body is all that is not in the path, or one field beside the query', (t) => {
  const request = { id: '1', n: 0, list: ['a'], bytes: new Uint8Array([255]) };
  const all = { verb: 'POST', path: '/x/{id}', body: '*' };
  t.deepEqual(toHttp({ ...all, set: { stream: true } }, request), {
    path: '/x/1',
    body: JSON.stringify({ n: 0, list: ['a'], bytes: '/w==', stream: true }),
  });
  const one = { verb: 'PUT', path: '/x/{id}', body: 'list', empty: [] };
  t.deepEqual(toHttp(one, { id: '1', n: 0, list: ['a'] }), { path: '/x/1?n=0', body: '["a"]' });
  t.deepEqual(toHttp(one, { id: '1' }), { path: '/x/1', body: '[]' });
});

test('base64: what is encoded can be decoded, of any length', (t) => {
  for (const length of [0, 1, 2, 3, 8_191, 8_192, 100_000]) {
    const bytes = Uint8Array.from({ length }, (_, index) => index % 251);
    t.is(b64Encode(bytes), Buffer.from(bytes).toString('base64'));
    t.deepEqual(b64Decode(b64Encode(bytes)), bytes);
  }
});
