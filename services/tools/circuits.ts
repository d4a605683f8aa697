import { circuitBreaker, CircuitState, ConsecutiveBreaker, handleWhen } from 'cockatiel';
import { BoundedMap } from '#lib/bounded-map.ts';
import type { HubError } from '#lib/errors.ts';
import { circuitOpen } from './tools.ts';

/** So many invocations of a tool that fail in a row open its circuit. */
const mostFailures = 5;
/** Tools that nobody has invoked for the longest are forgotten beyond this many. */
const mostCircuits = 10_000;

/** Leaves a tool alone for a while that fails again and again. */
export interface Circuit {
  /** Why the tool may not be asked now; undefined if it may. */
  refusal(): HubError | undefined;
  /** Asks the tool. @throws HubError `CIRCUIT_OPEN` without doing it, or what `work` throws */
  run<T>(work: () => Promise<T>): Promise<T>;
}

/**
 * A circuit for each tool, in this process alone: each replica finds out by itself that a tool fails. It opens after five failed
 * invocations in a row; once `reset` milliseconds have passed one is let through, whose end closes it or opens it again.
 *
 * @param isFailure whether an error is one of the tool; all others are no sign that it fails
 */
export function openCircuits(reset: number, isFailure: (error: unknown) => boolean): (toolId: string) => Circuit {
  const circuits = new BoundedMap<string, Circuit>(mostCircuits);
  return (toolId) => {
    const circuit = circuits.get(toolId) ?? openCircuit(reset, isFailure);
    circuits.set(toolId, circuit);
    return circuit;
  };
}

function openCircuit(reset: number, isFailure: (error: unknown) => boolean): Circuit {
  const policy = circuitBreaker(handleWhen(isFailure), {
    halfOpenAfter: reset,
    breaker: new ConsecutiveBreaker(mostFailures),
  });
  let openedAt = 0;
  policy.onBreak(() => (openedAt = Date.now()));

  function refusal(): HubError | undefined {
    const left = openedAt + reset - Date.now();
    // While one is being tried, others would wait for it in the policy: they are told at once.
    const isOpen = policy.state === CircuitState.HalfOpen || (policy.state === CircuitState.Open && left > 0);
    return isOpen ? circuitOpen(Math.max(1, Math.ceil(left / 1_000))) : undefined;
  }

  return {
    refusal,
    async run(work) {
      const refused = refusal();
      if (refused !== undefined) throw refused;
      return policy.execute(work);
    },
  };
}
