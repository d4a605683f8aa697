/** The health of a part of the hub: a service or one of its dependencies. */
export type Health = 'up' | 'down';

/** The health of parts of the hub, by names such as `file`, `file.database` and `assistant.mcp.maps`. */
export interface PartsHealth {
  /** All of these must be up. */
  dependencies: Readonly<Record<string, Health>>;
  /** A service works without these. */
  optional: Readonly<Record<string, Health>>;
}

/** Why something is not ready. */
export type NotReady = 'starting' | 'stopping' | 'unavailable';

/** The features of the hub with the services that each needs, first the one that implements it. A feature may work while others don't. */
const features: Readonly<Record<string, readonly string[]>> = {
  accounts: ['auth', 'account'],
  conversations: ['conversation'],
  messages: ['message', 'conversation', 'router', 'connectors'],
  files: ['file', 'conversation'],
  tools: ['tools'],
  assistant: ['assistant'],
  events: ['events', 'conversation'],
};
const known = new Set(Object.values(features).flat());

/** The health of each feature, and of each service that belongs to no feature. */
export function featuresOf(dependencies: PartsHealth['dependencies']): Record<string, Health> {
  const names = Object.keys(dependencies);
  const services = new Set(names.filter((name) => !names.some((other) => name.startsWith(`${other}.`))));
  const isUp = (service: string) =>
    names
      .filter((name) => name === service || name.startsWith(`${service}.`))
      // A wrong clock must be set right, but breaks no feature meanwhile.
      .filter((name) => !name.endsWith('.clock'))
      .every((name) => dependencies[name] === 'up');
  const said = Object.entries(features).filter(([, [owner]]) => services.has(owner!));
  const others = [...services].filter((name) => !known.has(name)).map((name) => [name, [name]] as const);
  return Object.fromEntries(
    [...said, ...others].map(([feature, needs]) => [feature, needs.every(isUp) ? 'up' : 'down']),
  );
}

/** The body of `/ready`, without the name of the service. */
export interface Readiness {
  status: 'ready' | 'not_ready';
  /** Why it is not ready. */
  reason: NotReady | undefined;
  features: Record<string, Health>;
  dependencies: PartsHealth['dependencies'];
  optional_dependencies: PartsHealth['optional'];
}

/**
 * The readiness of parts of the hub.
 *
 * @param reason why the process isn't ready, whatever the state of its parts
 */
export function readinessOf({ dependencies, optional }: PartsHealth, reason?: NotReady): Readiness {
  const isUp = Object.values(dependencies).every((state) => state === 'up');
  const why = reason ?? (isUp ? undefined : 'unavailable');
  return {
    status: why === undefined ? 'ready' : 'not_ready',
    reason: why,
    features: featuresOf(dependencies),
    dependencies,
    optional_dependencies: optional,
  };
}
