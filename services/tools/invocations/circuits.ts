import { circuitBreaker, CircuitState, ConsecutiveBreaker, handleWhen } from 'cockatiel';
import { BoundedMap } from '#lib/bounded-map.ts';
import type { HubError } from '#lib/errors.ts';
import { counter } from '#lib/metrics.ts';
import { circuitOpen } from '../tools.ts';

const opened = counter(
  'tool_circuits_opened_total',
  'How often the circuit of a tool opened: it failed again and again, and was not called for a while',
);

/** Consecutive failures that open the circuit of a tool. */
const maxFailures = 5;
/** Beyond this many, the least recently used is forgotten. */
const maxCircuits = 10_000;

/** A circuit breaker: a tool that fails again and again isn't called for a while. */
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
  const circuits = new BoundedMap<string, Circuit>(maxCircuits);
  return (toolId) => {
    const circuit = circuits.get(toolId) ?? openCircuit(reset, isFailure);
    circuits.set(toolId, circuit);
    return circuit;
  };
}

function openCircuit(reset: number, isFailure: (error: unknown) => boolean): Circuit {
  const policy = circuitBreaker(handleWhen(isFailure), {
    halfOpenAfter: reset,
    breaker: new ConsecutiveBreaker(maxFailures),
  });
  let openedAt = 0;
  policy.onBreak(() => {
    openedAt = Date.now();
    opened.inc();
  });

  function refusal(): HubError | undefined {
    const left = openedAt + reset - Date.now();
    // Half-open, one call tries the tool; the policy would have others wait for it, so they are refused at once.
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
