import { setTimeout as sleep } from 'node:timers/promises';
import { backoffMs } from '#lib/backoff.ts';
import { hubTime } from '#lib/clock.ts';
import { inSpan, withTracedContext } from '#lib/tracing.ts';
import { HubError, isTransient } from '#lib/errors.ts';
import { counter, durationHistogram } from '#lib/metrics.ts';
import { EndpointRefused, type Endpoints } from '#lib/public-endpoint.ts';
import type { Places } from '#lib/rpc/places.ts';
import type { Catalog, Tool } from '../catalog/catalog.ts';
import type { Circuit } from './circuits.ts';
import type { Expectations } from '../usage/expectations.ts';
import type { Ledger, Reservation, Settlement } from '../usage/ledger.ts';
import { reserve } from '../usage/reserving.ts';
import { outputOf, tokensOf, tokensOfBytes, toolNotFound, toolUnavailable, type ResponseStatus } from '../tools.ts';
import { ToolFailure, type Answer, type Upstream } from './upstream.ts';

export interface Invocation {
  userId: string;
  toolId: string;
  /** An object of JSON. */
  input: object;
  requestId: string;
}

export interface Invoked {
  output: Record<string, unknown>;
  tokens: number;
  /** For all attempts together, in milliseconds. */
  duration: number;
}

export interface InvocationOptions {
  ledger: Ledger;
  catalog: Pick<Catalog, 'findActive'>;
  expectations: Expectations;
  circuits: (toolId: string) => Circuit;
  endpoints: Pick<Endpoints, 'locate'>;
  upstream: Pick<Upstream, 'ask'>;
  /** Limits the invocations in flight, whether or not their callers still wait for them. */
  places: Places;
  /** How long a call waits until it is known whether it may begin. */
  maxWaitMs: number;
}

/** Runs invocations, each to its end. */
export interface Invocations {
  /**
   * Has a tool work on an input, and counts what that uses. It ends, and is counted, though its caller may have gone.
   *
   * @throws HubError
   */
  invoke(invocation: Invocation): Promise<Invoked>;
  /** Aborts what is in flight, and counts it as failed. */
  stop(): Promise<void>;
}

type Outcome = Pick<Settlement, 'status' | 'tokens'> & ({ output: Record<string, unknown> } | { failure: HubError });

/** How long to wait between two attempts to record what a call has used. */
const settleBackoff = { firstMs: 100, maxMs: 1_000, jitter: 0 };

const invocations = counter('tool_invocations_total', 'Invocations of tools, by how they ended', {
  status: ['success', 'error', 'timeout'] satisfies ResponseStatus[],
});
const usedTokens = counter('tool_tokens_total', 'Tokens that invocations of tools have used');
const upstreamDuration = durationHistogram(
  'tool_duration_seconds',
  'From the first try of a tool to the end of the last',
);

export function openInvocations(options: InvocationOptions): Invocations {
  const { ledger, catalog, expectations, circuits, endpoints, upstream, places, maxWaitMs } = options;
  const stopping = new AbortController();
  const underWay = new Set<Promise<unknown>>();

  async function run({ userId, toolId, input, requestId }: Invocation): Promise<Invoked> {
    const body = JSON.stringify(input);
    const [tool, known] = await Promise.all([catalog.findActive(toolId), expectations.of(toolId)]);
    const circuit = circuits(toolId);
    const minTokens = tokensOfBytes(Buffer.byteLength(body));
    const reservation = await reserve(ledger, { maxWaitMs, signal: stopping.signal }, () => {
      // While it waited, the call before it may have shown what the tool uses.
      const maxUsed = expectations.now(toolId) ?? known;
      return {
        userId,
        toolId,
        requestId,
        expected: maxUsed === undefined ? undefined : Math.max(maxUsed, minTokens),
        refusal: tool === undefined ? toolNotFound() : circuit.refusal(),
      };
    });
    const began = performance.now();
    // Where there is no tool, nothing was reserved.
    const outcome = await ask(tool!, circuit, body, requestId);
    const duration = Math.round(performance.now() - began);
    const { status, tokens } = outcome;
    // Before it is settled, since calls that wait for that use the expectation.
    if ('output' in outcome) expectations.learn(toolId, tokens);
    await settle({ reservationId: reservation.id, userId, status, tokens, duration }, reservation);
    if (status !== undefined) {
      invocations.inc({ status });
      upstreamDuration.observe(duration / 1_000);
    }
    if ('failure' in outcome) throw outcome.failure;
    usedTokens.inc(tokens);
    return { output: outcome.output, tokens, duration };
  }

  async function ask(tool: Tool, circuit: Circuit, body: string, requestId: string): Promise<Outcome> {
    // A host that can't be looked up is a failure of the tool, like one that can't be connected to.
    const located = await endpoints.locate(tool.apiEndpoint).then(
      (destination) => ({ destination }),
      (error: unknown) => ({ error }),
    );
    if ('error' in located && located.error instanceof EndpointRefused) {
      return { status: undefined, tokens: 0, failure: endpointRefused(located.error) };
    }
    let answer: Answer;
    try {
      answer = await circuit.run(() => {
        if ('destination' in located) {
          const { destination } = located;
          const question = { body, requestId, signal: stopping.signal };
          return inSpan('POST', { kind: 'client' }, () => upstream.ask(destination, question));
        }
        const shown = toolUnavailable("The tool's host can't be found", { cause: located.error });
        throw new ToolFailure('error', shown);
      });
    } catch (error) {
      if (error instanceof ToolFailure) return { status: error.status, tokens: 0, failure: error.shown };
      // The circuit has opened meanwhile.
      if (error instanceof HubError) return { status: undefined, tokens: 0, failure: error };
      throw error;
    }
    if ('declined' in answer) return { status: 'error', tokens: 0, failure: answer.declined };
    const output = outputOf(answer.value);
    const bytes = Buffer.byteLength(body) + Buffer.byteLength(JSON.stringify(output));
    return { status: 'success', tokens: tokensOf(output, bytes), output };
  }

  /** Records what a call has used; retries while the database is away, as long as the reservation lasts. */
  async function settle(settlement: Settlement, { expiresAt }: Reservation): Promise<void> {
    for (let failures = 1; ; failures += 1) {
      try {
        if (await ledger.settle(settlement)) return;
        break;
      } catch (error) {
        const pause = backoffMs(settleBackoff, failures);
        if (!isTransient(error) || hubTime() + pause > expiresAt.getTime() || stopping.signal.aborted) throw error;
        await sleep(pause);
      }
    }
    // It counts as failed already, so nobody may have its output.
    if (settlement.status !== undefined) throw toolUnavailable('What the call has used could not be counted in time');
  }

  return {
    async invoke(invocation) {
      const release = places.take('long', invocation.userId);
      // Without its caller's deadline: what the call has used is counted, whoever still waits for it.
      const context = { requestId: invocation.requestId, client: invocation.userId };
      const running = withTracedContext(context, 'invoke tool', {}, () => run(invocation)).finally(release);
      const ended = running.catch(() => {}).finally(() => underWay.delete(ended));
      underWay.add(ended);
      return running;
    },

    async stop() {
      stopping.abort();
      await Promise.all(underWay);
    },
  };
}

function endpointRefused(cause: EndpointRefused): HubError {
  return toolUnavailable("The tool's endpoint may not be asked: its address is not a public one", { cause });
}
