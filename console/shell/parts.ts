import type { ComponentType } from 'preact';

/**
 * A part of the console: what people do in one place. It is a folder beside this one, and plugs in so:
 *
 * 1. `console/<part>/part.ts` exports a `Part`, and `console/main.tsx` has it in its list, which is the order of the navigation.
 * 2. Its view gets the segments of the path behind its own. It leads elsewhere by links to `urlOf(…)` or by `goTo(…)` (router.ts), so that
 *    each of its views has a URL that survives a reload.
 *    The frame has the heading of the first level, which nobody sees: those of a part begin with `h2` (`part-title`).
 * 3. Its styles are in a file of its own, which `console/main.css` imports, and are made of the properties in tokens.css. What several parts
 *    show alike is in components.tsx and components.css, and conversations of all kinds in conversations.css.
 * 4. It calls the hub by `client` (session.ts), for the user `account`. It hears of what happens by `onEvent` (live.ts), shows failures with
 *    `wordsFor` (errors.ts), and keeps what must survive a reload in `kept` under `nameOfMine(…)`.
 * 5. It imports `../shell`, `#client` and its framework: no other part, which the lint checks.
 */
export interface Part {
  /** The first segment of its paths below `/console`. */
  name: string;
  title: string;
  Icon: ComponentType;
  View: ComponentType<{ path: readonly string[] }>;
  /** Called once somebody has logged in: what goes on whichever part is shown. */
  start?(): void;
  /** How much in it waits to be seen; read while the navigation is drawn. */
  unseen?(): number;
}
