/** How a part of the hub is: a service, or something that one depends on. */
export type Health = 'up' | 'down';

/** How parts of the hub are, by names such as `file`, `file.database` and `assistant.mcp.maps`. */
export interface PartsHealth {
  /** All of it has to be up. */
  dependencies: Readonly<Record<string, Health>>;
  /** What a service does without while it is down. */
  optional: Readonly<Record<string, Health>>;
}

/** Why something is not ready. */
export type NotReady = 'starting' | 'stopping' | 'unavailable';

/**
 * What people use the hub for, and which services each needs: one that works is worth being offered while another doesn't. The first
 * service is the one that has it.
 */
const features: Readonly<Record<string, readonly string[]>> = {
  accounts: ['auth', 'account'],
  conversations: ['conversation'],
  messages: ['message', 'conversation', 'router', 'connectors'],
  files: ['file', 'conversation'],
  tools: ['tools'],
  assistant: ['assistant'],
};
const known = new Set(Object.values(features).flat());

/** What is said of each feature that is there, and of each service that is none of the hub's. */
export function featuresOf(dependencies: PartsHealth['dependencies']): Record<string, Health> {
  const names = Object.keys(dependencies);
  const services = new Set(names.filter((name) => !names.some((other) => name.startsWith(`${other}.`))));
  const isUp = (service: string) =>
    names
      .filter((name) => name === service || name.startsWith(`${service}.`))
      // A wrong clock is to be set right, and meanwhile nothing fails for it.
      .filter((name) => !name.endsWith('.clock'))
      .every((name) => dependencies[name] === 'up');
  const said = Object.entries(features).filter(([, [owner]]) => services.has(owner!));
  const others = [...services].filter((name) => !known.has(name)).map((name) => [name, [name]] as const);
  return Object.fromEntries(
    [...said, ...others].map(([feature, needs]) => [feature, needs.every(isUp) ? 'up' : 'down']),
  );
}

/** The body of `/ready`, without who says it. */
export interface Readiness {
  status: 'ready' | 'not_ready';
  /** Why it is not ready. */
  reason: NotReady | undefined;
  features: Record<string, Health>;
  dependencies: PartsHealth['dependencies'];
  optional_dependencies: PartsHealth['optional'];
}

/** What `/ready` says of parts of the hub. @param reason why it isn't ready, whatever they say */
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
