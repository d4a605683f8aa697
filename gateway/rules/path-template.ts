/** A step of a path template: a literal (decoded), one segment (`*`), or any number of segments (`**`). */
type Step = { kind: 'literal'; text: string } | { kind: 'one' } | { kind: 'rest' };

/** A variable of a template: the steps `from` to `to` (exclusive) of it are the value of the field at `path`. */
export interface Variable {
  /** Names of fields, from the request message down. */
  path: readonly string[];
  from: number;
  to: number;
  /** Whether the value may hold several segments: then an encoded slash in it stays encoded. */
  several: boolean;
}

/** A path template of google.api.http, such as `/v1/{name=shelves/*}/books:archive`. */
export interface Template {
  text: string;
  steps: readonly Step[];
  verb: string | undefined;
  variables: readonly Variable[];
}

/** The rules of a route table are not usable. The message names the routes. */
export class RouteError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'RouteError';
  }
}

/**
 * Reads a path template:
 *
 *     Template = "/" Segments [ ":" verb ];  Segments = Segment { "/" Segment };
 *     Segment = "*" | "**" | literal | "{" name { "." name } [ "=" Segments ] "}"
 *
 * Behind a variable the verb is all that follows the first colon (`{id}:custom:custom`), behind a literal what follows the last one.
 *
 * @throws RouteError naming what is wrong with it
 */
export function parseTemplate(text: string): Template {
  const fail = (what: string) => new RouteError(`The path template ${text} ${what}`);
  if (!text.startsWith('/')) throw fail('must begin with a slash');
  const steps: Step[] = [];
  const variables: Variable[] = [];
  let position = 1;
  const end = endOfSegments(text);

  const decoded = (encoded: string) => {
    try {
      return decodeURIComponent(encoded);
    } catch {
      throw fail('has a wrong percent-encoding');
    }
  };
  const literal = () => {
    const [found] = /^[^/*{}=]+/.exec(text.slice(position, end)) ?? [];
    if (found === undefined) throw fail(`is not understood at character ${position + 1}`);
    position += found.length;
    return decoded(found);
  };
  const accept = (token: string) => {
    const found = position + token.length <= end && text.startsWith(token, position);
    if (found) position += token.length;
    return found;
  };
  const segment = (nested: boolean) => {
    if (accept('**')) steps.push({ kind: 'rest' });
    else if (accept('*')) steps.push({ kind: 'one' });
    else if (!nested && accept('{')) variable();
    else steps.push({ kind: 'literal', text: literal() });
  };
  const segments = (nested: boolean) => {
    do segment(nested);
    while (accept('/'));
  };
  const variable = () => {
    const from = steps.length;
    const path = literal().split('.');
    if (!path.every((name) => /^[A-Za-z_]\w*$/.test(name))) throw fail('has a variable that is no field path');
    if (accept('=')) segments(true);
    else steps.push({ kind: 'one' });
    if (!accept('}')) throw fail('has a brace that is not closed');
    const own = steps.slice(from);
    variables.push({ path, from, to: steps.length, several: own.length > 1 || own[0]?.kind === 'rest' });
  };

  // The root has no segment at all.
  if (text !== '/') segments(false);
  if (position < end) throw fail(`is not understood at character ${position + 1}`);
  const verb = end < text.length ? decoded(text.slice(end + 1)) : undefined;
  if (verb !== undefined && !/^[^/*{}=]+$/.test(verb)) throw fail(`is not understood at character ${end + 2}`);
  if (steps.filter((step) => step.kind === 'rest').length > 1) throw fail('has more than one **');
  const names = variables.map((own) => own.path.join('.'));
  if (new Set(names).size < names.length) throw fail('binds a field twice');
  return { text, steps, verb, variables };
}

/** Where the segments of a template end, and its verb begins with a colon; the end of the text if there is no verb. */
function endOfSegments(text: string): number {
  const [variable, slash] = [text.lastIndexOf('}'), text.lastIndexOf('/')];
  const colon = variable > slash ? text.indexOf(':', variable) : text.lastIndexOf(':');
  return colon > slash ? colon : text.length;
}

/**
 * Where in the path each step begins, and where the last one ends; undefined if the path doesn't match.
 *
 * @param takesEmpty whether a variable may be an empty segment
 */
export function matchSteps(
  steps: readonly Step[],
  segments: readonly string[],
  takesEmpty = false,
): number[] | undefined {
  const rest = steps.findIndex((step) => step.kind === 'rest');
  const spare = segments.length - steps.length;
  if (rest === -1 ? spare !== 0 : spare < -1) return undefined;
  const bounds: number[] = [];
  let at = 0;
  for (const step of steps) {
    bounds.push(at);
    if (step.kind === 'rest') {
      const end = at + spare + 1;
      for (; at < end; at++) if (segments[at] === '' && !takesEmpty) return undefined;
      continue;
    }
    const segment = segments[at];
    if (step.kind === 'literal' ? segment !== step.text : segment === '' && !takesEmpty) return undefined;
    at += 1;
  }
  bounds.push(at);
  return bounds;
}

/** Every path of `general` with `count` segments for its `**`; a `*` is undefined. */
function expand(template: Template, count: number): (string | undefined)[] {
  return template.steps.flatMap((step) =>
    step.kind === 'literal' ? [step.text] : Array.from({ length: step.kind === 'one' ? 1 : count }, () => undefined),
  );
}

/** Numbers of segments for a template's `**` that tell all cases apart against another template. */
function counts(template: Template, other: Template): number[] {
  if (!template.steps.some((step) => step.kind === 'rest')) return [0];
  return Array.from({ length: other.steps.length + 2 }, (_, count) => count);
}

/** Whether every path that matches `special` also matches `general`. */
export function coversPath(general: Template, special: Template): boolean {
  if (general.verb !== special.verb) return false;
  // Stands for any segment: no literal equals it, since it holds a slash.
  const anything = '/';
  return counts(special, general).every(
    (count) =>
      matchSteps(
        general.steps,
        expand(special, count).map((segment) => segment ?? anything),
      ) !== undefined,
  );
}

/** Whether some path matches both. */
export function overlaps(a: Template, b: Template): boolean {
  if (a.verb !== b.verb) return false;
  return counts(a, b).some((count) => {
    const one = expand(a, count);
    return counts(b, a).some((other) => {
      const two = expand(b, other);
      return (
        one.length === two.length &&
        one.every((segment, index) => segment === undefined || two[index] === undefined || segment === two[index])
      );
    });
  });
}

/** A route: a method (`*` is any), a template and what it leads to. */
export interface Route<T> {
  method: string;
  template: Template;
  /** Paths, as decoded segments, that it doesn't match, nor anything below them. */
  except?: readonly (readonly string[])[];
  target: T;
}

/** What a request leads to. */
export type Match<T> =
  | { kind: 'found'; route: Route<T>; values: readonly string[] }
  | { kind: 'wrong method'; allow: readonly string[]; template: Template }
  | { kind: 'unknown path' }
  | { kind: 'malformed path' };
