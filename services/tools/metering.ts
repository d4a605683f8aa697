import { HubError } from '#lib/errors.ts';
import type { Catalog } from './catalog.ts';
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
  /** Milliseconds that a reservation is waited for at most. */
  patience: number;
}

/** Counts the work of other services as the tools' that have their names. */
export interface Metering {
  /** @returns the reservation's id. @throws HubError if the work can't begin */
  reserve(service: string, work: Work, signal: AbortSignal): Promise<string>;
  /** May be repeated. @throws HubError FAILED_PRECONDITION if it counts as failed already */
  settle(service: string, settlement: Settlement): Promise<void>;
}

/** By service the id of what its work counts as. Its usage has it, so it stays the same for good. */
const toolIds: Readonly<Record<string, string>> = { assistant: '00000000-0000-4000-8000-0000000e0100' };
/** Milliseconds beyond its limit that work may take to be settled. */
const settlingTime = 30_000;

export function openMetering({ ledger, catalog, expectations, patience }: MeteringOptions): Metering {
  const named = new Map<string, Promise<void>>();

  function toolIdOf(service: string): string {
    const id = toolIds[service];
    if (id === undefined) throw new Error(`The work of ${service} counts as no tool's`);
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
      const reservation = await reserve(ledger, { patience, signal }, () => ({
        userId,
        toolId,
        requestId,
        expected: expectations.now(toolId) ?? known,
        refusal: undefined,
        lifetime: limit + settlingTime,
      }));
      return reservation.id;
    },

    async settle(service, settlement) {
      // Before that, since who waits for it to be settled goes by it.
      if (settlement.status === 'success') expectations.learn(toolIdOf(service), settlement.tokens);
      if (await ledger.settle(settlement)) return;
      // Where nothing began, nothing is left to be counted either.
      if (settlement.status === undefined) return;
      const text = 'The work was not settled in time, and counts as failed';
      throw new HubError('FAILED_PRECONDITION', 'RESERVATION_EXPIRED', text);
    },
  };
}
