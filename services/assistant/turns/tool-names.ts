import type { ToolDefinition } from '../provider/provider.ts';
import type { Tool } from '../toolbox/toolbox.ts';

/** OpenAI's limit for names of functions. */
const maxNameLength = 64;

/** The tools of a turn by the names under which the model is told of them. */
export type NamedTools = ReadonlyMap<string, Tool>;

/** Gives each tool a name with its server in front of it, `server__tool`, of such characters as models take. */
export function nameTools(tools: readonly Tool[]): NamedTools {
  const named = new Map<string, Tool>();
  for (const tool of tools) {
    const name = `${tool.server}__${tool.name}`.replaceAll(/[^a-zA-Z0-9_-]/g, '_').slice(0, maxNameLength);
    let free = name;
    for (let number = 2; named.has(free); number += 1) {
      const suffix = `_${number}`;
      free = `${name.slice(0, maxNameLength - suffix.length)}${suffix}`;
    }
    named.set(free, tool);
  }
  return named;
}

/** What the model is told of tools. */
export function definitionsOf(tools: NamedTools): ToolDefinition[] {
  return [...tools].map(([name, { description, inputSchema }]) => ({ name, description, parameters: inputSchema }));
}
