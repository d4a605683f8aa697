import test from 'ava';
import { parseTemplate, RouteError } from '../../rules/path-template.ts';
import { RouteTable } from './route-table.ts';

/** A table of routes that lead to their own description, such as `GET /v1/users`. */
function table(...routes: string[]): RouteTable<string> {
  return new RouteTable(
    routes.map((target) => {
      const [method = '', path = ''] = target.split(' ');
      return { method, template: parseTemplate(path), target };
    }),
  );
}

function found(routes: RouteTable<string>, request: string): [route: string, ...values: string[]] | string {
  const [method = '', path = ''] = request.split(' ');
  const match = routes.find(method, path);
  if (match.kind === 'wrong method') return `wrong method: ${match.allow.join(', ')}`;
  return match.kind === 'found' ? [match.route.target, ...match.values] : match.kind;
}

test('template: variables, wildcards and verbs are understood', (t) => {
  const { steps, verb, variables } = parseTemplate('/a/*/**/{x.y=sub/*}:verb');
  t.deepEqual(
    steps.map((step) => (step.kind === 'literal' ? step.text : step.kind)),
    ['a', 'one', 'rest', 'sub', 'one'],
  );
  t.is(verb, 'verb');
  t.deepEqual(variables, [{ path: ['x', 'y'], from: 3, to: 5, several: true }]);
  t.false(parseTemplate('/v1/{id}').variables[0]?.several);
  t.deepEqual(parseTemplate('/').steps, []);
});

for (const wrong of [
  '',
  'v1',
  '/v1/',
  '/v1//a',
  '/{a',
  '/{a=b',
  '/{a}{b}',
  '/{a={b}}',
  '/{1a}',
  '/**/**',
  '/{a}/{a}',
  '/a:',
  '/%zz',
  '/{}',
  '/a}b',
]) {
  test(`template: ${JSON.stringify(wrong)} is refused`, (t) => {
    t.throws(() => parseTemplate(wrong), { instanceOf: RouteError });
  });
}

test('route: a variable is one decoded segment that is not empty', (t) => {
  const routes = table('GET /v1/things/{id}');
  t.deepEqual(found(routes, 'GET /v1/things/a%2Fb%20c'), ['GET /v1/things/{id}', 'a/b c']);
  t.deepEqual(found(routes, 'GET /v1/th%69ngs/é'), ['GET /v1/things/{id}', 'é']);
  for (const path of [
    '/v1/things/',
    '/v1/things',
    '/v1/things/a/b',
    '//v1/things/a',
    '/v1/things/a/',
    '/V1/things/a',
  ]) {
    t.is(found(routes, `GET ${path}`), 'unknown path', path);
  }
  for (const path of ['/v1/things/%', '/v1/things/%ff', '/v1/%e4/a', '/%zz']) {
    t.is(found(routes, `GET ${path}`), 'malformed path', path);
  }
});

test('route: a variable of several segments keeps an encoded slash', (t) => {
  const routes = table('GET /v1/{name=shelves/*/books/*}', 'GET /v1/files/{path=**}');
  t.deepEqual(found(routes, 'GET /v1/shelves/a%2fb/books/c%20d')[1], 'shelves/a%2fb/books/c d');
  t.deepEqual(found(routes, 'GET /v1/files/a/b%2Fc/%C3%A9')[1], 'a/b%2Fc/é');
  t.deepEqual(found(routes, 'GET /v1/files'), ['GET /v1/files/{path=**}', '']);
  t.is(found(routes, 'GET /v1/files/a//b'), 'unknown path');
  t.is(found(routes, 'GET /v1/shelves/a/books'), 'unknown path');
});

test('route: ** may stand in the middle', (t) => {
  const routes = table('GET /a/*/**/{x=sub/*}:verb');
  t.is(found(routes, 'GET /a/1/sub/2:verb')[1], 'sub/2');
  t.is(found(routes, 'GET /a/1/2/3/sub/4:verb')[1], 'sub/4');
  t.is(found(routes, 'GET /a/sub/2:verb'), 'unknown path');
  t.is(found(routes, 'GET /a/1/sub/2'), 'unknown path');
});

test('route: a verb is what follows the last colon, if a template has it', (t) => {
  const routes = table('GET /v1/things/{id}', 'POST /v1/things/{id}:archive', 'POST /v1/things:batch');
  t.deepEqual(found(routes, 'POST /v1/things/a:b:archive'), ['POST /v1/things/{id}:archive', 'a:b']);
  t.deepEqual(found(routes, 'GET /v1/things/a:b'), ['GET /v1/things/{id}', 'a:b']);
  t.deepEqual(found(routes, 'GET /v1/things/a%3Aarchive'), ['GET /v1/things/{id}', 'a:archive']);
  t.deepEqual(found(routes, 'POST /v1/things:batch'), ['POST /v1/things:batch']);
  t.is(found(routes, 'GET /v1/things/a:archive'), 'wrong method: OPTIONS, POST');
  t.is(found(routes, 'POST /v1/things/:archive'), 'wrong method: GET, HEAD, OPTIONS');
});

test('route: a verb may hold a colon; of several that fit the longest one is taken', (t) => {
  const routes = table(
    'POST /v1/{id}:custom',
    'POST /v1/{id}:custom:custom',
    'POST /v1/{name=a/*}:x:y',
    'POST /v1/a:b:c',
  );
  t.deepEqual(found(routes, 'POST /v1/u:custom'), ['POST /v1/{id}:custom', 'u']);
  t.deepEqual(found(routes, 'POST /v1/u:custom:custom'), ['POST /v1/{id}:custom:custom', 'u']);
  t.deepEqual(found(routes, 'POST /v1/u:a:custom'), ['POST /v1/{id}:custom', 'u:a']);
  t.deepEqual(found(routes, 'POST /v1/a/b:x:y'), ['POST /v1/{name=a/*}:x:y', 'a/b']);
  t.is(parseTemplate('/v1/a:b:c').verb, 'c');
  t.deepEqual(parseTemplate('/v1/a:b:c').steps.at(-1), { kind: 'literal', text: 'a:b' });
  t.deepEqual(found(routes, 'POST /v1/a:b:c'), ['POST /v1/a:b:c']);
});

test('route: a literal beats a variable, also when its method is another', (t) => {
  const routes = table(
    'GET /v1/files/{id}',
    'PATCH /v1/files/upload',
    'GET /v1/files/{id}/content',
    'DELETE /v1/files/{id}',
  );
  t.deepEqual(found(routes, 'PATCH /v1/files/upload'), ['PATCH /v1/files/upload']);
  t.is(found(routes, 'GET /v1/files/upload'), 'wrong method: OPTIONS, PATCH');
  t.deepEqual(found(routes, 'GET /v1/files/upload/content'), ['GET /v1/files/{id}/content', 'upload']);
  t.is(found(routes, 'PUT /v1/files/x'), 'wrong method: DELETE, GET, HEAD, OPTIONS');
});

test('route: one segment beats several', (t) => {
  const routes = table('GET /v1/{name=**}', 'GET /v1/{name=a/*}', 'GET /v1/a/b', 'GET /v1/{name=a/**}');
  t.is(found(routes, 'GET /v1/a/b')[0], 'GET /v1/a/b');
  t.is(found(routes, 'GET /v1/a/c')[0], 'GET /v1/{name=a/*}');
  t.is(found(routes, 'GET /v1/a/c/d')[0], 'GET /v1/{name=a/**}');
  t.is(found(routes, 'GET /v1/b/c/d')[0], 'GET /v1/{name=**}');
});

test('route: HEAD goes where GET goes, and any method where a template takes all', (t) => {
  const routes = table('GET /a', 'HEAD /b', 'GET /b', '* /c');
  t.deepEqual(found(routes, 'HEAD /a'), ['GET /a']);
  t.deepEqual(found(routes, 'HEAD /b'), ['HEAD /b']);
  t.deepEqual(found(routes, 'PURGE /c'), ['* /c']);
});

for (const [a, b] of [
  ['GET /v1/{id}', 'GET /v1/{name}'],
  ['GET /a/*/b', 'GET /a/b/*'],
  ['GET /a/**/b', 'GET /a/b/**'],
  ['GET /a/**/*', 'GET /a/*/**'],
  ['* /a', 'GET /a'],
  ['GET /{x}:v', 'GET /{y}:v'],
] as const) {
  test(`routes: ${a} and ${b} are ambiguous`, (t) => {
    t.throws(() => table(a, b), { instanceOf: RouteError, message: `Routes match the same requests: ${a} and ${b}` });
  });
}

for (const routes of [
  ['GET /v1/{id}', 'POST /v1/{name}'],
  ['GET /a/*/b', 'POST /a/b/*'],
  ['GET /{x}:v', 'GET /{x}:w', 'GET /{x}'],
  ['GET /a/**', 'GET /a/**/b', 'GET /a/*/b'],
]) {
  test(`routes: ${routes.join(' and ')} go together`, (t) => {
    t.notThrows(() => table(...routes));
  });
}

test('route: of two that overlap, each answers the method that it has', (t) => {
  const routes = table('GET /a/*/b', 'POST /a/b/*');
  t.deepEqual(found(routes, 'GET /a/b/b'), ['GET /a/*/b']);
  t.deepEqual(found(routes, 'POST /a/b/b'), ['POST /a/b/*']);
  t.is(found(routes, 'PUT /a/b/b'), 'wrong method: GET, HEAD, OPTIONS, POST');
});
