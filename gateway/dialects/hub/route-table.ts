import {
  coversPath,
  matchSteps,
  overlaps,
  RouteError,
  type Match,
  type Route,
  type Variable,
} from '../../rules/path-template.ts';

/** A path as it was requested: not decoded, split at its slashes. */
interface Path {
  segments: readonly string[];
  decoded: readonly string[];
}

/**
 * Routes by path and method. The path decides first: of the templates that match it the most specific ones are looked
 * at (a literal beats a variable), and a method that none of them has is a wrong method.
 */
export class RouteTable<T> {
  readonly #byLength = new Map<number, Route<T>[]>();
  readonly #openEnded: Route<T>[] = [];
  readonly #beaten = new Map<Route<T>, Set<Route<T>>>();
  readonly #verbs = new Set<string>();

  /** @throws RouteError if two routes match the same request and neither is more specific */
  constructor(routes: readonly Route<T>[]) {
    const ambiguous: string[] = [];
    for (const [index, route] of routes.entries()) {
      const { template } = route;
      if (template.verb !== undefined) this.#verbs.add(template.verb);
      if (template.steps.some((step) => step.kind === 'rest')) this.#openEnded.push(route);
      else this.#sameLength(template.steps.length).push(route);
      const beaten = new Set<Route<T>>();
      this.#beaten.set(route, beaten);
      for (const [at, other] of routes.entries()) {
        if (at === index || !overlaps(template, other.template)) continue;
        const isSpecial = coversPath(other.template, template);
        const isGeneral = coversPath(template, other.template);
        if (isSpecial && !isGeneral) beaten.add(other);
        const sameMethod = route.method === other.method || route.method === '*' || other.method === '*';
        if (at > index && isSpecial === isGeneral && sameMethod) {
          ambiguous.push(`${describe(route)} and ${describe(other)}`);
        }
      }
    }
    if (ambiguous.length > 0) throw new RouteError(`Routes match the same requests: ${ambiguous.join('; ')}`);
  }

  #sameLength(length: number): Route<T>[] {
    let routes = this.#byLength.get(length);
    if (routes === undefined) this.#byLength.set(length, (routes = []));
    return routes;
  }

  /** Finds the route of a request. `path` is as the client sent it, still encoded, without the query. */
  find(method: string, path: string): Match<T> {
    const segments = path === '/' ? [] : path.slice(1).split('/');
    let decoded: readonly string[] = segments;
    if (path.includes('%')) {
      try {
        decoded = segments.map((segment) => decodeURIComponent(segment));
      } catch {
        return { kind: 'malformed path' };
      }
    }
    return this.#withVerb(method, { segments, decoded }) ?? this.#match(method, { segments, decoded }, undefined);
  }

  /** Of the verbs that the last segment may end with, the longest one that leads somewhere is taken. */
  #withVerb(method: string, { segments, decoded }: Path): Match<T> | undefined {
    const last = segments.at(-1) ?? '';
    for (let colon = last.indexOf(':'); colon !== -1; colon = last.indexOf(':', colon + 1)) {
      const verb = safeDecode(last.slice(colon + 1));
      if (verb === undefined || !this.#verbs.has(verb)) continue;
      const bare = last.slice(0, colon);
      const path = {
        segments: [...segments.slice(0, -1), bare],
        decoded: [...decoded.slice(0, -1), safeDecode(bare) ?? bare],
      };
      const match = this.#match(method, path, verb);
      if (match.kind !== 'unknown path') return match;
    }
    return undefined;
  }

  #match(method: string, path: Path, verb: string | undefined): Match<T> {
    const matching: { route: Route<T>; bounds: number[] }[] = [];
    const consider = (route: Route<T>) => {
      if (route.template.verb !== verb) return;
      if (route.except?.some((prefix) => prefix.every((name, at) => path.decoded[at] === name)) === true) return;
      const bounds = matchSteps(route.template.steps, path.decoded);
      if (bounds !== undefined) matching.push({ route, bounds });
    };
    this.#byLength.get(path.segments.length)?.forEach(consider);
    this.#openEnded.forEach(consider);
    if (matching.length === 0) return { kind: 'unknown path' };
    const best = matching.filter(({ route }) => !matching.some((other) => this.#beaten.get(other.route)?.has(route)));
    for (const { route, bounds } of best) {
      if (route.method !== method && route.method !== '*') continue;
      return { kind: 'found', route, values: route.template.variables.map((own) => valueOf(own, bounds, path)) };
    }
    const allow = new Set(best.map(({ route }) => route.method));
    if (allow.has('GET')) {
      if (method === 'HEAD') return this.#match('GET', path, verb);
      allow.add('HEAD');
    }
    const { template } = (best[0] as (typeof best)[number]).route;
    return { kind: 'wrong method', allow: [...allow, 'OPTIONS'].sort(), template };
  }
}

function valueOf(variable: Variable, bounds: readonly number[], path: Path): string {
  const from = bounds[variable.from] as number;
  const to = bounds[variable.to] as number;
  if (!variable.several) return path.decoded[from] as string;
  return path.segments
    .slice(from, to)
    .map((segment) =>
      segment
        .split(/(%2f)/i)
        .map((part, index) => (index % 2 === 1 ? part : decodeURIComponent(part)))
        .join(''),
    )
    .join('/');
}

function safeDecode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

function describe(route: Route<unknown>): string {
  return `${route.method} ${route.template.text}`;
}
