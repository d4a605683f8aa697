import { HubError } from '#lib/errors.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { Expectations } from './expectations.ts';
import type { Ledger, Settlement } from './ledger.ts';
import { reserve } from './reserving.ts';

/** Work of another service, for a user. */
export interface Work {
  userId: string;
  requestId: string;
  /** Milliseconds that it may take. */
  limit: number;
}

export interface MeteringOptions {
  ledger: Ledger;
  catalog: Pick<Catalog, 'name'>;
  expectations: Expectations;
  /** How long to wait for a reservation. */
  maxWaitMs: number;
}

/** Counts the work of other services like that of tools: as usage under the name of the service. */
export interface Metering {
  /** @returns the reservation's id. @throws HubError if the work can't begin */
  reserve(service: string, work: Work, signal: AbortSignal): Promise<string>;
  /** May be repeated. @throws HubError FAILED_PRECONDITION if it counts as failed already */
  settle(service: string, settlement: Settlement): Promise<void>;
}

/** By service, the tool id under which its work is counted. Stored usage refers to it, so it never changes. */
const toolIds: Readonly<Record<string, string>> = { assistant: '00000000-0000-4000-8000-0000000e0100' };
/** How long after its limit work may still be settled. */
const settlingTimeMs = 30_000;

export function openMetering({ ledger, catalog, expectations, maxWaitMs }: MeteringOptions): Metering {
  const named = new Map<string, Promise<void>>();

  function toolIdOf(service: string): string {
    const id = toolIds[service];
    if (id === undefined) throw new Error(`The work of ${service} is not counted`);
    return id;
  }

  /** Once for a process, so that the usage has a name to show. */
  function nameOnce(toolId: string, name: string): Promise<void> {
    const naming = named.get(toolId) ?? catalog.name(toolId, name);
    named.set(toolId, naming);
    naming.catch(() => named.delete(toolId));
    return naming;
  }

  return {
    async reserve(service, { userId, requestId, limit }, signal) {
      const toolId = toolIdOf(service);
      const [known] = await Promise.all([expectations.of(toolId), nameOnce(toolId, service)]);
      const reservation = await reserve(ledger, { maxWaitMs, signal }, () => ({
        userId,
        toolId,
        requestId,
        expected: expectations.now(toolId) ?? known,
        refusal: undefined,
        lifetime: limit + settlingTimeMs,
      }));
      return reservation.id;
    },

    async settle(service, settlement) {
      // Before it is settled, since calls that wait for that use the expectation.
      if (settlement.status === 'success') expectations.learn(toolIdOf(service), settlement.tokens);
      if (await ledger.settle(settlement)) return;
      // Nothing began, so there is nothing to count.
      if (settlement.status === undefined) return;
      const text = 'The work was not settled in time, and counts as failed';
      throw new HubError('FAILED_PRECONDITION', 'RESERVATION_EXPIRED', text);
    },
  };
}
