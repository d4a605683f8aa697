import { coversPath, matchSteps, type Match, type Route } from '../../rules/path-template.ts';

/** A route of a service, which has its rules in the order of its proto. */
export interface ServiceRoute<T> extends Route<T> {
  service: string;
}

/**
 * Routes as grpc-gateway does: by the method first, with the path decoded before it is split, and empty segments like others. Of the
 * rules of one service that match a request the last one in its proto is taken. In Go the order of services is that in which they
 * are registered; here the rule of the service that is more specific is taken, or else that of the first service.
 */
export class GrpcGatewayRouteTable<T> {
  readonly #routes: readonly ServiceRoute<T>[];
  /** By number of segments: those without `**` that have as many, and all with one, the last of their services first. */
  readonly #byLength = new Map<number, readonly ServiceRoute<T>[]>();
  readonly #openEnded: readonly ServiceRoute<T>[];

  /** @param routes by their services; within a service as its proto has them */
  constructor(routes: readonly ServiceRoute<T>[]) {
    this.#routes = routes.toReversed();
    this.#openEnded = this.#routes.filter(isOpenEnded);
    for (const { template } of routes) {
      const { length } = template.steps;
      if (this.#byLength.has(length)) continue;
      const fitting = this.#routes.filter((route) => isOpenEnded(route) || route.template.steps.length === length);
      this.#byLength.set(length, fitting);
    }
  }

  /** Routes that are never taken, since another service has a route for the same requests: pairs of both. */
  get shadowed(): (readonly [never: ServiceRoute<T>, before: ServiceRoute<T>])[] {
    return this.#routes.flatMap((route, index) => {
      const before = this.#routes.findLast((other, at) => at > index && isSame(route, other));
      return before === undefined || before.service === route.service ? [] : [[route, before] as const];
    });
  }

  /** Finds the route of a request. `path` is as the client sent it, still encoded, without the query. */
  find(method: string, path: string): Match<T> {
    const whole = path.includes('%') ? decoded(path) : path;
    if (whole === undefined) return { kind: 'malformed path' };
    const segments = whole === '/' ? [] : whole.slice(1).split('/');
    const candidates = this.#byLength.get(segments.length) ?? this.#openEnded;
    let found: { route: ServiceRoute<T>; values: readonly string[] } | undefined;
    let other: ServiceRoute<T> | undefined;
    for (const route of candidates) {
      if (route.method !== method) {
        if (found === undefined && other === undefined && valuesOf(route, segments) !== undefined) other = route;
        continue;
      }
      if (found?.route.service === route.service) continue;
      const values = valuesOf(route, segments);
      if (values === undefined) continue;
      // Those that come are of services that stand before.
      if (found === undefined || !isMoreSpecific(found.route, route)) found = { route, values };
    }
    if (found !== undefined) return { kind: 'found', ...found };
    return other === undefined
      ? { kind: 'unknown path' }
      : { kind: 'wrong method', allow: [other.method], template: other.template };
  }
}

function isOpenEnded({ template }: Route<unknown>): boolean {
  return template.steps.some(({ kind }) => kind === 'rest');
}

function isSame(one: Route<unknown>, other: Route<unknown>): boolean {
  const isBoth = one.method === other.method && one.template.steps.length === other.template.steps.length;
  return isBoth && coversPath(one.template, other.template) && coversPath(other.template, one.template);
}

function isMoreSpecific(one: Route<unknown>, other: Route<unknown>): boolean {
  return coversPath(other.template, one.template) && !coversPath(one.template, other.template);
}

/** The values of a route's variables; undefined if the path isn't one of it. */
function valuesOf({ template }: Route<unknown>, segments: readonly string[]): readonly string[] | undefined {
  const { verb, steps, variables } = template;
  let path = segments;
  if (verb !== undefined) {
    const last = segments.at(-1);
    if (last === undefined || !last.endsWith(`:${verb}`) || last.length === verb.length + 1) return undefined;
    path = [...segments.slice(0, -1), last.slice(0, -verb.length - 1)];
  }
  const bounds = matchSteps(steps, path, true);
  if (bounds === undefined) return undefined;
  return variables.map(({ from, to }) => path.slice(bounds[from], bounds[to]).join('/'));
}

function decoded(path: string): string | undefined {
  try {
    return decodeURIComponent(path);
  } catch {
    return undefined;
  }
}
