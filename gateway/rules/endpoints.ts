import type { Binding } from './bindings.ts';
import type { Route } from './path-template.ts';

/** What is served at one method and path. */
export interface Endpoint {
  route: Route<Binding>;
  /** Of an upload the route that takes the requests with a JSON body, if there is one. */
  json: Route<Binding> | undefined;
  /** Of a method that changes what is at a path the GET there, if there is one: conditions of requests are about its answer. */
  lookup: Binding | undefined;
}

/** The endpoints that routes make: an upload and the RPC for requests with a JSON body are one. */
export function endpointsOf(routes: readonly Route<Binding>[]): Endpoint[] {
  const endpoints = routes.map((route) => ({
    route,
    json: jsonSibling(route, routes),
    lookup: lookupBeside(route, routes),
  }));
  const joined = new Set(endpoints.map(({ json }) => json));
  return endpoints.filter(({ route }) => !joined.has(route));
}

/** Whether an RPC takes an HTTP body as its stream. */
export function isUpload({ method, rawBody }: Binding): boolean {
  return rawBody !== undefined && method.methodKind === 'client_streaming';
}

/** Of an upload the route with the same method and path that takes the requests with a JSON body, if there is just one. */
function jsonSibling(route: Route<Binding>, routes: readonly Route<Binding>[]): Route<Binding> | undefined {
  if (!isUpload(route.target)) return undefined;
  const others = routes.filter(
    (other) => other !== route && other.method === route.method && other.template.text === route.template.text,
  );
  const [sibling] = others;
  const takesJson = sibling?.target.method.methodKind === 'unary' && sibling.target.body !== 'none';
  return others.length === 1 && takesJson ? sibling : undefined;
}

function lookupBeside({ method, template }: Route<Binding>, routes: readonly Route<Binding>[]): Binding | undefined {
  if (!['DELETE', 'PUT', 'PATCH'].includes(method)) return undefined;
  const { target } = routes.find((other) => other.method === 'GET' && other.template.text === template.text) ?? {};
  return target?.method.methodKind === 'unary' && target.successStatus === 200 ? target : undefined;
}
