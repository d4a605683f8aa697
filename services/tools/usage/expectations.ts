import { BoundedMap } from '#lib/bounded-map.ts';

/** The last successful calls of a tool, which say what the next one may use. */
const rememberedCalls = 64;
const maxTools = 10_000;

/** What calls of a tool are expected to use. */
export interface Expectations {
  /** The most that one of the last calls has used; undefined if nothing is known of the tool. */
  of(toolId: string): Promise<number | undefined>;
  /** The same, as far as this process knows by now. */
  now(toolId: string): number | undefined;
  /** Records what a call has used. */
  learn(toolId: string, tokens: number): void;
}

/** @param known the most that a tool's calls used before this process started */
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
      if (last.length > rememberedCalls) last.shift();
      seen.set(toolId, last);
    },
  };
}
