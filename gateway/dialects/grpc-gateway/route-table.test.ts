import test from 'ava';
import { parseTemplate } from '../../rules/path-template.ts';
import { GrpcGatewayRouteTable } from './route-table.ts';

/** A table of routes, each `Service METHOD /template`. */
function table(...routes: string[]): GrpcGatewayRouteTable<string> {
  return new GrpcGatewayRouteTable(
    routes.map((target) => {
      const [service, method, path] = target.split(' ') as [string, string, string];
      return { service, method, template: parseTemplate(path), target };
    }),
  );
}

function found(routes: GrpcGatewayRouteTable<string>, request: string): [route: string, ...values: string[]] | string {
  const [method, path] = request.split(' ') as [string, string];
  const match = routes.find(method, path);
  return match.kind === 'found' ? [match.route.target, ...match.values] : match.kind;
}

test('strict route: of the rules of a service the last one that fits is taken', (t) => {
  const routes = table('A GET /v1/{id}', 'A GET /v1/search', 'A POST /v1/{id}:custom', 'A POST /v1/{id}:custom:custom');
  t.deepEqual(found(routes, 'GET /v1/search'), ['A GET /v1/search']);
  t.deepEqual(found(routes, 'GET /v1/x'), ['A GET /v1/{id}', 'x']);
  t.deepEqual(found(routes, 'POST /v1/x:custom'), ['A POST /v1/{id}:custom', 'x']);
  t.deepEqual(found(routes, 'POST /v1/x:custom:custom'), ['A POST /v1/{id}:custom:custom', 'x']);
  t.is(found(routes, 'POST /v1/:custom'), 'wrong method');
  t.deepEqual(found(table('A GET /v1/search', 'A GET /v1/{id}'), 'GET /v1/search'), ['A GET /v1/{id}', 'search']);
});

test('strict route: of the rules of several services the more specific one is taken, or else that of the first', (t) => {
  const routes = table('A GET /v1/{id}', 'A POST /v1/echo', 'B GET /v1/echo', 'B POST /v1/echo', 'C GET /{name=**}');
  t.deepEqual(found(routes, 'GET /v1/echo'), ['B GET /v1/echo']);
  t.deepEqual(found(routes, 'POST /v1/echo'), ['A POST /v1/echo']);
  t.deepEqual(found(routes, 'GET /v1/x'), ['A GET /v1/{id}', 'x']);
  t.deepEqual(found(routes, 'GET /v1/x/y'), ['C GET /{name=**}', 'v1/x/y']);
  t.deepEqual(
    routes.shadowed.map(([never, before]) => [never.target, before.target]),
    [['B POST /v1/echo', 'A POST /v1/echo']],
  );
});

test('strict route: the path is decoded before it is split, and segments may be empty', (t) => {
  const routes = table('A GET /v1/{a}/{b}', 'A GET /');
  t.deepEqual(found(routes, 'GET /v1/x%2Fy'), ['A GET /v1/{a}/{b}', 'x', 'y']);
  t.deepEqual(found(routes, 'GET /v1//'), ['A GET /v1/{a}/{b}', '', '']);
  t.deepEqual(found(routes, 'GET /'), ['A GET /']);
  t.is(found(routes, 'GET /v1'), 'unknown path');
  t.is(found(routes, 'GET /v1/%zz'), 'malformed path');
  t.is(found(routes, 'PUT /v1/a/b'), 'wrong method');
});
