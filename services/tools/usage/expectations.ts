import { BoundedMap } from '#lib/bounded-map.ts';

/** How many of a tool's last successful calls are used for the estimate. */
const maxRememberedCalls = 64;
const maxTools = 10_000;

/** What calls of a tool are expected to use. */
export interface Expectations {
  /** The maximum that one of the last calls has used; undefined if nothing is known about the tool. */
  of(toolId: string): Promise<number | undefined>;
  /** The same, if this process knows it already. */
  now(toolId: string): number | undefined;
  /** Records what a call has used. */
  learn(toolId: string, tokens: number): void;
}

/** @param known looks up the maximum that a tool's calls used before this process started */
export function openExpectations(known: (toolId: string) => Promise<number | undefined>): Expectations {
  const seen = new BoundedMap<string, number[]>(maxTools);

  return {
    async of(toolId) {
      let last = seen.get(toolId);
      if (last === undefined) {
        const before = await known(toolId);
        if (before === undefined) return seen.has(toolId) ? Math.max(...seen.get(toolId)!) : undefined;
        last = seen.get(toolId) ?? [before];
        seen.set(toolId, last);
      }
      return Math.max(...last);
    },
    now(toolId) {
      const last = seen.get(toolId);
      return last && Math.max(...last);
    },
    learn(toolId, tokens) {
      const last = seen.get(toolId) ?? [];
      last.push(tokens);
      if (last.length > maxRememberedCalls) last.shift();
      seen.set(toolId, last);
    },
  };
}
